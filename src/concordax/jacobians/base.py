"""What a linearised model can do, whichever way its Jacobian is held."""

import math
from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..linalg import upper_product
from ..metrics import AbstractMetric, GroupMetric, Root, ScalarMetric

# Numbers that one chunk of a materialised Jacobian may hold: 1 M, 8 MB in float64. The products are at the processor's
# peak by then; more would only be memory, fetched from the system anew at each step.
CHUNK_ELEMENTS = 2**20


class AbstractJacobian(eqx.Module):
    """J [n, k, p]: derivative of k numbers a row (outputs, or whitened outputs) by p parameters.

    Rows of a Gram are ordered example first: index i·k + a.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(n, k, p)."""

    @abstractmethod
    def mv(self, v: Float[Array, " p"]) -> Float[Array, "n k"]:
        """J v."""

    @abstractmethod
    def rmv(self, u: Float[Array, "n k"]) -> Float[Array, " p"]:
        """Jᵀ u."""

    @abstractmethod
    def transform(self, rowwise: Callable[[Array], Array]) -> "AbstractJacobian":
        """The Jacobian of a linear map of each row's outputs; `rowwise` maps [n, k, *d] to [n, k', *d]."""

    def cross_gram(self, other: "AbstractJacobian", metric: AbstractMetric) -> Float[Array, "nk mk"]:
        """J₁ H⁻¹ J₂ᵀ."""
        gram = self.diagonal_cross_gram(other, metric)
        return gram + self._images(metric) @ other._images(metric).T if isinstance(metric, GroupMetric) else gram

    def gram(self, metric: AbstractMetric) -> Float[Array, "nk nk"]:
        """The upper triangle of J H⁻¹ Jᵀ: that of J D Jᵀ, and the images of the groups' vectors times themselves."""
        gram = self.diagonal_gram(metric)
        return gram + upper_product(self._images(metric)) if isinstance(metric, GroupMetric) else gram

    def gram_diagonal(self, metric: AbstractMetric) -> Float[Array, "n k"]:
        """The diagonal of J H⁻¹ Jᵀ, at the price of one product with J, or two."""
        n, k, size = self.shape
        if isinstance(metric, ScalarMetric):
            # Not by a product with a vector of equal numbers: XLA (jaxlib 0.10.2, CPU) compiles products with a
            # broadcast into garbage where a layer has some 800 inputs.
            return metric.inverse * self.squared_norms()
        diagonal = self.squared().mv(metric.diagonal(size))
        if not isinstance(metric, GroupMetric):
            return diagonal
        return diagonal + jnp.sum(self._images(metric) ** 2, axis=1).reshape(n, k)

    @abstractmethod
    def normal(self, root: Root) -> Float[Array, "p p"]:
        """The upper triangle of Rᵀ Jᵀ J R."""

    @abstractmethod
    def rows(self) -> Float[Array, "nk p"]:
        """J, materialised: for few rows."""

    @abstractmethod
    def diagonal_cross_gram(self, other: "AbstractJacobian", metric: AbstractMetric) -> Float[Array, "nk mk"]:
        """J₁ D J₂ᵀ, with D the diagonal part of H⁻¹."""

    @abstractmethod
    def diagonal_gram(self, metric: AbstractMetric) -> Float[Array, "nk nk"]:
        """The upper triangle of J D Jᵀ."""

    @abstractmethod
    def squared_norms(self) -> Float[Array, "n k"]:
        """‖J_ia‖² of each row."""

    @abstractmethod
    def squared(self) -> "AbstractJacobian":
        """The squares of all entries."""

    @abstractmethod
    def images(self, metric: GroupMetric) -> Float[Array, "n k g"]:
        """J w of each group's vector w."""

    def _images(self, metric: GroupMetric) -> Float[Array, "nk g"]:
        n, k, _ = self.shape
        return self.images(metric).reshape(n * k, -1)

    def in_chunks(self) -> "AbstractJacobian":
        """The rows in chunks of bounded size: a leading axis on every leaf, rows of zeros at the end."""
        n, k, size = self.shape
        rows = max(1, min(n, CHUNK_ELEMENTS // (k * size)))
        chunks = math.ceil(n / rows)

        return cut_in_chunks(self, n, chunks, rows)


def cut_in_chunks(tree: PyTree, count: int, chunks: int, rows: int, mode: str = "constant") -> PyTree:
    """Leaves of `count` rows as [chunks, rows, ...], filled up at the end as `jnp.pad` does in that mode."""

    def cut(leaf: Array) -> Array:
        widths = [(0, chunks * rows - count), *[(0, 0)] * (leaf.ndim - 1)]
        return jnp.pad(leaf, widths, mode=mode).reshape(chunks, rows, *leaf.shape[1:])

    return jax.tree.map(cut, tree)
