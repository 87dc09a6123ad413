"""Squared error: the loss of Gaussian noise."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ..curvature import DiagonalFactor
from .base import AbstractLoss, as_columns


class SquaredError(AbstractLoss):
    """Half squared error ℓ = ½‖o − y‖², so that ∂²ℓ = I and r = o − y.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = SquaredError()
        >>> float(loss.value(jnp.array([[3.0]]), jnp.array([[1.0]]))[0])
        2.0
    """

    name: ClassVar[str] = "squared error"

    @property
    def estimates_noise(self):
        """True."""
        return True

    @property
    def is_quadratic(self):
        """True."""
        return True

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n] or [n, outputs] of real numbers."""
        return as_columns(targets, outputs, "SquaredError")

    def value(self, outputs, targets):
        """½‖o − y‖²."""
        return 0.5 * jnp.sum((outputs - targets) ** 2, axis=-1)

    def gradient(self, outputs, targets):
        """Returns o − y."""
        return outputs - targets

    def hessian_factor(self, outputs, targets):
        """The identity."""
        del targets
        return DiagonalFactor(jnp.ones_like(outputs))

    def whitened_residual(self, outputs, targets):
        """Returns o − y."""
        return outputs - targets

    def concordance(self, slopes):
        """Zero: no third derivative."""
        return jnp.zeros((), slopes.dtype)
