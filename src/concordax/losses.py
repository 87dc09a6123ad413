"""Convex losses in output space: value, gradient, Hessian factor S (S Sᵀ = ∂²ℓ/∂o²), whitened residual r (S r = ∂ℓ/∂o).

A loss never sees parameters, weights or 1/n: those enter once, in `system.py`.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .curvature import AbstractHessianFactor, DiagonalFactor, SoftmaxFactor


class AbstractLoss(eqx.Module):
    """Loss of one example as a function of its outputs; methods act on n rows at once.

    `estimates_noise` is True when ℓ/σ² is a negative log likelihood with an unknown variance σ², `is_quadratic` when it
    is that of a Gaussian.
    """

    name: ClassVar[str]
    estimates_noise: ClassVar[bool] = False
    is_quadratic: ClassVar[bool] = False

    @abstractmethod
    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets as an array [n, outputs] that the other methods take; raises ValueError on a shape that cannot be."""

    @abstractmethod
    def value(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, " n"]:
        """ℓ(o, y), one number a row."""

    @abstractmethod
    def gradient(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """∂ℓ/∂o."""

    @abstractmethod
    def hessian_factor(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> AbstractHessianFactor:
        """S with S Sᵀ = ∂²ℓ/∂o². Never regularised: a singular Hessian stays singular."""

    @abstractmethod
    def whitened_residual(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """r orthogonal to ker S with S r = ∂ℓ/∂o; finite even where S underflows."""


def _as_columns(targets: Array, outputs: int, loss: str) -> Array:
    """Targets [n] or [n, outputs] as [n, outputs]."""
    if targets.ndim == 1 and outputs == 1:
        return targets[:, None]
    if targets.ndim != 2 or targets.shape[1] != outputs:
        raise ValueError(
            f"`{loss}` needs targets of shape [n, {outputs}] for a model with {outputs} outputs; got {targets.shape}. "
            "Reshape the targets, or build the model with as many outputs as there are target columns."
        )
    return targets


class SquaredError(AbstractLoss):
    """Half squared error ℓ = ½‖o − y‖², so that ∂²ℓ = I and r = o − y.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = SquaredError()
        >>> float(loss.value(jnp.array([[3.0]]), jnp.array([[1.0]]))[0])
        2.0
    """

    name: ClassVar[str] = "squared error"
    estimates_noise: ClassVar[bool] = True
    is_quadratic: ClassVar[bool] = True

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n] or [n, outputs] of real numbers."""
        return _as_columns(targets, outputs, "SquaredError")

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
    estimates_noise: ClassVar[bool] = True
    scale: float = eqx.field(static=True)

    def __init__(self, scale: float):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"`PseudoHuberLoss(scale={scale!r})`: must be a positive finite number, the deviation from which a "
                "target counts as an outlier, in units of the targets."
            )
        self.scale = float(scale)

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n] or [n, outputs] of real numbers."""
        return _as_columns(targets, outputs, "PseudoHuberLoss")

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

    def _stretch(self, z: Float[Array, "n c"]) -> Float[Array, "n c"]:
        return jnp.hypot(1.0, z / self.scale)


class SoftmaxCrossEntropy(AbstractLoss):
    """Cross-entropy of softmax(o) with class labels or class probabilities.

    ℓ = −Σ_k y_k log P_k, S = diag(q) − P qᵀ with q = √P, r = q − y/q. The Hessian has the kernel 1; r ⟂ q = ker S, so
    no ε I is needed anywhere.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = SoftmaxCrossEntropy()
        >>> targets = loss.encode(jnp.array([1]), 2)
        >>> bool(jnp.allclose(loss.value(jnp.zeros((1, 2)), targets), jnp.log(2.0)))
        True
    """

    name: ClassVar[str] = "softmax cross-entropy"

    def encode(self, targets: Array, outputs: int) -> Array:
        """Integer labels [n] become one-hot rows; probabilities [n, outputs] (rows that sum to 1) are kept."""
        if targets.ndim == 1 and jnp.issubdtype(targets.dtype, jnp.integer):
            return jax.nn.one_hot(targets, outputs)
        if targets.ndim != 2 or targets.shape[1] != outputs:
            raise ValueError(
                f"`SoftmaxCrossEntropy` needs integer labels [n] or probabilities [n, {outputs}]; got shape "
                f"{targets.shape}, dtype {targets.dtype}. Use labels 0..{outputs - 1} as integers."
            )
        return targets

    def value(self, outputs, targets):
        """−Σ_k y_k log P_k."""
        return -jnp.sum(targets * jax.nn.log_softmax(outputs), axis=-1)

    def gradient(self, outputs, targets):
        """Returns P − y."""
        return jax.nn.softmax(outputs) - targets

    def hessian_factor(self, outputs, targets):
        """diag(q) − P qᵀ, applied in O(c)."""
        del targets
        return SoftmaxFactor(self._root(outputs))

    def whitened_residual(self, outputs, targets):
        """Returns q − y/q."""
        root = self._root(outputs)
        return root - targets / root

    @staticmethod
    def _root(outputs: Float[Array, "n c"]) -> Float[Array, "n c"]:
        # √P from log P, kept above the square root of the smallest normal number: 1/q and its square stay finite.
        floor = 0.5 * jnp.log(jnp.finfo(outputs.dtype).tiny)
        return jnp.exp(jnp.maximum(0.5 * jax.nn.log_softmax(outputs), 0.5 * floor))


class BinaryCrossEntropy(AbstractLoss):
    """Cross-entropy of σ(o) with targets in [0, 1], each output by itself.

    ℓ = log(1 + e^o) − y o, S = √(P(1−P)) = 1/(2 cosh(o/2)), r = (1−y) e^{o/2} − y e^{−o/2}: the quotient (P−y)/S
    written without a division.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = BinaryCrossEntropy()
        >>> bool(jnp.allclose(loss.gradient(jnp.zeros((1, 1)), jnp.ones((1, 1))), -0.5))
        True
    """

    name: ClassVar[str] = "binary cross-entropy"

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n] or [n, outputs] in [0, 1], booleans allowed."""
        return _as_columns(targets, outputs, "BinaryCrossEntropy")

    def value(self, outputs, targets):
        """Returns log(1 + e^o) − y o, summed over the outputs."""
        return jnp.sum(jnp.logaddexp(outputs, 0.0) - targets * outputs, axis=-1)

    def gradient(self, outputs, targets):
        """σ(o) − y."""
        return jax.nn.sigmoid(outputs) - targets

    def hessian_factor(self, outputs, targets):
        """1/(2 cosh(o/2)) on the diagonal."""
        del targets
        return DiagonalFactor(0.5 / jnp.cosh(self._half(outputs)))

    def whitened_residual(self, outputs, targets):
        """(1−y) e^{o/2} − y e^{−o/2}."""
        half = self._half(outputs)
        return (1 - targets) * jnp.exp(half) - targets * jnp.exp(-half)

    @staticmethod
    def _half(outputs: Float[Array, "n c"]) -> Float[Array, "n c"]:
        limit = -0.25 * jnp.log(jnp.finfo(outputs.dtype).tiny)
        return jnp.clip(0.5 * outputs, -limit, limit)
