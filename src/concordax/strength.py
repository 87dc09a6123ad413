"""The strength τ of the regularizer: a number, or estimated anew as training goes on."""

import math
from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._types import Batch
from .losses import AbstractLoss
from .solvers import AbstractPrepared
from .system import System

# Largest τ, in units of the mean diagonal of K: the penalty then holds every parameter.
_LARGEST = 10.0
# Moves of log τ in one update: below the first the next one can wait, below the second τ has settled.
_CALM = 0.1
_SETTLED = 0.01


class StrengthState(NamedTuple):
    """The strength in force and what it was estimated from; NaN where nothing was estimated.

    `gamma_error` is the standard error of `gamma`, 0 where it was computed and not estimated from random vectors.
    `log_evidence` (nats), `leave_one_out` (nats a row) and their mean a row, `score`, judge the point and the strength
    that the last step started from; NaN when it came without an update. `ratio` is the last update's new τ over the
    old; the next update comes once `taken` steps reach `due`, and the one after it `gap` steps later.
    """

    strength: Float[Array, ""]
    noise_variance: Float[Array, ""]
    gamma: Float[Array, ""]
    gamma_error: Float[Array, ""]
    log_evidence: Float[Array, ""]
    leave_one_out: Float[Array, ""]
    score: Float[Array, ""]
    ratio: Float[Array, ""]
    taken: Int[Array, ""]
    due: Int[Array, ""]
    gap: Int[Array, ""]


def _state(strength: float, wait: int, dtype) -> StrengthState:
    unknown = jnp.full((), jnp.nan, dtype)
    count = jnp.zeros((), int)
    return StrengthState(
        strength=jnp.full((), strength, dtype),
        noise_variance=unknown,
        gamma=unknown,
        gamma_error=unknown,
        log_evidence=unknown,
        leave_one_out=unknown,
        score=unknown,
        ratio=unknown,
        taken=count,
        due=count + wait,
        gap=count + 1,
    )


class AbstractStrength(eqx.Module):
    """A way to set τ."""

    @property
    @abstractmethod
    def is_adaptive(self) -> bool:
        """Whether τ moves, so that objectives of different steps cannot be compared."""

    @property
    def program(self) -> "AbstractStrength":
        """This rule for a compiled step, without numbers that the state carries: runs that differ in them share it."""
        return self

    @abstractmethod
    def is_settled(self, state: StrengthState) -> bool:
        """Whether τ has stopped moving."""

    @abstractmethod
    def init(self, dtype) -> StrengthState:
        """The state before the first step."""

    @abstractmethod
    def update(
        self,
        state: StrengthState,
        system: System,
        prepared: AbstractPrepared,
        loss: AbstractLoss,
        batch: Batch,
    ) -> StrengthState:
        """The strength for the step that starts at this system."""

    def count(self, state: StrengthState, accepted: Bool[Array, ""]) -> StrengthState:
        """The state after a step that was or was not taken."""
        return state._replace(taken=state.taken + accepted)


class FixedStrength(AbstractStrength):
    """τ as given.

    Args:
        value: τ > 0.

    Raises:
        ValueError: if the value is not a positive finite number.

    Example:
        >>> FixedStrength(1e-4).value
        0.0001
    """

    value: float = eqx.field(static=True)

    def __init__(self, value: float):
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise ValueError(
                f"`strength={value!r}`: must be a positive finite number (1e-4 in the paper), or `Evidence()` to let "
                "the data choose."
            )
        self.value = float(value)

    @property
    def is_adaptive(self):
        """False."""
        return False

    @property
    def program(self):
        """The same for every τ, which is in the state."""
        return FixedStrength(1.0)

    def is_settled(self, state):
        """True."""
        del state
        return True

    def init(self, dtype):
        """τ, and no estimates."""
        return _state(self.value, 0, dtype)

    def update(self, state, system, prepared, loss, batch):
        """Nothing changes."""
        del system, prepared, loss, batch
        return state


class AnnealedStrength(AbstractStrength):
    """τ that falls with each step taken, τ_k = max(final, initial · factorᵏ): from a stiff network to a free one.

    For tables so large that rows can be held out: `train(validation=...)` keeps the step where they are predicted best,
    so that the path chooses both the strength and when to stop. On classes that interlock finely, steps at a small τ
    get on ten times faster than those of a τ that an estimate lowers bit by bit.

    Args:
        initial: τ of the first step.
        final: τ where the path ends.
        factor: from one step to the next, between 0 and 1.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> AnnealedStrength(1e-3, 1e-6).factor
        0.5
    """

    initial: float = eqx.field(static=True)
    final: float = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __init__(self, initial: float, final: float, *, factor: float = 0.5):
        if not (math.isfinite(initial) and 0 < final <= initial and 0 < factor < 1):
            raise ValueError(
                f"`AnnealedStrength(initial={initial!r}, final={final!r}, factor={factor!r})`: final must lie between "
                "0 and initial, factor between 0 and 1."
            )
        self.initial, self.final, self.factor = float(initial), float(final), float(factor)

    @property
    def is_adaptive(self):
        """True."""
        return True

    def is_settled(self, state):
        """Whether the path has come to its end."""
        return bool(state.strength <= 1.0001 * self.final)

    def init(self, dtype):
        """The initial τ, and no estimates."""
        return _state(self.initial, 0, dtype)

    def update(self, state, system, prepared, loss, batch):
        """The next τ of the path, by the steps taken."""
        del system, prepared, loss, batch
        return state._replace(
            strength=jnp.maximum(self.initial * self.factor**state.taken, self.final).astype(state.strength.dtype)
        )


