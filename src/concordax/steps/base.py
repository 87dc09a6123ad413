"""What a step rule is: how far to go along a direction. It solves through its problem and never differentiates."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._status import StepStatus
from ..losses import AbstractLoss
from ..metrics import AbstractMetric
from ..regularizers import AbstractRegularizer
from ..solvers import AbstractPrepared, Solution, SolveStats
from ..system import System


class Trial(NamedTuple):
    """The problem at another point: F, the loss in it, and the outputs."""

    objective: Float[Array, ""]
    loss: Float[Array, ""]
    outputs: Float[Array, "n c"]


class LocalProblem(NamedTuple):
    """What a rule may look at: the point, its linearised system, and trials anywhere.

    `bend_along` gives the whitened second derivative of the outputs along a direction, `bend_to` how far the outputs at
    the end of a displacement are from where the linear model has them, whitened too.
    """

    flat: Float[Array, " p"]
    system: System
    prepared: AbstractPrepared
    loss_function: AbstractLoss
    regularizer: AbstractRegularizer
    strength: Float[Array, ""]
    damping: float | Float[Array, ""]
    loss: Float[Array, ""]
    objective: Float[Array, ""]
    trial_at: Callable[[Float[Array, " p"]], Trial]
    prepare: Callable[[System], AbstractPrepared]
    bend_along: Callable[[Float[Array, " p"]], Float[Array, "n k"]]
    bend_to: Callable[[Float[Array, " p"], Float[Array, "n c"]], Float[Array, "n k"]]


class Solves(NamedTuple):
    """What the solves of a step report: iterations in all, whether every one converged, whether any was handed over."""

    iterations: Int[Array, ""]
    converged: Bool[Array, ""]
    handed_over: Bool[Array, ""]

    def after(self, stats: SolveStats) -> "Solves":
        """One solve more."""
        return Solves(
            self.iterations + stats.iterations, self.converged & stats.converged, self.handed_over | stats.handed_over
        )


def no_solves() -> Solves:
    """Before the first solve."""
    no = jnp.zeros((), bool)
    return Solves(jnp.zeros((), int), ~no, no)


class StepOutcome(NamedTuple):
    """What a rule decided: a displacement (zero unless the status allows one) and what it cost.

    `kkt_residual` is that of the point before the step, where the rule knows it.
    """

    displacement: Float[Array, " p"]
    loss: Float[Array, ""]
    objective: Float[Array, ""]
    step_size: Float[Array, ""]
    damping: Float[Array, ""]
    decrement: Float[Array, ""]
    attempts: Int[Array, ""]
    solves: Solves
    status: Int[Array, ""]
    kkt_residual: Float[Array, ""] | float = math.nan


class AbstractStep(eqx.Module):
    """A step rule with a state of its own."""

    @abstractmethod
    def init(self, like: Float[Array, " p"]) -> Any:
        """The state before the first step, for flat parameters like these."""

    @abstractmethod
    def take(self, local: LocalProblem, state: Any) -> tuple[StepOutcome, Any]:
        """One step."""

    def solved_metric(self, metric: AbstractMetric, flat: Float[Array, " p"]) -> AbstractMetric:
        """The metric of the systems that the rule solves, where it is not that of the regularizer."""
        del flat
        return metric

    @property
    def adds_penalty(self) -> bool:
        """Whether the rule adds a penalty R to the objective."""
        return False

    def penalty_value(self, flat: Float[Array, " p"]) -> Float[Array, ""]:
        """R(θ), what a rule adds to g in the objective F = loss + τ (g + R); most add nothing."""
        return jnp.zeros((), flat.dtype)

    def average(self, state: Any) -> Float[Array, " p"] | None:
        """A mean of late iterates, for a rule whose single steps are noisy; None for the others."""
        del state
        return None


def start_is_finite(local: LocalProblem) -> Array:
    """Whether objective and linear system can be used at all."""
    return jnp.isfinite(local.objective) & local.prepared.is_finite()


def fixed_damping(local: LocalProblem, size: Callable[[Solution], Array]) -> StepOutcome:
    """One solve at the damping given, one step of `size`; refused only when not finite."""
    damping = jnp.asarray(local.damping, local.flat.dtype)
    solution = local.prepared.solve(local.strength, damping)
    alpha = size(solution).astype(local.flat.dtype)
    displacement = alpha * solution.direction
    objective, loss, _ = local.trial_at(local.flat + displacement)
    status = jnp.where(jnp.isfinite(objective), StepStatus.ACCEPTED, StepStatus.NONFINITE_TRIAL)
    status = jnp.where(solution.status, status, StepStatus.FACTORIZATION_FAILED)
    status = jnp.where(start_is_finite(local), status, StepStatus.NONFINITE_START)
    accepted = status == StepStatus.ACCEPTED
    return StepOutcome(
        displacement=jnp.where(accepted, displacement, 0.0),
        loss=jnp.where(accepted, loss, local.loss),
        objective=jnp.where(accepted, objective, local.objective),
        step_size=jnp.where(accepted, alpha, 0.0),
        damping=damping,
        decrement=solution.decrement,
        attempts=jnp.ones((), int),
        solves=no_solves().after(solution.stats),
        status=status,
    )
