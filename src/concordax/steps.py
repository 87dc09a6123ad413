"""Step rules: how far to go along a direction. A rule solves through the problem given; it never differentiates."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._status import StepStatus
from .regularizers import AbstractRegularizer
from .solvers import AbstractPrepared, Solution, SolveStats
from .system import System


class LocalProblem(NamedTuple):
    """What a rule may look at: the point, its linearised system, and (objective, loss) anywhere."""

    flat: Float[Array, " p"]
    system: System
    prepared: AbstractPrepared
    regularizer: AbstractRegularizer
    strength: Float[Array, ""]
    damping: float
    loss: Float[Array, ""]
    objective: Float[Array, ""]
    objective_at: Callable[[Float[Array, " p"]], tuple[Float[Array, ""], Float[Array, ""]]]


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
    """What a rule decided: a displacement (zero unless the status allows one) and what it cost."""

    displacement: Float[Array, " p"]
    loss: Float[Array, ""]
    objective: Float[Array, ""]
    step_size: Float[Array, ""]
    damping: Float[Array, ""]
    decrement: Float[Array, ""]
    attempts: Int[Array, ""]
    solves: Solves
    status: Int[Array, ""]


class AbstractStep(eqx.Module):
    """A step rule with a state of its own."""

    @abstractmethod
    def init(self, dtype) -> Any:
        """The state before the first step."""

    @abstractmethod
    def take(self, local: LocalProblem, state: Any) -> tuple[StepOutcome, Any]:
        """One step."""


def start_is_finite(local: LocalProblem) -> Array:
    """Whether objective and linear system can be used at all; one NaN in J reaches the diagonal of K, and its sum."""
    return jnp.isfinite(local.objective) & jnp.isfinite(local.prepared.trace())


def _fixed_damping(local: LocalProblem, size: Callable[[Solution], Array]) -> StepOutcome:
    """One solve at the damping given, one step of `size`; refused only when not finite."""
    damping = jnp.asarray(local.damping, local.flat.dtype)
    solution = local.prepared.solve(local.strength, damping)
    alpha = size(solution).astype(local.flat.dtype)
    displacement = alpha * solution.direction
    objective, loss = local.objective_at(local.flat + displacement)
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


class FixedStep(AbstractStep):
    """θ ← θ + size·δ, always, unless the objective there is not finite.

    Args:
        size: α in (0, 1] as a rule; 1 is the full Gauss-Newton step.

    Raises:
        ValueError: if the size is not a positive finite number.

    Example:
        >>> FixedStep(0.5).size
        0.5
    """

    size: float = eqx.field(static=True)

    def __init__(self, size: float = 1.0):
        if not (math.isfinite(size) and size > 0):
            raise ValueError(
                f"`FixedStep(size={size})`: the size must be a positive finite number; 1 is the full step."
            )
        self.size = float(size)

    def init(self, dtype):
        """No state."""
        del dtype
        return ()

    def take(self, local, state):
        """One solve, one step."""
        return _fixed_damping(local, lambda _: jnp.asarray(self.size)), state


class PublishedStep(AbstractStep):
    """The learning rate of the published code: α = min(1, scale/(1 + M η)), η = √(τ∇g · H⁻¹ τ∇g).

    M = M_h p^{(3−ν)/2} μ^{ν/2−2} with (M_h, ν) = (2, 2.6) for pseudo-Huber. The pair does not hold (see
    `PseudoHuber`) and the power of p is not needed; both are kept here, and only here, to reproduce arXiv 2404.14875.
    The published mode is this rule with `damping = 1 − strength`.

    Args:
        scale: the numerator, 0.95 in the paper's first experiment.

    Raises:
        ValueError: if the scale is not a positive finite number.

    Example:
        >>> PublishedStep().scale
        0.95
    """

    scale: float = eqx.field(static=True)

    def __init__(self, scale: float = 0.95):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"`PublishedStep(scale={scale})`: the scale must be a positive finite number.")
        self.scale = float(scale)

    def init(self, dtype):
        """No state."""
        del dtype
        return ()

    def take(self, local, state):
        """One solve, one step of the published size."""
        gradient = local.strength * local.system.gradient
        eta = jnp.sqrt(jnp.sum(gradient * local.system.metric.solve(gradient)))
        constant = local.regularizer.published_constants().in_dimension(local.flat.shape[0])
        return _fixed_damping(local, lambda _: jnp.minimum(1.0, self.scale / (1 + constant * eta))), state
