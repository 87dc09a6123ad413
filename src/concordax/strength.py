"""The strength τ of the regularizer: what its rules have in common, and the number."""

import math
from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._types import Batch
from .losses import AbstractLoss
from .solvers import AbstractPrepared
from .system import System


class StrengthState(NamedTuple):
    """The strength in force and what it was estimated from; NaN where nothing was estimated.

    `gamma_error` is the standard error of `gamma`, 0 where it was computed and not estimated from random vectors.
    `log_evidence` (nats), `leave_one_out` (nats a row) and their mean a row, `score`, judge the point and the strength
    that the last step started from; NaN when it came without an update. `ratio` is the last update's new τ over the
    old; the next update comes once `taken` steps reach `due`, and the one after it `gap` steps later. `schedule` is τ
    step by step where that is given in advance, and empty elsewhere.
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
    schedule: Float[Array, " k"]


def initial_state(strength: float, wait: int, dtype) -> StrengthState:
    """τ, the steps before its first update, and nothing estimated."""
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
        schedule=jnp.zeros(0, dtype),
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

    def resume(self, state: StrengthState) -> StrengthState:
        """The state of an earlier run, whatever its rule was, to go on from under this one."""
        return state

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
        return initial_state(self.value, 0, dtype)

    def resume(self, state):
        """τ as given, not that of the earlier run."""
        return state._replace(
            strength=jnp.full_like(state.strength, self.value), schedule=jnp.zeros_like(state.schedule[:0])
        )

    def update(self, state, system, prepared, loss, batch):
        """Nothing changes."""
        del system, prepared, loss, batch
        return state


def as_strength(strength: "float | AbstractStrength") -> AbstractStrength:
    """A number as `FixedStrength`; a strength object as it is."""
    return strength if isinstance(strength, AbstractStrength) else FixedStrength(strength)
