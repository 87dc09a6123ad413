"""The loss Hessian's factor S of each row, in its structure: no identity, diagonal or rank-one matrix is formed."""

from abc import abstractmethod
from itertools import accumulate

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


class DenseFactor(AbstractHessianFactor):
    """S [n, c, k] as a matrix, with a T [n, c, k] such that Sᵀ T v = v for every v in the range of Sᵀ."""

    matrix: Float[Array, "n c k"]
    dual: Float[Array, "n c k"]

    def transpose_mv(self, x):
        """Returns Sᵀ x."""
        return jnp.einsum("nck,nc...->nk...", self.matrix, x)

    def transpose_solve(self, v):
        """Returns T v."""
        return jnp.einsum("nck,nk->nc", self.dual, v)


class BlockFactor(AbstractHessianFactor):
    """Factors of consecutive slices of the outputs, √w each: S = diag(√w₁ S₁, √w₂ S₂, …)."""

    blocks: tuple[AbstractHessianFactor, ...]
    widths: tuple[int, ...] = eqx.field(static=True)
    roots: tuple[float, ...] = eqx.field(static=True)

    def transpose_mv(self, x):
        """Returns √w Sᵀ x, slice by slice."""
        parts = zip(self.blocks, self.roots, in_slices(x, self.widths), strict=True)
        return jnp.concatenate([root * block.transpose_mv(part) for block, root, part in parts], axis=1)

    def transpose_solve(self, v):
        """Slice by slice."""
        parts = zip(self.blocks, self.roots, in_slices(v, self.widths), strict=True)
        return jnp.concatenate([block.transpose_solve(part / root) for block, root, part in parts], axis=1)


def in_slices(x, widths: tuple[int, ...]) -> list:
    """The columns of `x` in consecutive groups of `widths`."""
    ends = list(accumulate(widths))
    return [x[:, end - width : end] for width, end in zip(widths, ends, strict=True)]
