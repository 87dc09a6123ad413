"""A strength that is estimated anew as training goes on: when estimates come, and how far each may move τ."""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Batch
from .losses import AbstractLoss
from .solvers import AbstractPrepared
from .strength import AbstractStrength, StrengthState, initial_state
from .system import System

# Largest τ, in units of the mean diagonal of K: the penalty then holds every parameter.
_LARGEST = 10.0
# Moves of log τ from one update to the next: the first is what updates aim at, below the second τ has settled.
_MOVE = 0.15
_SETTLED = 0.01


class AbstractAdaptiveStrength(AbstractStrength):
    """A τ that is estimated anew as training goes on.

    At the start of a step, once `wait` have been taken, `estimate` says where τ should be; an update moves it there by
    at most `largest_change`. An estimate costs more than the rest of a step: updates come as far apart as would have
    each move τ by 15 %, at most twice as far as before and no further than `largest_gap` steps.
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
        return initial_state(self.initial, self.wait, dtype)

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
        share = _MOVE / jnp.maximum(jnp.abs(jnp.log(ratio)), _MOVE / 2)
        gap = jnp.clip(jnp.floor(share * state.gap), 1, self.largest_gap).astype(state.gap.dtype)
        return state._replace(strength=strength, ratio=ratio, due=state.taken + gap, gap=gap)
