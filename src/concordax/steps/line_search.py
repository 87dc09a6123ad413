"""Trials along a direction: halving until one is low enough, doubling while they fall."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._status import StepStatus
from ..solvers import Solution
from .base import LocalProblem, StepOutcome, no_solves, start_is_finite

# The share of the decrease which the slope promises that a trial must show (Armijo); any positive number gives descent.
_SUFFICIENT = 1e-4
# A promise below this many units of rounding of F cannot be told from noise: the point is stationary.
_ROUNDING = 4.0


class Search(NamedTuple):
    """The last trial along δ, and what became of it."""

    size: Float[Array, ""]
    objective: Float[Array, ""]
    loss: Float[Array, ""]
    attempts: Int[Array, ""]
    accepted: Bool[Array, ""]
    stationary: Bool[Array, ""]


def backtrack(
    local: LocalProblem,
    solution: Solution,
    first: Float[Array, ""],
    *,
    reference: Float[Array, ""],
    max_trials: int,
) -> Search:
    """Tries `first`, `first`/2, ... until F(θ + αδ) ≤ reference − 1e-4 α (−∇Fᵀδ), with −∇Fᵀδ = decrement².

    A trial that is not finite is a refused one. Where the promise is below the rounding of F and the first trial does
    not fall, nothing shorter is tried: the point is stationary.
    """
    slope = solution.decrement**2
    noise = _ROUNDING * jnp.finfo(slope.dtype).eps * jnp.abs(local.objective)
    usable = start_is_finite(local) & solution.status
    no = jnp.zeros((), bool)
    first = jnp.asarray(first, slope.dtype)
    start = Search(2 * first, local.objective, local.loss, jnp.zeros((), int), no, no)

    def attempt(search: Search) -> Search:
        size = 0.5 * search.size
        objective, loss, _ = local.trial_at(local.flat + size * solution.direction)
        enough = jnp.isfinite(objective) & (objective <= reference - _SUFFICIENT * size * slope)
        stationary = (0.5 * slope <= noise) & ~(objective < local.objective)
        return Search(size, objective, loss, search.attempts + 1, enough & ~stationary, stationary)

    def more(search: Search) -> Array:
        return usable & ~search.accepted & ~search.stationary & (search.attempts < max_trials)

    return jax.lax.while_loop(more, attempt, start)


class _Extension(NamedTuple):
    """The longest step that fell, with its neighbors: the one before it and the last tried, each as (size, F)."""

    search: Search
    shorter: tuple[Float[Array, ""], Float[Array, ""]]
    longer: tuple[Float[Array, ""], Float[Array, ""]]
    doublings: Int[Array, ""]
    falls: Bool[Array, ""]


def extend(local: LocalProblem, solution: Solution, search: Search, max_doublings: int) -> Search:
    """Doubles an accepted step while F falls, then tries the lowest point of the parabola through the last three.

    On the way it stops at 1, the full step. Whatever is kept lowered F.
    """

    def tried(search: Search, size: Array) -> tuple[Search, Array, Array]:
        """The better of a search and one more trial, the objective of the trial, and whether it was the better one."""
        objective, loss, _ = local.trial_at(local.flat + size * solution.direction)
        # Not finite is not less.
        falls = objective < search.objective
        trial = search._replace(size=size, objective=objective, loss=loss)
        better = jax.tree.map(lambda new, old: jnp.where(falls, new, old), trial, search)
        return better._replace(attempts=search.attempts + 1), objective, falls

    def double(last: _Extension) -> _Extension:
        now = last.search
        size = jnp.where((now.size < 1) & (now.size > 0.5), 1.0, 2 * now.size).astype(now.size.dtype)
        better, objective, falls = tried(now, size)
        shorter = jax.tree.map(lambda new, old: jnp.where(falls, new, old), (now.size, now.objective), last.shorter)
        return _Extension(better, shorter, (size, objective), last.doublings + 1, falls)

    nothing = (jnp.zeros_like(search.size), local.objective)
    start = _Extension(search, nothing, (search.size, search.objective), jnp.zeros((), int), search.accepted)
    end = jax.lax.while_loop(lambda last: last.falls & (last.doublings < max_doublings), double, start)
    lowest, inside = _parabola(end.shorter, (end.search.size, end.search.objective), end.longer)
    # A loop of at most one round, not a cond: see linalg.py.
    return jax.lax.while_loop(
        lambda carry: carry[1], lambda carry: (tried(carry[0], lowest)[0], ~carry[1]), (end.search, inside)
    )[0]


def _parabola(low: tuple, middle: tuple, high: tuple) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Where the parabola through three points (size, F) is lowest, and whether that is between the outer two."""
    (a, left), (b, bottom), (c, right) = low, middle, high
    rise, fall = (b - a) * (right - bottom), (c - b) * (left - bottom)
    bent = jnp.isfinite(right) & (right > bottom) & (rise + fall > 0)
    lowest = b + 0.5 * ((c - b) * fall - (b - a) * rise) / jnp.where(bent, rise + fall, 1.0)
    return lowest, bent & (lowest > a) & (lowest < c)


def outcome(local: LocalProblem, solution: Solution, search: Search) -> StepOutcome:
    """What a search comes to: the displacement found, or none and why."""
    status = jnp.where(search.stationary, StepStatus.STATIONARY, StepStatus.REJECTED)
    status = jnp.where(search.accepted, StepStatus.ACCEPTED, status)
    status = jnp.where(solution.status, status, StepStatus.FACTORIZATION_FAILED)
    status = jnp.where(start_is_finite(local), status, StepStatus.NONFINITE_START)
    accepted = search.accepted
    return StepOutcome(
        displacement=jnp.where(accepted, search.size * solution.direction, 0.0),
        loss=jnp.where(accepted, search.loss, local.loss),
        objective=jnp.where(accepted, search.objective, local.objective),
        step_size=jnp.where(accepted, search.size, 0.0),
        damping=jnp.asarray(local.damping, local.flat.dtype),
        decrement=solution.decrement,
        attempts=search.attempts,
        solves=no_solves().after(solution.stats),
        status=status,
    )


def solve(local: LocalProblem) -> Solution:
    """The direction δ at the damping given."""
    return local.prepared.solve(local.strength, jnp.asarray(local.damping, local.flat.dtype))


def check_trials(rule: str, name: str, value: int, least: int = 1) -> None:
    """Raises ValueError unless the number of trials is a whole number from `least` up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{rule}({name}={value!r})`: must be a whole number from {least} up.")
