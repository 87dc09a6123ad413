"""The pseudo-Huber loss, for targets with outliers."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature import DiagonalFactor
from .base import AbstractLoss, as_columns


class PseudoHuberLoss(AbstractLoss):
    """Squared error that grows like |o − y| beyond a scale δ: ℓ = Σ δ² (√(1 + z²/δ²) − 1), z = o − y.

    With s = √(1 + z²/δ²): ∂ℓ = z/s, S = s^{−3/2} on the diagonal, r = z √s. Rows with |z| ≫ δ pull with a force of δ,
    whatever their distance, so that outliers among the targets do not bend the fit; nor do they widen error bars, whose
    σ² is that of these forces.

    Args:
        scale: δ > 0, in units of the targets.

    Raises:
        ValueError: for a scale that is not positive and finite.

    Source: Charbonnier et al., ICIP 1994; self-concordance constants in Ostrovskii & Bach, EJS 15, 2021.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = PseudoHuberLoss(1.0)
        >>> bool(abs(loss.gradient(jnp.array([[1e6]]), jnp.array([[0.0]]))[0, 0] - 1.0) < 1e-6)
        True
    """

    name: ClassVar[str] = "pseudo-Huber"
    scale: float = eqx.field(static=True)

    def __init__(self, scale: float):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"`PseudoHuberLoss(scale={scale!r})`: must be a positive finite number, the deviation from which a "
                "target counts as an outlier, in units of the targets."
            )
        self.scale = float(scale)

    @property
    def estimates_noise(self):
        """True."""
        return True

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n] or [n, outputs] of real numbers."""
        return as_columns(targets, outputs, "PseudoHuberLoss")

    def value(self, outputs, targets):
        """Σ z²/(s + 1): δ²(s − 1) without its cancellation."""
        z = outputs - targets
        return jnp.sum(z**2 / (self._stretch(z) + 1), axis=-1)

    def gradient(self, outputs, targets):
        """Returns z/s."""
        z = outputs - targets
        return z / self._stretch(z)

    def hessian_factor(self, outputs, targets):
        """Returns s^{−3/2} on the diagonal."""
        return DiagonalFactor(self._stretch(outputs - targets) ** -1.5)

    def whitened_residual(self, outputs, targets):
        """Returns z √s."""
        z = outputs - targets
        return z * jnp.sqrt(self._stretch(z))

    def concordance(self, slopes):
        """Returns 1.5 max|s|/δ."""
        return 1.5 * jnp.max(jnp.abs(slopes)) / self.scale

    def _stretch(self, z: Float[Array, "n c"]) -> Float[Array, "n c"]:
        return jnp.hypot(1.0, z / self.scale)
