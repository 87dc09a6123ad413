"""The two symmetric forms a step is made of: the loss Hessian's factor S, a row, and the regularizer's Hessian H.

Both are kept in their structure: no identity, diagonal or rank-one matrix is ever formed.
"""

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


class AbstractMetric(eqx.Module):
    """The regularizer's Hessian H [p, p], positive definite, as the operators that a step needs."""

    @abstractmethod
    def solve(self, x: Float[Array, "*n p"]) -> Float[Array, "*n p"]:
        """H⁻¹ x."""

    @abstractmethod
    def mv(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """H x."""

    @abstractmethod
    def squared_norm(self, x: Float[Array, " p"]) -> Float[Array, ""]:
        """‖x‖²_H = xᵀ H x."""

    @abstractmethod
    def inverse_diagonal(self, size: int) -> Float[Array, " p"]:
        """The diagonal of H⁻¹."""


class ScalarMetric(AbstractMetric):
    """H = I/d: one number. Layered Grams are then exact Hadamard products, at layer price."""

    inverse: Float[Array, ""]

    def solve(self, x):
        """Returns d x."""
        return self.inverse * x

    def mv(self, x):
        """Returns x/d."""
        return x / self.inverse

    def squared_norm(self, x):
        """‖x‖²/d."""
        return jnp.sum(x**2) / self.inverse

    def inverse_diagonal(self, size):
        """Returns d, repeated."""
        return jnp.full((size,), self.inverse)


class DiagonalMetric(AbstractMetric):
    """H = diag(1/d), d [p] positive."""

    inverse: Float[Array, " p"]

    def solve(self, x):
        """Returns d ∘ x."""
        return self.inverse * x

    def mv(self, x):
        """Returns x/d."""
        return x / self.inverse

    def squared_norm(self, x):
        """Σ x²/d."""
        return jnp.sum(x**2 / self.inverse)

    def inverse_diagonal(self, size):
        """Returns d."""
        del size
        return self.inverse


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
