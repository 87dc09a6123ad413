"""A strength whose course is known in advance: τ for each step."""

import math
from collections.abc import Iterable

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .strength import AbstractStrength, initial_state

# Schedules are filled up with their last τ to a multiple of this, so that those of about the same length share a
# compiled program.
_GRAIN = 16


class ScheduledStrength(AbstractStrength):
    """τ as given for each step, taken or not; the last one from there on.

    For networks that follow another's course, for continuation from stiff to free, and for experiments.

    Args:
        values: τ > 0 of the first step, the second, and so on; one or more.

    Raises:
        ValueError: if there is none, or one is not a positive finite number.

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.numpy.linspace(-1, 1, 30)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(10,))
        >>> parts = model, cx.SquaredError(), cx.L2(), model.init(jax.random.key(0)), (x, x**2)
        >>> run = cx.train(*parts, strength=cx.ScheduledStrength([0.5, 0.25]), max_steps=4, tolerance=0.0)
        >>> run.history["strength"].tolist()
        [0.5, 0.25, 0.25, 0.25]
    """

    values: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, values: Iterable[float]):
        self.values = tuple(float(value) for value in values)
        if not self.values or not all(math.isfinite(value) and value > 0 for value in self.values):
            raise ValueError(
                f"`ScheduledStrength(values={list(self.values)!r})`: must be one positive finite number or more, τ of "
                "the first step, of the second, and so on."
            )

    @property
    def is_adaptive(self):
        """True."""
        return True

    @property
    def program(self):
        """The same for every schedule, which is in the state."""
        return ScheduledStrength((1.0,))

    def is_settled(self, state):
        """Whether all that is left of the schedule is the τ in force."""
        schedule = np.asarray(state.schedule)
        return bool(np.all(schedule[min(int(state.taken), len(schedule) - 1) :] == np.asarray(state.strength)))

    def init(self, dtype):
        """The first τ, and no estimates."""
        return self.resume(initial_state(self.values[0], 0, dtype))

    def resume(self, state):
        """This schedule, at the step that the earlier run had come to."""
        filled = [*self.values, *[self.values[-1]] * (-len(self.values) % _GRAIN)]
        return state._replace(schedule=jnp.asarray(filled, state.strength.dtype))

    def update(self, state, system, prepared, loss, batch):
        """τ of this step."""
        del system, prepared, loss, batch
        last = state.schedule.shape[0] - 1
        return state._replace(strength=state.schedule[jnp.minimum(state.taken, last)])

    def count(self, state, accepted):
        """Every step counts: where one τ leaves nothing to gain, the next one may."""
        del accepted
        return super().count(state, jnp.ones((), bool))


class AnnealedStrength(ScheduledStrength):
    """τ that falls with each step, τ_k = max(final, initial · factorᵏ): from a stiff network to a free one.

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
        >>> AnnealedStrength(1.0, 0.2).values
        (1.0, 0.5, 0.25, 0.2)
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
        falling = math.ceil(math.log(final / initial) / math.log(factor))
        super().__init__([*(self.initial * self.factor**k for k in range(falling)), self.final])
