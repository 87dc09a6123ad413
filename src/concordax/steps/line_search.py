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
        objective, loss = local.objective_at(local.flat + size * solution.direction)
        enough = jnp.isfinite(objective) & (objective <= reference - _SUFFICIENT * size * slope)
        stationary = (0.5 * slope <= noise) & ~(objective < local.objective)
        return Search(size, objective, loss, search.attempts + 1, enough & ~stationary, stationary)

    def more(search: Search) -> Array:
        return usable & ~search.accepted & ~search.stationary & (search.attempts < max_trials)

    return jax.lax.while_loop(more, attempt, start)


def extend(local: LocalProblem, solution: Solution, search: Search, max_doublings: int) -> Search:
    """Doubles an accepted step while F falls: the last size that lowered it is kept."""

    def attempt(carry: tuple[Search, Array, Array]) -> tuple[Search, Array, Array]:
        search, tried, _ = carry
        size = 2 * search.size
        objective, loss = local.objective_at(local.flat + size * solution.direction)
        # Not finite is not less.
        falls = objective < search.objective
        longer = search._replace(size=size, objective=objective, loss=loss)
        kept = jax.tree.map(lambda new, old: jnp.where(falls, new, old), longer, search)
        return kept._replace(attempts=search.attempts + 1), tried + 1, falls

    start = (search, jnp.zeros((), int), search.accepted)
    return jax.lax.while_loop(lambda carry: carry[2] & (carry[1] < max_doublings), attempt, start)[0]


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
