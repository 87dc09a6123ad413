"""The loss Hessian's factor S of each row, in its structure: no identity, diagonal or rank-one matrix is formed."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractHessianFactor(eqx.Module):
    """S [n, c, k] with S Sᵀ = ∂²ℓ/∂o² a row, as an operator."""

    @abstractmethod
    def transpose_mv(self, x: Float[Array, "n c *d"]) -> Float[Array, "n k *d"]:
        """Sᵀ x, for every row and every trailing index."""

    @abstractmethod
    def transpose_solve(self, v: Float[Array, "n k"]) -> Float[Array, "n c"]:
        """x with Sᵀ x = v for a v in the range of Sᵀ; of several, any: the loss does not see their difference."""


def _along_rows(v: Float[Array, "n *c"], x: Array) -> Array:
    """`v` with trailing axes of length 1 added, so that it broadcasts against `x`."""
    return v.reshape(v.shape + (1,) * (x.ndim - v.ndim))


class DiagonalFactor(AbstractHessianFactor):
    """S = diag(d), d [n, c]."""

    diagonal: Float[Array, "n c"]

    def transpose_mv(self, x):
        """Returns d ∘ x."""
        return _along_rows(self.diagonal, x) * x

    def transpose_solve(self, v):
        """Returns v / d."""
        return v / self.diagonal


class SoftmaxFactor(AbstractHessianFactor):
    """S = diag(q) − P qᵀ with q = √P [n, c]: Sᵀ x = q ∘ (x − P·x) in O(c), where the matrix would take O(c²)."""

    root: Float[Array, "n c"]

    def transpose_mv(self, x):
        """Returns q ∘ (x − P·x)."""
        root = _along_rows(self.root, x)
        return root * (x - jnp.sum(root**2 * x, axis=1, keepdims=True))

    def transpose_solve(self, v):
        """Returns v / q, which has P·x = q·v = 0 for v in the range."""
        return v / self.root
