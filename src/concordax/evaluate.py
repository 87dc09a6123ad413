"""One look at a problem without a run: its direction, its objective, how far from a minimum it is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .losses import AbstractLoss
from .optimizer import as_batch, make_algorithm
from .regularizers import AbstractRegularizer
from .solvers import AbstractSolver, Auto, Solution
from .system import Problem, build_system
from .trust_region import TrustRegion


def direction(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    params: PyTree,
    inputs,
    targets,
    *,
    strength: float,
    damping: float = 0.0,
    solver: AbstractSolver = Auto(),
    weights=None,
) -> Solution:
    """One solve: the δ of (Wᵀ W + (τ+λ) H) δ = −(Wᵀ r + τ∇g), as a pytree like `params`.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        loss: the loss.
        regularizer: the regularizer.
        params: where to linearise.
        inputs: n rows.
        targets: n rows, as the loss takes them.
        strength: τ > 0.
        damping: λ ≥ 0.
        solver: how to solve.
        weights: [n], one by default.

    Returns:
        `Solution(direction, status, stats, image, squared_norm, slack)`; status is False, and the direction zero, when
        no rung of the ladder could factorize the system.

    Example:
        >>> import concordax as cx, jax
        >>> model = cx.MLP(inputs=2, widths=())
        >>> params = model.init(jax.random.key(0))
        >>> x = jax.random.normal(jax.random.key(1), (9, 2))
        >>> args = (model, cx.SquaredError(), cx.L2(), params, x, x[:, :1])
        >>> one = cx.direction(*args, strength=0.1, solver=cx.Dual()).direction
        >>> two = cx.direction(*args, strength=0.1, solver=cx.Primal()).direction
        >>> bool(jax.numpy.allclose(one[0].weight, two[0].weight, atol=1e-5))
        True
    """
    algorithm = make_algorithm(
        model, loss, regularizer, strength=strength, solver=solver, step=TrustRegion(), damping=damping
    )
    batch = algorithm.batch(params, inputs, targets, weights)
    with jax.default_matmul_precision("highest"):
        problem, flat, prepared = algorithm.prepare(params, batch)
        tau = algorithm.strength.init(flat.dtype).strength
        solution = prepared.solve(tau, jnp.asarray(damping, flat.dtype))
    return solution._replace(direction=problem.unravel(solution.direction))


def objective(
    model, loss, regularizer, params, inputs, targets, *, strength: float, weights=None, penalty=None
) -> Float[Array, ""]:
    """F(θ) = Σ w ℓ/Σ w + τ (g(θ) + R(θ)); with strength 0 the data loss alone.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        loss: the loss.
        regularizer: the regularizer.
        params: the parameters.
        inputs: n rows.
        targets: n rows.
        strength: τ ≥ 0.
        weights: [n], one by default.
        penalty: R, that of a `ProximalStep`; none by default.

    Returns:
        A scalar.

    Example:
        >>> import concordax as cx, jax.numpy as jnp
        >>> params = (cx.DenseLayer(jnp.array([[2.0]]), None),)
        >>> linear = lambda params, x: x @ params[0].weight.T
        >>> one = jnp.ones((1, 1))
        >>> float(cx.objective(linear, cx.SquaredError(), cx.L2(), params, one, one, strength=1.0))
        2.5
    """
    flat, unravel = ravel_pytree(params)
    batch = as_batch(model, loss, params, inputs, targets, weights)
    smooth, _ = Problem(model, loss, regularizer, unravel).objective(flat, batch, jnp.asarray(strength, flat.dtype))
    return smooth if penalty is None else smooth + strength * penalty.value(flat)


def kkt_residual(
    model, loss, regularizer, params, inputs, targets, *, strength: float, weights=None, penalty=None
) -> Float[Array, ""]:
    """How far the parameters are from a minimum: max|∇F|, with a penalty max|θ − prox(θ − ∇q)|, q = loss + τg.

    Zero at a stationary point and only there, whatever corners the penalty has. `history["kkt_residual"]` of a
    `ProximalStep` is the same, before each step.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        loss: the loss.
        regularizer: the regularizer.
        params: the parameters.
        inputs: n rows.
        targets: n rows.
        strength: τ ≥ 0.
        weights: [n], one by default.
        penalty: R, that of a `ProximalStep`; none by default.

    Returns:
        A scalar, in units of the gradient.

    Example:
        >>> import concordax as cx, jax.numpy as jnp
        >>> linear = lambda params, x: x @ params[:, None]
        >>> one = jnp.ones((1, 1))
        >>> args = (linear, cx.SquaredError(), cx.L2(), jnp.array([0.25]), one, one)
        >>> float(cx.kkt_residual(*args, strength=3.0))
        0.0
        >>> float(cx.kkt_residual(*args, strength=1.0))
        0.5
    """
    flat, unravel = ravel_pytree(params)
    batch = as_batch(model, loss, params, inputs, targets, weights)
    problem = Problem(model, loss, regularizer, unravel)
    tau = jnp.asarray(strength, flat.dtype)
    system = build_system(problem, flat, batch, matrix_free=True)
    gradient = system.objective_gradient(tau)
    return jnp.max(jnp.abs(gradient)) if penalty is None else penalty.residual(flat, gradient, tau)
