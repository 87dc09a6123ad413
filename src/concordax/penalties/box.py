"""Bounds on the parameters."""

import math

import equinox as eqx
import jax.numpy as jnp

from ..metrics import DiagonalMetric
from .base import AbstractPenalty


class Box(AbstractPenalty):
    """R = 0 for low ≤ x ≤ high, infinite elsewhere: hard bounds on every parameter.

    A start outside is moved to the nearest bounds by the first step.

    Args:
        low: the lower bound, −∞ for none.
        high: the upper bound, ∞ for none.

    Raises:
        ValueError: for bounds in the wrong order, or none at all.

    Example:
        >>> import jax.numpy as jnp
        >>> Box(0.0).nearest(jnp.array([1.0, -2.0])).tolist()
        [1.0, 0.0]
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, low: float = -math.inf, high: float = math.inf):
        if not low < high or low == math.inf or high == -math.inf or (math.isinf(high - low) and low == -high):
            raise ValueError(f"`Box(low={low!r}, high={high!r})`: give one bound or two, the lower one first.")
        self.low, self.high = float(low), float(high)

    def value(self, x):
        """Zero: `prox` and `nearest` keep to the bounds."""
        return jnp.zeros((), x.dtype)

    def prox(self, z, h, weight):
        """The nearest point within the bounds, in any diagonal metric."""
        del h, weight
        return self.nearest(z)

    def curvature(self, x, h, weight):
        """H strictly between the bounds."""
        del weight
        return DiagonalMetric(jnp.where((x > self.low) & (x < self.high), 1 / h, 0.0))

    def nearest(self, x):
        """x cut at the bounds."""
        return jnp.clip(x, self.low, self.high)
