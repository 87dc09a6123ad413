"""The lasso."""

import jax.numpy as jnp

from ..metrics import DiagonalMetric
from .base import AbstractPenalty, soft_threshold


class L1(AbstractPenalty):
    """R = ‖x‖₁: parameters that the data do not need are exactly zero.

    Source: Tibshirani, JRSS B 58, 1996.

    Example:
        >>> import jax.numpy as jnp
        >>> L1().prox(jnp.array([3.0, -0.5]), jnp.ones(2), jnp.array(1.0)).tolist()
        [2.0, 0.0]
    """

    def value(self, x):
        """‖x‖₁."""
        return jnp.sum(jnp.abs(x))

    def prox(self, z, h, weight):
        """Soft thresholding by τ/h."""
        return soft_threshold(z, weight / h)

    def curvature(self, x, h, weight):
        """H where x is not zero."""
        del weight
        return DiagonalMetric(jnp.where(x != 0, 1 / h, 0.0))
