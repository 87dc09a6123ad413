"""The smoothed pinball loss, whose minimum is a quantile."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature import DiagonalFactor
from .base import AbstractLoss, as_columns


class QuantileLoss(AbstractLoss):
    """Pinball loss with |z| smoothed by the pseudo-Huber function: ℓ = Σ ½(√(δ² + z²) − δ) + (q − ½) z, z = y − o.

    Its minimum over a constant is the q-quantile of the targets as δ → 0. ℓ is strictly convex, and below the pinball
    loss q max(z, 0) + (1 − q) max(−z, 0) by at most δ/2. With t = z/δ and s = √(1 + t²): ∂ℓ = −(½ t/s + q − ½),
    S = s^{−3/2}/√(2δ) on the diagonal, r = ∂ℓ √(2δ) s^{3/2}. A small δ is close to the quantile, a large one trains in
    fewer steps.

    ℓ counts as the negative log density of a noise whose width is 1 in units of the targets: standardise them where a
    strength is to come from the data.

    Args:
        quantile: q in (0, 1); ½ is the median.
        smoothing: δ > 0, in units of the targets.

    Raises:
        ValueError: for a number out of range.

    Source: Koenker & Bassett, Econometrica 46(1), 1978; smoothed as in Ostrovskii & Bach, EJS 15, 2021.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = QuantileLoss(0.9, smoothing=1e-6)
        >>> pinball = loss.value(jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]))
        >>> bool(jnp.allclose(pinball, jnp.array([0.9, 0.1]), atol=1e-6))
        True
    """

    name: ClassVar[str] = "smoothed pinball"
    quantile: float = eqx.field(static=True)
    smoothing: float = eqx.field(static=True)

    def __init__(self, quantile: float, smoothing: float):
        if not 0 < quantile < 1:
            raise ValueError(
                f"`QuantileLoss(quantile={quantile!r})`: must lie between 0 and 1; 0.9 is what nine of ten targets "
                "stay below."
            )
        if not (math.isfinite(smoothing) and smoothing > 0):
            raise ValueError(
                f"`QuantileLoss(smoothing={smoothing!r})`: must be a positive finite number in units of the targets, "
                "say a hundredth of their standard deviation."
            )
        self.quantile, self.smoothing = float(quantile), float(smoothing)

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n] or [n, outputs] of real numbers."""
        return as_columns(targets, outputs, "QuantileLoss")

    def value(self, outputs, targets):
        """Σ ½ z²/(√(δ² + z²) + δ) + (q − ½) z: the difference of roots without its cancellation."""
        z = targets - outputs
        t = z / self.smoothing
        return jnp.sum(z * (0.5 * t / (jnp.hypot(1.0, t) + 1) + (self.quantile - 0.5)), axis=-1)

    def gradient(self, outputs, targets):
        """−(½ t/s + q − ½)."""
        t = (targets - outputs) / self.smoothing
        return -(0.5 * t / jnp.hypot(1.0, t) + (self.quantile - 0.5))

    def hessian_factor(self, outputs, targets):
        """Returns s^{−3/2}/√(2δ) on the diagonal."""
        return DiagonalFactor(self._stretch(outputs, targets) ** -1.5 / math.sqrt(2 * self.smoothing))

    def whitened_residual(self, outputs, targets):
        """Returns ∂ℓ √(2δ) s^{3/2}."""
        stretch = self._stretch(outputs, targets)
        return self.gradient(outputs, targets) * math.sqrt(2 * self.smoothing) * stretch**1.5

    def concordance(self, slopes):
        """Returns 1.5 max|s|/δ: |ℓ'''|/ℓ'' = 3|z|/(δ² + z²), the largest at |z| = δ."""
        return 1.5 * jnp.max(jnp.abs(slopes)) / self.smoothing

    def _stretch(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        # Cut where its cube, r², would leave the range: the Hessian is zero there to every digit that a sum keeps.
        largest = float(jnp.finfo(outputs.dtype).tiny) ** -0.25
        return jnp.minimum(jnp.hypot(1.0, (targets - outputs) / self.smoothing), largest)