class AbstractAdaptiveStrength(AbstractStrength):
    """A τ that is estimated anew as training goes on.

    At the start of a step, once `wait` have been taken, `estimate` says where τ should be; an update moves it there by
    at most `largest_change`. An estimate costs half as much as the rest of a step: while updates move τ by less than
    10 %, the steps from one to the next double, up to `largest_gap`.
    """

    # The defaults of `__init__` once more, for type checkers: they read a subclass as a dataclass of these fields.
    initial: float = eqx.field(static=True, default=1e-3)
    wait: int = eqx.field(static=True, default=3)
    largest_change: float = eqx.field(static=True, default=3.0)
    largest_gap: int = eqx.field(static=True, default=4)

    def __init__(self, initial: float = 1e-3, *, wait: int = 3, largest_change: float = 3.0, largest_gap: int = 4):
        name = type(self).__name__
        if not (math.isfinite(initial) and initial > 0):
            raise ValueError(f"`{name}(initial={initial})`: must be a positive finite number.")
        if wait < 0 or not largest_change > 1 or largest_gap < 1:
            raise ValueError(
                f"`{name}(wait={wait}, largest_change={largest_change}, largest_gap={largest_gap})`: wait is at "
                "least 0, largest_change above 1, largest_gap at least 1."
            )
        self.initial, self.wait, self.largest_change = float(initial), int(wait), float(largest_change)
        self.largest_gap = int(largest_gap)

    @abstractmethod
    def estimate(
        self, state: StrengthState, system: System, prepared: AbstractPrepared, loss: AbstractLoss, batch: Batch
    ) -> tuple[Float[Array, ""], StrengthState]:
        """The τ to go to, and the state with what was estimated on the way."""

    @property
    def is_adaptive(self):
        """True."""
        return True

    def is_settled(self, state):
        """Whether the last update moved τ by less than 1 %."""
        return bool(abs(math.log(state.ratio)) < _SETTLED)

    def init(self, dtype):
        """The initial τ, and no estimates."""
        return _state(self.initial, self.wait, dtype)

    def update(self, state, system, prepared, loss, batch):
        """One update, if enough steps have been taken."""

        # A loop of at most one round, not a cond: see linalg.py. γ costs as much as a step's factorization, and its
        # dependence on the carried state keeps XLA from hoisting it out.
        def ready(carry):
            done, _ = carry
            return ~done & (state.taken >= state.due)

        def once(carry):
            _, state = carry
            return jnp.ones((), bool), self._move(*self.estimate(state, system, prepared, loss, batch), prepared)

        unknown = jnp.full_like(state.score, jnp.nan)
        state = state._replace(log_evidence=unknown, leave_one_out=unknown, score=unknown)
        return jax.lax.while_loop(ready, once, (jnp.zeros((), bool), state))[1]

    def count(self, state, accepted):
        """A step that was not taken makes an update due: θ stays, so that nothing but τ can get the run on."""
        soonest = jnp.minimum(state.due, jnp.maximum(state.taken, self.wait))
        return super().count(state, accepted)._replace(due=jnp.where(accepted, state.due, soonest))

    def _move(self, target: Float[Array, ""], state: StrengthState, prepared: AbstractPrepared) -> StrengthState:
        ratio = jnp.clip(target / state.strength, 1 / self.largest_change, self.largest_change)
        # θ = 0 or an exact fit give 0/0 or 0: hold τ where the quotient says nothing, and keep it a normal number.
        ratio = jnp.where(jnp.isfinite(ratio) & (ratio > 0), ratio, 1.0)
        # Below eps of K, or far above it (data that are all noise), τ changes nothing more.
        scale = prepared.curvature()
        strength = jnp.clip(state.strength * ratio, jnp.finfo(scale.dtype).eps * scale, _LARGEST * scale)
        ratio = strength / state.strength
        calm = jnp.abs(jnp.log(ratio)) < _CALM
        gap = jnp.where(calm, jnp.minimum(2 * state.gap, self.largest_gap), 1).astype(state.gap.dtype)
        return state._replace(strength=strength, ratio=ratio, due=state.taken + gap, gap=gap)


def as_strength(strength: "float | AbstractStrength") -> AbstractStrength:
    """A number as `FixedStrength`; a strength object as it is."""
    return strength if isinstance(strength, AbstractStrength) else FixedStrength(strength)
