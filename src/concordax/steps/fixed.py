"""The full or shortened Gauss-Newton step, without safeguard."""

import math

import equinox as eqx
import jax.numpy as jnp

from .base import AbstractStep, fixed_damping


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

    def init(self, like):
        """No state."""
        del like
        return ()

    def take(self, local, state):
        """One solve, one step."""
        return fixed_damping(local, lambda _: jnp.asarray(self.size)), state
