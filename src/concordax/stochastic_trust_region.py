"""The step for mini-batches: one damped Gauss-Newton step a batch, with a memory of the batches before.

    min over δ of  ½‖Wδ + r‖² + τ(gᵀδ + ½‖δ‖²_M) + (λ/2)‖δ − βφ‖²_M,   φ the step before,

in the metric M of a damped step (`steps/damped_metric.py`); H itself under L2. With δ = κφ + e, κ = βλ/(τ + λ), this is
(WᵀW + (τ+λ)M) e = −(Wᵀ(r + κWφ) + τg): the system that every solver knows, for another residual. Nothing is divided by
τ, and no solver knows of φ.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._status import StepStatus
from .steps import AbstractStep, LocalProblem, Solves, StepOutcome, damped, no_solves, start_is_finite
from .steps.line_search import check_trials

# What one step leaves of the largest mean of diag K so far, a memory of a thousand batches, and how fast that grows:
# one batch of another scale gets the damping it needs, and the next ones do not stand still for it.
_FORGET = 0.999
_GROW = 1.1
# Where the network's own kernel has fallen for good, as in the first steps from a start far too large, that memory
# would hold the damping a thousand times too high for thousands of batches: it counts up to so many times what a memory
# of twenty batches has. The curvature of the loss keeps the long one: a softmax sure of its batches overfits them.
_FORGET_KERNEL = 0.95
_CAP = 10.0
# A step is taken when it gains this share of what the model of its batch promised, and is at most this many times as
# long as late ones were: a row whose class has no probability left would move the outputs by its inverse.
_ACCEPT = 0.01
_LONGEST = 5.0
# A refused trial is tried again with this many times the damping, and without momentum.
_REFUSED = 4.0
# The damping moves by this factor a step, on the word of gains smoothed over about fifty batches. At 1.05 and twenty it
# followed luck, grew thirtyfold within the first epochs on images of digits, and the run crept.
_PACE = 1.01
_SMOOTH = 0.98
# The damping is lowered while steps gain more than the second share on rows they have not seen of what they gain on
# their own, and raised below the first.
_SHARES = (0.0, 0.1)
# The largest damping, in units of the mean of diag K; the least is the initial one. At a third of it single batches are
# overfitted so far that the run never comes back.
_LARGEST = 1e6
# In units of the least, at most √(1 + steps/100). Where the loss stands still for the noise of its batches, the gain on
# fresh rows is 0 in the mean, and chance alone would raise the damping by 1 % a step until nothing moves. Steps of
# t^(−1/2) still sum to infinity, and the mean of late iterates takes out their noise (Polyak & Juditsky, 1992). Waiting
# for a gain below 0 by three standard errors instead trains large tables further, and overfits images.
_RAMP = 100
# Weight of the present iterate in the mean of late ones: ten over the steps so far.
_HORIZON = 0.1


class StochasticTrustRegionState(NamedTuple):
    """What the rule carries from batch to batch.

    `ratio` is the damping in units of `scale`, the largest mean of diag K of late; `loss_curvature` and `kernel` the
    largest of late of its factors, the mean curvature of the loss and that of the network; `momentum` φ, `average` the
    mean of late iterates; `length` ‖δ‖_M, `fresh_gain` and `own_gain` smoothed; `taken` the steps so far.
    """

    ratio: Float[Array, ""]
    scale: Float[Array, ""]
    loss_curvature: Float[Array, ""]
    kernel: Float[Array, ""]
    momentum: Float[Array, " p"]
    average: Float[Array, " p"]
    length: Float[Array, ""]
    fresh_gain: Float[Array, ""]
    own_gain: Float[Array, ""]
    taken: Int[Array, ""]


class _Trial(NamedTuple):
    displacement: Float[Array, " p"]
    loss: Float[Array, ""]
    objective: Float[Array, ""]
    decrement: Float[Array, ""]
    damping: Float[Array, ""]
    next_damping: Float[Array, ""]
    momentum: Float[Array, ""]
    attempts: Int[Array, ""]
    solves: Solves
    done: Bool[Array, ""]
    status: Int[Array, ""]


class StochasticTrustRegion(AbstractStep):
    """Damped Gauss-Newton steps on mini-batches, with momentum; the default for them.

    Each step minimises ½‖Wδ + r‖² + τ(gᵀδ + ½‖δ‖²_M) + (λ/2)‖δ − βφ‖²_M, φ the step before, with (τ+λ)M = τH + λD as in
    `TrustRegion`. Its gain on its own batch says little, since that batch is overfitted: λ is set by what a step gains
    on the *next* batch, before that one is learnt. The ratio of the two gains is smoothed; λ grows by 1 % a step where
    it is below 0 and falls by 1 % where it is above 0.1, in units of the largest mean of diag K of late never below its
    first value, nor above that times √(1 + t/100) at step t: noise alone does not bring the run to a halt.

    A trial that is not finite, raises the objective of its own batch or gains less than a hundredth of what the model
    promised is refused, and tried again with four times the damping and without momentum. No step is longer than five
    times the mean of late ones. `TrainResult.best_params` are a mean of the late iterates, with weights that reach
    back over about a tenth of the run.

    Args:
        momentum: β from 0 up, below 1.
        initial_damping: the first and least λ, in units of the mean of diag K.
        max_attempts: trials a step before the parameters stay.

    Raises:
        ValueError: for a number out of range.

    Source: the momentum is that of SPRING (Goldshlager, Abrahamsen & Lin, "A Kaczmarz-inspired approach to accelerate
    the optimization of neural network wavefunctions", 2024), in the metric of a damped step.

    Example:
        >>> StochasticTrustRegion().momentum
        0.9
    """

    momentum: float = eqx.field(static=True)
    initial_damping: float = eqx.field(static=True)
    max_attempts: int = eqx.field(static=True)

    def __init__(self, momentum: float = 0.9, *, initial_damping: float = 10.0, max_attempts: int = 6):
        if not (isinstance(momentum, (int, float)) and 0 <= momentum < 1):
            raise ValueError(f"`StochasticTrustRegion(momentum={momentum!r})`: must be a number from 0 up, below 1.")
        if not 0 < initial_damping <= _LARGEST:
            raise ValueError(
                f"`StochasticTrustRegion(initial_damping={initial_damping!r})`: must be a positive number up to "
                f"{_LARGEST:g}; 1 is the mean of diag K."
            )
        check_trials("StochasticTrustRegion", "max_attempts", max_attempts)
        self.momentum, self.initial_damping = float(momentum), float(initial_damping)
        self.max_attempts = max_attempts

    def init(self, like):
        """No batch seen yet."""
        zero = jnp.zeros((), like.dtype)
        return StochasticTrustRegionState(
            ratio=zero + self.initial_damping,
            scale=zero,
            loss_curvature=zero,
            kernel=zero,
            momentum=jnp.zeros_like(like),
            average=like,
            length=zero,
            fresh_gain=zero,
            own_gain=zero,
            taken=jnp.zeros((), int),
        )

    def average(self, state):
        """The mean of late iterates."""
        return state.average

    def take(self, local, state):
        """One step, tried again with more damping where its batch refuses it."""
        local = damped(local, jnp.where(state.scale > 0, state.ratio * state.scale, -1.0))
        usable = start_is_finite(local)
        scale, state = _sized(local, state)
        state = _judge(local, state, usable, self.initial_damping)
        scale = jnp.maximum(scale, state.scale)
        damping = state.ratio * jnp.where(scale > 0, scale, 1.0)
        start = _Trial(
            displacement=jnp.zeros_like(local.flat),
            loss=local.loss,
            objective=local.objective,
            decrement=jnp.zeros_like(scale),
            damping=damping,
            next_damping=damping,
            momentum=jnp.full_like(scale, self.momentum),
            attempts=jnp.zeros((), int),
            solves=no_solves(),
            done=~usable,
            status=jnp.where(usable, StepStatus.REJECTED, StepStatus.NONFINITE_START),
        )
        pull = local.system.jacobian.mv(state.momentum)
        end = jax.lax.while_loop(
            lambda trial: ~trial.done & (trial.attempts < self.max_attempts),
            lambda trial: _attempt(local, state, pull, trial),
            start,
        )
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
        return outcome, _remember(local, state, outcome)


def _sized(
    local: LocalProblem, state: StochasticTrustRegionState
) -> tuple[Float[Array, ""], StochasticTrustRegionState]:
    """The mean of diag K of this batch, and the memory of it."""
    curvature = local.system.curvature
    scale, bend = local.prepared.curvature(), jnp.einsum("naa->", curvature) / curvature.shape[-1]
    # A batch of rows without weight says nothing.
    known = jnp.isfinite(scale) & (scale > 0) & (bend > 0)
    scale, bend = jnp.where(known, scale, state.scale), jnp.where(known, bend, state.loss_curvature)
    kernel = jnp.where(known, scale / jnp.where(known, bend, 1.0), state.kernel)
    bend, kernel = _late(bend, state.loss_curvature, _FORGET), _late(kernel, state.kernel, _FORGET_KERNEL)
    late = jnp.minimum(_late(scale, state.scale, _FORGET), _CAP * bend * kernel)
    return scale, state._replace(scale=late, loss_curvature=bend, kernel=kernel)


def _late(now: Float[Array, ""], late: Float[Array, ""], forget: float) -> Float[Array, ""]:
    """The largest of late: a step lowers it to `forget` times itself at most, and raises it to `_GROW` times."""
    return jnp.where(late > 0, jnp.clip(now, forget * late, _GROW * late), now)


def _judge(local: LocalProblem, state: StochasticTrustRegionState, usable: Bool[Array, ""], least: float):
    """The damping after the word of rows that the step before has not seen: an unbiased gain, where its own is not."""
    before = local.trial_at(local.flat - state.momentum).objective
    gain = before - local.objective
    known = usable & jnp.isfinite(gain) & (state.taken > 0)
    # One batch weighs no more than its own gain does: rows of another world say nothing about the damping here.
    gain = jnp.clip(gain, -10 * state.own_gain, 10 * state.own_gain)
    fresh = jnp.where(known, _SMOOTH * state.fresh_gain + (1 - _SMOOTH) * gain, state.fresh_gain)
    low, high = (share * state.own_gain for share in _SHARES)
    factor = jnp.where(fresh < low, _PACE, jnp.where(fresh > high, 1 / _PACE, 1.0))
    most = jnp.minimum(_LARGEST, least * jnp.sqrt(1 + state.taken.astype(gain.dtype) / _RAMP))
    ratio = jnp.clip(state.ratio * jnp.where(known, factor, 1.0), least, most)
    return state._replace(fresh_gain=fresh, ratio=ratio)


def _attempt(local: LocalProblem, state: StochasticTrustRegionState, pull: Float[Array, "n k"], trial: _Trial):
    system, tau = local.system, local.strength
    damping = trial.next_damping
    total = damping + local.damping
    share = trial.momentum * damping / (tau + total)
    shifted = eqx.tree_at(lambda p: p.system.residual, local.prepared, system.residual + share * pull)
    solution = shifted.solve(tau, total)
    displacement = share * state.momentum + solution.direction
    length = jnp.sqrt(system.metric.squared_norm(displacement))
    short = jnp.where((state.length > 0) & (length > 0), jnp.minimum(1.0, _LONGEST * state.length / length), 1.0)
    displacement, length = short * displacement, short * length
    image = short * (share * pull + solution.image)
    slope = -jnp.sum(system.residual * image) - tau * jnp.sum(system.gradient * displacement)
    objective, loss, _ = local.trial_at(local.flat + displacement)
    finite = solution.status & jnp.isfinite(objective) & jnp.all(jnp.isfinite(displacement))
    promised = slope - 0.5 * (jnp.sum(image**2) + tau * length**2)
    accept = finite & (local.objective - objective >= _ACCEPT * jnp.maximum(promised, 0.0))
    status = jnp.where(solution.status, StepStatus.REJECTED, StepStatus.FACTORIZATION_FAILED)
    return _Trial(
        displacement=jnp.where(accept, displacement, 0.0),
        loss=jnp.where(accept, loss, local.loss),
        objective=jnp.where(accept, objective, local.objective),
        decrement=jnp.where(accept, jnp.sqrt(jnp.maximum(slope, 0.0)), trial.decrement),
        damping=damping,
        next_damping=_REFUSED * damping,
        momentum=jnp.zeros_like(trial.momentum),
        attempts=trial.attempts + 1,
        solves=trial.solves.after(solution.stats),
        done=accept,
        status=jnp.where(accept, StepStatus.ACCEPTED, status),
    )


def _remember(local: LocalProblem, state: StochasticTrustRegionState, outcome: StepOutcome):
    taken = outcome.status == StepStatus.ACCEPTED
    gain = local.objective - outcome.objective
    count = state.taken + taken
    weight = jnp.where(taken, 1 / (1 + _HORIZON * count), 0.0).astype(gain.dtype)
    # Refused at first: more damping next time too, by the bounded factor.
    ratio = jnp.where(outcome.attempts > 1, jnp.minimum(_PACE * state.ratio, _LARGEST), state.ratio)
    length = jnp.sqrt(local.system.metric.squared_norm(outcome.displacement))
    first = jnp.where(state.length > 0, state.length, length)
    return state._replace(
        ratio=ratio,
        length=jnp.where(taken, _SMOOTH * first + (1 - _SMOOTH) * length, state.length),
        momentum=outcome.displacement,
        average=state.average + weight * (local.flat + outcome.displacement - state.average),
        own_gain=jnp.where(taken, _SMOOTH * state.own_gain + (1 - _SMOOTH) * gain, state.own_gain),
        taken=count,
    )
