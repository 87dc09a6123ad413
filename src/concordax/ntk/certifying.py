"""`certify`: the numbers at a start, and the ball that follows from them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._checks import check_data
from .._types import Batch
from ..losses import AbstractLoss, SquaredError
from ..metrics import AbstractMetric
from ..optimizer import Algorithm, make_algorithm
from ..regularizers import AbstractRegularizer
from ..solvers import Auto, Dual, Primal
from ..steps import FixedStep
from ..strength import FixedStrength
from ..system import Problem
from .ball import Ball, Start, kantorovich, least_ball
from .certificate import Certificate
from .lipschitz import AbstractLipschitz, Curve, MeasuredLipschitz

# Balls over which L is looked for, in units of the first step: the first that maps into itself counts.
_REACHES = (1.5, 3.0)
# Mixed into the key: that which drew the network would draw its very weights again, as the direction to look in.
_SALT = 0xB411
MEASURED = MeasuredLipschitz()
"""How L is found by default."""


class _Look(NamedTuple):
    """Numbers at the start."""

    first_step: Array
    linear_residual: Array
    eigenvalues: Float[Array, " m"]
    interpolation: Array
    usable: Array
    metric: AbstractMetric


@eqx.filter_jit
def _look(algorithm: Algorithm, params: PyTree, batch: Batch, tau: Float[Array, ""]) -> _Look:
    with jax.default_matmul_precision("highest"):
        _, flat, prepared = algorithm.prepare(params, batch)
        solution = prepared.solve(tau, jnp.zeros_like(tau))
        matrix = prepared.matrix  # pyright: ignore[reportAttributeAccessIssue]
        # The upper triangle is all that is formed.
        eigenvalues, vectors = jnp.linalg.eigh(matrix, UPLO="U", symmetrize_input=False)
        residual, interpolation = prepared.system.residual.reshape(-1), jnp.asarray(jnp.inf, flat.dtype)
        if isinstance(algorithm.solver, Dual):
            parts = (vectors.T @ residual) ** 2 / jnp.maximum(eigenvalues, jnp.finfo(flat.dtype).tiny)
            interpolation = jnp.sqrt(jnp.sum(parts))
        return _Look(
            first_step=jnp.sqrt(solution.squared_norm),
            linear_residual=jnp.linalg.norm(prepared.system.residual + solution.image),
            eigenvalues=eigenvalues,
            interpolation=interpolation,
            usable=solution.status,
            metric=prepared.system.metric,
        )


def certify(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    params: PyTree,
    data: tuple[Any, Any],
    *,
    strength: float,
    damping: float = 0.0,
    step_size: float = 1.0,
    weights=None,
    lipschitz: AbstractLipschitz = MEASURED,
    key: PRNGKeyArray | None = None,
) -> Certificate:
    """Looks at the start of a run for a ball that it cannot leave: D + E(ρ) < ρ.

    D is the length of the first undamped Gauss-Newton step, and E(ρ) how far from its end the step from any other point
    of the ball may lead: by K₀, the Lipschitz constant L of the Jacobian and the self-concordance of the regularizer.

    Args:
        model: a callable (params, inputs) -> outputs [n, c], smooth; `centered` makes one whose start can be held.
        loss: `SquaredError()`. Other losses have a curvature that changes with the outputs, of which nothing is proved.
        regularizer: with a constant at ν = 2, which all but some of one's own have.
        params: the start.
        data: (inputs, targets), n rows each.
        strength: τ > 0, a number.
        damping: λ ≥ 0 of the steps that `contraction` is for.
        step_size: α in (0, 1] of those.
        weights: [n], one by default.
        lipschitz: how L is found: `MeasuredLipschitz()`, an estimate, or `BoundedLipschitz()`, a proof.
        key: of the random starts of the measurement; `jax.random.key(0)` by default.

    Returns:
        A `Certificate`.

    Raises:
        ValueError, TypeError: for another loss, options out of range, a model that is not smooth or unusable data.

    Source: docs/certificates.md, Theorems 1 to 3.

    Example:
        >>> import concordax as cx, jax
        >>> linear = lambda params, x: x @ params[:, None]
        >>> x, start = jax.numpy.eye(3), jax.numpy.zeros(3)
        >>> found = certify(linear, cx.SquaredError(), cx.L2(), start, (x, jax.numpy.ones(3)), strength=1.0)
        >>> found.exists, found.steps_to(0.3), round(found.radius / found.first_step, 4)
        (True, 1, 1.0)
    """
    _check(loss, regularizer, strength, step_size, lipschitz)
    parts = {"solver": Auto(direct_only=True), "step": FixedStep(1.0)}
    make_algorithm(model, loss, regularizer, strength=strength, damping=damping, **parts)
    # What looks at the start has no part in α, λ and τ: as constants of its program each would compile it anew.
    algorithm = make_algorithm(model, loss, regularizer, strength=1.0, damping=0.0, **parts)
    params = jax.tree.map(jnp.asarray, params)
    batch = _batch(algorithm, params, data, weights)
    rows, wide = batch.targets.size, batch.targets.size <= ravel_pytree(params)[0].size
    algorithm.solver.resolve(algorithm.shape(params, batch))  # what does not fit in memory is refused here
    algorithm = eqx.tree_at(lambda a: a.solver, algorithm, Dual() if wide else Primal())
    flat, unravel = ravel_pytree(params)
    look = _look(algorithm, params, batch, jnp.asarray(strength, flat.dtype))
    if not (look.usable and math.isfinite(float(look.first_step))):
        raise ValueError(
            "`certify(params=...)`: the outputs or the Jacobian are not finite at the start, or the system there "
            "cannot be factorized. Check the data's scale, or use float64."
        )
    curve = Curve(Problem(model, loss, regularizer, unravel), flat, batch, look.metric)
    eigenvalues = np.maximum(np.asarray(look.eigenvalues, float), 0.0)
    # Of an eigenvalue as small as the rounding of the largest nothing is known.
    least = max(0.0, float(eigenvalues[0] - rows * float(jnp.finfo(flat.dtype).eps) * eigenvalues[-1]))
    start = Start(
        first_step=max(float(look.first_step), float(jnp.finfo(flat.dtype).tiny) ** 0.5),
        dual=float(look.linear_residual) / strength,
        smallest=math.sqrt(least),
        largest=math.sqrt(float(eigenvalues[-1])),
        tall=not wide,
        strength=float(strength),
        bending=float(regularizer.constant_at(2.0) or 0.0) * curve.longest,
    )
    length = float(look.interpolation) if least > 0 else math.inf
    key = jax.random.fold_in(jax.random.key(0) if key is None else key, _SALT)
    return _certificate(params, curve, start, length, lipschitz, key, float(step_size), float(damping))


def _check(loss, regularizer, strength, step_size, lipschitz) -> None:
    if isinstance(loss, AbstractLoss) and not isinstance(loss, SquaredError):
        raise ValueError(
            f"`certify(loss={loss!r})`: theorems are for SquaredError(), whose curvature does not change with the "
            "outputs. `linearization` after the run works for any loss."
        )
    if isinstance(regularizer, AbstractRegularizer) and regularizer.constant_at(2.0) is None:
        raise ValueError(
            f"`certify(regularizer={regularizer!r})`: it has no self-concordance constant at ν = 2. Add a part of L2, "
            "as in Elastic, or pass constants=((M, 2.0),) to CustomRegularizer."
        )
    if not isinstance(strength, int | float):
        raise ValueError(
            f"`certify(strength={strength!r})`: must be a positive number; an adaptive strength is not known before."
        )
    FixedStrength(strength)
    if not (isinstance(step_size, int | float) and 0 < step_size <= 1):
        raise ValueError(f"`certify(step_size={step_size!r})`: must be above 0 and at most 1, the full step.")
    if not isinstance(lipschitz, AbstractLipschitz):
        raise TypeError(f"`certify(lipschitz={lipschitz!r})`: must be MeasuredLipschitz() or BoundedLipschitz().")


def _batch(algorithm: Algorithm, params: PyTree, data, weights) -> Batch:
    """The rows that are present: those of weight 0 would count as directions in which nothing can be fitted."""
    inputs, targets = data
    check_data(inputs, targets, weights)
    if weights is not None:
        present = np.flatnonzero(np.asarray(weights) > 0)
        inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[present], inputs)
        targets, weights = jnp.asarray(targets)[present], jnp.asarray(weights)[present]
    return algorithm.batch(params, inputs, targets, weights)


def _certificate(
    params: PyTree,
    curve: Curve,
    start: Start,
    length: float,
    lipschitz: AbstractLipschitz,
    key: PRNGKeyArray,
    alpha: float,
    damping: float,
) -> Certificate:
    first, reach, found = start.first_step, 0.0, 0.0
    ball = None
    for factor in _REACHES:
        reach = factor * first
        found = lipschitz.over(curve, reach, key)
        ball = least_ball(start, found, reach)
        if ball is not None:
            break
    h, near = kantorovich(found, start.smallest, length)
    # h is that of L over the ball looked at: a zero beyond it is not shown.
    near = near if near <= reach else math.inf
    exists = ball is not None and ball.convexity > 0
    reason = _reason(start, Ball(start, found, reach), ball)
    runs_in, contraction = None, 1.0
    if exists and ball is not None:
        # Undamped steps stay in the ball; others, as they come nearer, within their first distance of its minimiser.
        runs_in = ball
        if damping > 0:
            runs_in = Ball(start, lipschitz.over(curve, 2 * ball.radius, key), 2 * ball.radius)
        contraction = min(1.0, runs_in.shrunk(ball.radius, ball.residual, alpha, damping) / ball.radius)
    radius = ball.radius if exists and ball is not None else math.inf
    return Certificate(
        exists=exists,
        reason=reason,
        radius=radius,
        euclidean_radius=radius * curve.longest,
        first_step=first,
        smallest_eigenvalue=start.smallest**2,
        largest_eigenvalue=start.largest**2,
        lipschitz=found,
        lipschitz_proved=lipschitz.proved,
        kantorovich=h,
        interpolation_radius=near,
        contraction=contraction,
        step_size=alpha,
        damping=damping,
        start=params,
        metric=curve.metric,
        ball=ball if exists else None,
        runs_in=runs_in,
    )


def _reason(start: Start, tried: Ball, ball: Ball | None) -> str:
    if ball is not None and ball.convexity > 0:
        return (
            f"Within {ball.radius:.3g} of the start there is one stationary point, a minimiser; the first step goes "
            f"{start.first_step:.3g}, and no other step from there can end more than {ball.spill:.3g} from it."
        )
    if ball is not None:
        return (
            f"There is a stationary point within {ball.radius:.3g}, but it is not shown to be a minimiser: the "
            f"model may bend by {ball.lipschitz * ball.residual:.3g} there, {ball.held(start.strength):.3g} holds it."
        )
    parts = {
        "the kernel turns": tried.moved * tried.linear_residual / tried.held(start.strength),
        "the residual bends": tried.response(start.strength) * tried.curved,
        "the curvature of the regularizer changes": tried.bent / tried.held(start.strength),
    }
    worst = max(parts, key=lambda name: parts[name])
    hint = (
        "Use a larger smoothing, or L2()."
        if worst == "the curvature of the regularizer changes"
        else "It would take a wider network, smaller targets, a larger strength, or `ntk.centered` if the penalty "
        "draws to zero."
    )
    return (
        f"Nothing is shown: the first step goes {start.first_step:.3g}, and from within {tried.radius:.3g} of the "
        f"start steps may end {tried.spill:.3g} apart, {parts[worst]:.3g} of it because {worst}. {hint}"
    )
