"""The step that self-concordance proves: as long as the constants of loss and regularizer allow, and no guess."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..solvers import Solution
from .base import AbstractStep, LocalProblem
from .growth import damped_above_two, damped_at_two, distance, growth_above_two, growth_at_two
from .line_search import backtrack, check_trials, extend, outcome, solve

# Halvings of the bracket of α: a thousandth of it. The lower end is kept, which the proof covers.
_HALVINGS = 10
# Halvings of a step that did not lower F, which no model linear in its parameters needs.
_MAX_TRIALS = 30


class SelfConcordantStep(AbstractStep):
    """The longest step up to 1 along which self-concordance proves that F falls; no trial, no constant to choose.

    Along δ, a term of F (the loss of a row, or τg) has a curvature q = its part of ‖Wδ‖² + τ‖δ‖²_H, which grows at
    most e^{κα} times, κ from the constants of loss and regularizer at ν = 2 and the slopes Jδ. α solves

        Σ q h(α) = λ²,   h(α) = (e^{κα} − 1)/κ,   λ² = −∇Fᵀδ,

    which is α = ln(1+κ)/κ where all κ are one, never less than that for the largest κ, and at most 1. A regularizer's
    constants (M, ν) with 2 < ν ≤ 3 bound its curvature too: h(α) = ((1−αd)^{−(4−ν)/(ν−2)} − 1)(ν−2)/((4−ν)d),
    d = (ν/2−1) M ‖δ‖_H^{ν−2} ‖δ‖₂^{3−ν}, alone the damped step α = (1/d)[1 − (1 + d(4−ν)/(ν−2))^{−(ν−2)/(4−ν)}]. The
    smallest of all known bounds counts.

    On a model linear in its parameters F never rises: φ(α) = F(θ+αδ) has φ'(0) = −λ² and φ'(α) ≤ −λ² + Σ q h(α), which
    is ≤ 0 up to the α taken. So F falls all the way, by at least αλ²/2: h is convex with h(0) = 0, and its integral at
    most αh(α)/2. On other models the constants say nothing about the bending of the model itself: a step that does
    not gain is halved until one does.

    Slopes Jδ could be bounded by the leverages of the rows and λ, as the theory does, before δ is known. Here it is
    known: the exact slopes cost one product with J beside the solve, and a bound on them can only be larger.

    Args:
        doubling: whether a step is doubled while F falls, beyond 1 too: each doubling costs a forward pass.
        max_doublings: doublings a step at most.

    Raises:
        ValueError: if `max_doublings` is not a whole number from 1 up; at the first step, before anything ran, for a
            regularizer without constants at any 2 ≤ ν ≤ 3.

    Source: Bach, EJS 4, 2010 (ν = 2); Sun & Tran-Dinh, Math. Program. 178, 2019 (2 < ν ≤ 3). The sum over terms is the
    same proof, each term at its own constant.

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.random.normal(jax.random.key(0), (50, 3))
        >>> model = cx.MLP(inputs=3, widths=())
        >>> args = (model, cx.BinaryCrossEntropy(), cx.PseudoHuber(0.1), model.init(jax.random.key(1)))
        >>> result = cx.train(*args, (x, x[:, 0] > 0), strength=1e-3, step=SelfConcordantStep())
        >>> bool((result.history["objective"][1:] <= result.history["objective"][:-1]).all())
        True
    """

    doubling: bool = eqx.field(static=True)
    max_doublings: int = eqx.field(static=True)

    def __init__(self, doubling: bool = True, *, max_doublings: int = 12):
        check_trials("SelfConcordantStep", "max_doublings", max_doublings)
        self.doubling, self.max_doublings = bool(doubling), max_doublings

    def init(self, like):
        """No state."""
        del like
        return ()

    def take(self, local, state):
        """One solve, one step of the proven size."""
        solution = solve(local)
        size = proven_size(local, solution)
        search = backtrack(local, solution, size, reference=local.objective, max_trials=_MAX_TRIALS)
        if self.doubling:
            search = extend(local, solution, search, self.max_doublings)
        return outcome(local, solution, search), state


class _Bound(NamedTuple):
    """One bound on the bending of the regularizer: its damped step, and h."""

    damped: Float[Array, ""]
    growth: Callable[[Array], Array]


def proven_size(local: LocalProblem, solution: Solution) -> Float[Array, ""]:
    """α with Σ q h(α) = λ², at most 1."""
    slopes = local.system.slopes(solution.direction)
    kappas = jax.vmap(lambda row: local.loss_function.concordance(row[None]))(slopes)
    bounds = _bounds(local, solution)
    curvatures = jnp.append(jnp.sum(solution.image**2, axis=1), local.strength * solution.squared_norm)
    promise = solution.decrement**2

    def falls(alpha: Array) -> Array:
        """Whether F is proven to fall up to α."""
        least = jnp.min(jnp.stack([bound.growth(alpha) for bound in bounds]))
        # A term without curvature whose bound overflows, 0 · ∞, is no part of the sum.
        parts = curvatures * jnp.append(growth_at_two(kappas, alpha), least)
        return jnp.sum(jnp.where(curvatures > 0, parts, 0.0)) <= promise

    def halve(_, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        # In logarithms: α may be a thousandth.
        middle = jnp.sqrt(low * high)
        proven = falls(middle)
        return jnp.where(proven, middle, low), jnp.where(proven, high, middle)

    damped = jnp.max(jnp.stack([bound.damped for bound in bounds]))
    # Each h is 1 at its damped step. λ² is the sum of all q at least, but where conjugate gradients fell short: h is
    # convex, and s α has s of it.
    total = jnp.sum(curvatures)
    share = jnp.where(total > promise, promise / jnp.where(total > 0, total, 1.0), 1.0)
    low = share * jnp.minimum(damped_at_two(jnp.max(kappas)), damped)
    one = jnp.ones((), slopes.dtype)
    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (low, one))
    return jnp.where(falls(one), one, low)


def _bounds(local: LocalProblem, solution: Solution) -> list[_Bound]:
    """All that is known of the regularizer along δ."""
    regularizer, bounds = local.regularizer, []
    kappa = regularizer.concordance(solution.direction)
    if kappa is not None:
        bounds.append(_Bound(damped_at_two(kappa), functools.partial(growth_at_two, kappa)))
    norms = jnp.sqrt(solution.squared_norm), jnp.linalg.norm(solution.direction)
    for constants in regularizer.constants():
        if 2 < constants.order <= 3:
            d = distance(constants, *norms)
            growth = functools.partial(growth_above_two, d, constants.order)
            bounds.append(_Bound(damped_above_two(d, constants.order), growth))
    if not bounds:
        raise ValueError(
            f"`SelfConcordantStep` needs a regularizer with constants (M, ν) at some 2 ≤ ν ≤ 3; {regularizer!r} has "
            f"{regularizer.constants()}. Use TrustRegion() or Backtracking(), which need none."
        )
    return bounds
