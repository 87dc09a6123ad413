"""The pseudo-Huber penalty: a smooth ℓ1 norm."""

import math

import jax.numpy as jnp
from jaxtyping import Array

from ..linalg import long_sum
from ..metrics import DiagonalMetric, ScalarMetric
from ..self_concordance import SelfConcordance
from .base import AbstractRegularizer, checked


class PseudoHuber(AbstractRegularizer):
    """A smooth ℓ1 norm: g = μ Σ (√(1 + (x/μ)²) − 1), with smoothing μ > 0 in units of the parameters.

    ∇g = t/√(1+t²), H = (1/μ)(1+t²)^{−3/2}, t = x/μ. Far below μ it is x²/(2μ), far above it is |x| − μ.
    Source: arXiv 2309.01781, and arXiv 2404.14875 (there with μ = √width).

    Args:
        smoothing: μ > 0.

    Raises:
        ValueError: if the smoothing is not a positive finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(jnp.isclose(PseudoHuber(1e-3).value(jnp.array([2.0, -3.0])), 5.0, atol=3e-3))
        True
    """

    smoothing: float

    def __init__(self, smoothing: float):
        self.smoothing = checked("PseudoHuber", "smoothing", smoothing)

    def value(self, x):
        """μ Σ (√(1+t²) − 1), as t·(t/(1+√(1+t²))): the difference would lose every digit at small t."""
        return self.smoothing * long_sum(lambda t, root: t * (t / (1 + root)), *self._scaled(x))

    def gradient(self, x):
        """t/√(1+t²)."""
        t, root = self._scaled(x)
        return t / root

    def metric(self, x):
        """H⁻¹ = μ (1+t²)^{3/2} on the diagonal."""
        _, root = self._scaled(x)
        return DiagonalMetric(self.smoothing * root**3)

    def damping_metric(self, x):
        """I/μ, the curvature at 0."""
        return ScalarMetric(jnp.asarray(self.smoothing, x.dtype))

    def _scaled(self, x: Array) -> tuple[Array, Array]:
        """T, with one division for all of it, and √(1+t²). Where t² would overflow, t is cut: hypot is slower by 3."""
        largest = 0.5 * float(jnp.finfo(x.dtype).max) ** 0.5
        t = jnp.clip(x * (1 / self.smoothing), -largest, largest)
        return t, jnp.sqrt(1 + t**2)

    def constants(self):
        """(1.5, 2), (2.5372, 2.6) and (3, 8/3), each times μ^{ν/2−2}; none exists above 8/3."""
        return tuple(_kernel_constants(order).smoothed(self.smoothing) for order in (2.0, 2.6, 8 / 3))

    def constant_at(self, order):
        """sup 3t(1+t²)^{(3ν−10)/4}, at t² = 2/(8 − 3ν), times μ^{ν/2−2}; None outside of 2 ≤ ν ≤ 8/3."""
        return _kernel_constants(order).smoothed(self.smoothing).constant if 2 <= order <= 8 / 3 else None

    def concordance(self, direction):
        """Returns 1.5 max|δ|/μ: of a sum over coordinates the largest counts, not their norm."""
        return 1.5 * jnp.max(jnp.abs(direction)) / self.smoothing

    def published_constants(self):
        """(2, 2.6), as published. It does not hold: the supremum at ν = 2.6 is 2.5372, at t = √10."""
        return SelfConcordance(2.0, 2.6).smoothed(self.smoothing)


def _kernel_constants(order: float) -> SelfConcordance:
    """sup_t 3t(1+t²)^{(3ν−10)/4} at t² = 2/(8 − 3ν); at ν = 8/3 it is the limit 3 for t → ∞."""
    if order == 8 / 3:
        return SelfConcordance(3.0, order)
    square = 2 / (8 - 3 * order)
    return SelfConcordance(3 * math.sqrt(square) * (1 + square) ** (0.75 * order - 2.5), order)
