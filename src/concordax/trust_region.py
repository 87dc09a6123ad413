"""The default step: Levenberg-Marquardt. The objective never rises."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._status import StepStatus
from .damping_rules import AbstractDampingRule, MissedShare
from .steps import AbstractStep, LocalProblem, Solves, StepOutcome, corrected, damped, no_solves, start_is_finite
from .steps.line_search import check_trials


class TrustRegionState(NamedTuple):
    """What the rule carries from step to step.

    Attributes:
        next_damping: the damping to try next; negative before the first step.
        growth: the least factor by which a refusal raises it.
        least: the least factor by which a step lowers it.
        scale: the mean of diag K at the start; negative before the first step.
    """

    next_damping: Float[Array, ""]
    growth: Float[Array, ""]
    least: Float[Array, ""]
    scale: Float[Array, ""]


class _Search(NamedTuple):
    displacement: Float[Array, " p"]
    loss: Float[Array, ""]
    objective: Float[Array, ""]
    decrement: Float[Array, ""]
    damping: Float[Array, ""]
    next_damping: Float[Array, ""]
    growth: Float[Array, ""]
    attempts: Int[Array, ""]
    solves: Solves
    done: Bool[Array, ""]
    status: Int[Array, ""]


# A step is taken when it gains this share of what the model promised; any positive number gives descent.
_ACCEPT = 1e-4
# A promise below this many units of rounding of F cannot be told from noise: the point is stationary.
_ROUNDING = 4.0
# The damping stays above this share of the Gram's mean diagonal times eps: a smaller one changes no digit of the solve,
# and would have to be grown back if it were needed again.
_FLOOR = 1e-3


class TrustRegion(AbstractStep):
    """Levenberg-Marquardt damping by the gain ratio ρ = (F(θ) − F(θ+δ)) / (decrease of the quadratic model).

    (WᵀW + τH + λD) δ = −(Wᵀr + τg), with D = H under L2 and D = I/μ under a smooth ℓ1 norm of smoothing μ
    (`AbstractRegularizer.damping_metric`), whose H vanishes where weights are large.

    Accept if ρ > 1e-4; else raise λ and solve again with the same Jacobian and Gram. F never rises, whatever the model;
    a non-finite trial is a refused one.

    Args:
        max_attempts: trials a step before it is given up and the parameters stay.
        initial_damping: the first λ, in units of the mean of diag K. Below 1 the first steps get on faster; where the
            data also choose the strength, a large one leaves it time to settle before the features have moved far.
        damping_rule: how λ follows ρ: `MissedShare()` for a strength that stays, `GainRatio()` for one that moves, or
            `Nielsen()`; docs/steps.md compares them.
        corrections: how often at most a trial is corrected for the bending of the model, b(δ) = f(θ+δ) − f − Jδ:
            (WᵀW + τH + λD)(δ − δ₀) = −WᵀSᵀ b(δ), where δ₀ solves the system above, as far as its factor gives it. The
            first correction takes b to second order, in float32, where 2‖δ−δ₀‖ ≤ 0.75 ‖δ₀‖ in the metric
            (τH + λD)/(τ + λ) (geodesic acceleration); each further one b at the best trial so far (a chord), while
            each halves F and so much of F is what the model missed. At N = 500 and 1000 one is a tenth of a step; 0
            leaves the bending out.
        damp_in_hessian: whether D is H whatever the regularizer. Where the data choose the strength and weights are not
            far above the smoothing, the Gram that the strength is judged by then serves the step too.

    Raises:
        ValueError: if `max_attempts` is not a whole number from 1 up, `corrections` not one from 0 up, or
            `initial_damping` not positive and finite.
        TypeError: if `damping_rule` is no such rule.

    Source: Nielsen, IMM-REP-1999-05 (growth by doubling); Transtrum & Sethna, arXiv 1201.5885 (geodesic acceleration);
    Deuflhard, Newton Methods for Nonlinear Problems (2004), section 2.1 (simplified Newton, the chords).

    Example:
        >>> TrustRegion().max_attempts
        12
    """

    max_attempts: int = eqx.field(static=True)
    initial_damping: float = eqx.field(static=True)
    damping_rule: AbstractDampingRule
    corrections: int = eqx.field(static=True)
    damp_in_hessian: bool = eqx.field(static=True)

    def __init__(
        self,
        max_attempts: int = 12,
        *,
        initial_damping: float = 0.1,
        damping_rule: AbstractDampingRule = MissedShare(),
        corrections: int = 4,
        damp_in_hessian: bool = False,
    ):
        check_trials("TrustRegion", "max_attempts", max_attempts)
        check_trials("TrustRegion", "corrections", corrections, least=0)
        if not (math.isfinite(initial_damping) and initial_damping > 0):
            raise ValueError(
                f"`TrustRegion(initial_damping={initial_damping!r})`: must be a positive finite number; 1 is the mean "
                "of diag K."
            )
        if not isinstance(damping_rule, AbstractDampingRule):
            raise TypeError(
                f"`TrustRegion(damping_rule={damping_rule!r})`: must be a rule for the damping, as cx.MissedShare(), "
                "cx.GainRatio() or cx.Nielsen()."
            )
        self.max_attempts, self.initial_damping = max_attempts, float(initial_damping)
        self.damping_rule, self.corrections = damping_rule, corrections
        self.damp_in_hessian = bool(damp_in_hessian)

    def init(self, like):
        """No damping chosen yet."""
        unknown, growth, least = (
            jnp.full((), number, like.dtype) for number in (-1.0, self.damping_rule.growth, self.damping_rule.least)
        )
        return TrustRegionState(unknown, growth, least, unknown)

    def take(self, local, state):
        """Trials with growing damping until one gains."""
        local = local if self.damp_in_hessian else damped(local, state.next_damping)
        scale = _first_scale(local, state.scale)
        usable = start_is_finite(local)
        first = jnp.where(state.next_damping < 0, self.initial_damping * scale, state.next_damping)
        start = _Search(
            displacement=jnp.zeros_like(local.flat),
            loss=local.loss,
            objective=local.objective,
            decrement=jnp.zeros_like(scale),
            damping=first,
            next_damping=first,
            growth=state.growth,
            attempts=jnp.zeros((), int),
            solves=no_solves(),
            done=~usable,
            status=jnp.where(usable, StepStatus.REJECTED, StepStatus.NONFINITE_START),
        )
        end = jax.lax.while_loop(
            lambda search: ~search.done & (search.attempts < self.max_attempts),
            lambda search: _attempt(local, search, state.least, self.damping_rule, corrections=self.corrections),
            start,
        )
        # The fixed part of the damping is the least that a step may use: refusals add to it.
        floor = _FLOOR * jnp.finfo(scale.dtype).eps * scale
        taken = end.status == StepStatus.ACCEPTED
        outcome = StepOutcome(
            displacement=end.displacement,
            loss=end.loss,
            objective=end.objective,
            step_size=taken.astype(scale.dtype),
            damping=end.damping + local.damping,
            decrement=end.decrement,
            attempts=end.attempts,
            solves=end.solves,
            status=end.status,
        )
        least = jnp.where(taken, self.damping_rule.least_after(state.least, end.attempts - 1), state.least)
        return outcome, TrustRegionState(jnp.maximum(end.next_damping, floor), end.growth, least, scale)


def _first_scale(local: LocalProblem, known: Float[Array, ""]) -> Float[Array, ""]:
    """The mean of diag K, in the first step; what is known of it later on."""

    def measured():
        scale = local.prepared.curvature()
        return jnp.where(jnp.isfinite(scale) & (scale > 0), scale, 1.0)

    # A cond: XLA would take what does not change out of a loop. In every step it is a twentieth of it at N = 500, where
    # K itself is not formed.
    return jax.lax.cond(known < 0, measured, lambda: known)


def _attempt(
    local: LocalProblem, search: _Search, least: Float[Array, ""], rule: AbstractDampingRule, *, corrections: int
) -> _Search:
    damping = search.next_damping
    shifted = local.prepared.at(local.strength, damping + local.damping)
    solution = shifted.solve()
    predicted = solution.predicted_decrease(local.strength)
    displacement, (trial, loss, _) = corrected(local, shifted, solution.direction, predicted, most=corrections)
    # Not finite (overflow, NaN) counts as no gain at all.
    gain = jnp.where(jnp.isfinite(trial), local.objective - trial, -jnp.inf)
    ratio = gain / predicted
    eps = jnp.finfo(damping.dtype).eps
    noise = _ROUNDING * eps * jnp.abs(local.objective)
    accept = solution.status & (ratio > _ACCEPT) & (gain >= 0)
    stationary = solution.status & (predicted <= noise) & ~accept
    lowered = rule.after_step(ratio, search.attempts > 0, least)
    factor = jnp.where(accept, lowered, rule.after_refusal(ratio, search.growth))
    status = jnp.where(solution.status, StepStatus.REJECTED, StepStatus.FACTORIZATION_FAILED)
    status = jnp.where(stationary, StepStatus.STATIONARY, status)
    return _Search(
        displacement=jnp.where(accept, displacement, 0.0),
        loss=jnp.where(accept, loss, local.loss),
        objective=jnp.where(accept, trial, local.objective),
        decrement=solution.decrement,
        damping=damping,
        next_damping=jnp.where(stationary, damping, damping * factor),
        growth=jnp.where(accept | stationary, rule.growth, 2 * search.growth),
        attempts=search.attempts + 1,
        solves=search.solves.after(solution.stats),
        done=accept | stationary,
        status=jnp.where(accept, StepStatus.ACCEPTED, status),
    )
