"""The losses of classes: softmax and binary cross-entropy."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..curvature import DiagonalFactor, SoftmaxFactor
from .base import AbstractLoss, as_columns


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
    takes_labels: ClassVar[bool] = True

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

    def check(self, targets, outputs):
        """Labels of classes that the model has, or rows of probabilities."""
        if targets.min() < 0:
            raise ValueError(f"`SoftmaxCrossEntropy` needs labels or probabilities from 0 up; got {targets.min():g}.")
        if targets.ndim == 1 and targets.max() >= outputs:
            raise ValueError(
                f"`SoftmaxCrossEntropy` needs labels 0..{outputs - 1} for a model with {outputs} outputs; the largest "
                f"label is {targets.max()}. Encode the labels as consecutive whole numbers, or give the model more "
                "outputs."
            )
        if targets.ndim == 2 and not np.allclose(targets.sum(axis=1), 1, atol=1e-4):
            worst = int(np.argmax(np.abs(targets.sum(axis=1) - 1)))
            raise ValueError(
                f"`SoftmaxCrossEntropy` needs probabilities that sum to 1 in each row; row {worst} sums to "
                f"{targets[worst].sum():g}. Divide each row by its sum, or pass integer labels."
            )

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

    def concordance(self, slopes):
        """The largest spread of a row's slopes, max_k s_k − min_k s_k."""
        return jnp.max(jnp.max(slopes, axis=1) - jnp.min(slopes, axis=1))

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
        return as_columns(targets, outputs, "BinaryCrossEntropy")

    def check(self, targets, outputs):
        """Targets from 0 to 1."""
        del outputs
        if targets.min() < 0 or targets.max() > 1:
            raise ValueError(
                f"`BinaryCrossEntropy` needs targets in [0, 1]; got {targets.min():g} to {targets.max():g}. "
                "Encode the two classes as 0 and 1."
            )

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

    def concordance(self, slopes):
        """max|s|."""
        return jnp.max(jnp.abs(slopes))

    @staticmethod
    def _half(outputs: Float[Array, "n c"]) -> Float[Array, "n c"]:
        limit = -0.25 * jnp.log(jnp.finfo(outputs.dtype).tiny)
        return jnp.clip(0.5 * outputs, -limit, limit)
