"""A step of the trust region, corrected for the bending of the model with the factor that it was solved by.

The step δ₀ minimises the model of F in which the outputs are linear, f + Jδ. What they miss of f(θ+δ) is b(δ), and

    δ = δ₀ − (WᵀW + τH + λD)⁻¹ Wᵀ Sᵀ b(δ),    b(δ) = f(θ+δ) − f(θ) − Jδ,

brings the outputs to where the model had them: an iteration whose rounds cost a forward pass and a solve with the
factor, a tenth of a step at N = 500. The first takes b to second order, ½ d²f, and needs no trial of δ₀ (geodesic
acceleration; Transtrum & Sethna, arXiv 1201.5885). The next ones take b at the best trial so far: chords, as in the
simplified Newton method. Each gains an order in the length of δ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..solvers import AbstractShifted
from .base import LocalProblem, Trial

# The second order is followed up to this share of the step, twice its norm over that of δ: beyond, it is no guide.
_BENDING = 0.75
# A chord is taken where it could lower F by this share, for the model had it there, and as long as each does. A step
# costs five to ten of them and lowers F further.
_SHARE = 0.5


class _Best(NamedTuple):
    """The best trial so far, the corrections taken, and whether one more is worth its while."""

    displacement: Float[Array, " p"]
    trial: Trial
    corrections: Int[Array, ""]
    goes_on: Bool[Array, ""]


def corrected(
    local: LocalProblem,
    shifted: AbstractShifted,
    direction: Float[Array, " p"],
    promise: Float[Array, ""],
    *,
    most: int,
) -> tuple[Float[Array, " p"], Trial]:
    """The best step under up to `most` corrections, and where it leads.

    Args:
        local: the problem at θ.
        shifted: the system with the damping of the step.
        direction: its solution δ₀.
        promise: by how much the model lowers F with it.
        most: corrections at most; 0 for δ₀ itself.

    Returns:
        δ [p], and the trial at θ + δ; δ = 0 and an infinite F where no trial was finite.
    """
    if most == 0:
        return direction, local.trial_at(local.flat + direction)
    rest = local.objective - promise

    def correct(best: _Best) -> _Best:
        # One place for all trials and solves: a forward pass that stands twice is compiled twice.
        bent = shifted.follow(direction, _missed(local, best, direction))
        straight = (best.corrections == 0) & ~_small(local, bent - direction, direction)
        displacement = jnp.where(straight, direction, bent)
        trial = local.trial_at(local.flat + displacement)
        # Not finite is not less.
        better = trial.objective < best.trial.objective
        goes_on = better & _halves(best.trial.objective, trial.objective) & _halves(trial.objective, rest)
        displacement, trial = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (displacement, trial), (best.displacement, best.trial)
        )
        return _Best(displacement, trial, best.corrections + 1, goes_on)

    unknown = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), (local.objective, local.loss, local.system.outputs))
    start = _Best(jnp.zeros_like(direction), Trial(*unknown), jnp.zeros((), int), jnp.ones((), bool))
    end = jax.lax.while_loop(lambda best: best.goes_on & (best.corrections < most), correct, start)
    return end.displacement, end.trial


def _missed(local: LocalProblem, best: _Best, direction: Float[Array, " p"]) -> Float[Array, "n k"]:
    """Sᵀ b: to second order before the first trial, at the best one after it."""
    return jax.lax.cond(
        best.corrections == 0,
        lambda: 0.5 * local.bend_along(direction),
        lambda: local.bend_to(best.displacement, best.trial.outputs),
    )


def _halves(high: Float[Array, ""], low: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether F falls by half of its size from one to the other: it is then far from its end, a negative one too."""
    return high - low >= _SHARE * jnp.abs(high)


def _small(local: LocalProblem, change: Float[Array, " p"], direction: Float[Array, " p"]) -> Bool[Array, ""]:
    """Whether a change of the step is small beside it, in the metric of its damping; one that is not finite is not."""
    norm = local.system.metric.squared_norm
    return 4 * norm(change) <= _BENDING**2 * norm(direction)
