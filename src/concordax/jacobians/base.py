"""What a linearised model can do, whichever way its Jacobian is held."""

import math
from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature import AbstractMetric

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

    @abstractmethod
    def cross_gram(self, other: "AbstractJacobian", metric: AbstractMetric) -> Float[Array, "nk mk"]:
        """J₁ D J₂ᵀ, with D the inverse diagonal of the metric."""

    @abstractmethod
    def gram(self, metric: AbstractMetric) -> Float[Array, "nk nk"]:
        """The upper triangle of J D Jᵀ."""

    @abstractmethod
    def normal(self, metric: AbstractMetric) -> Float[Array, "p p"]:
        """The upper triangle of D^½ Jᵀ J D^½."""

    @abstractmethod
    def scaled_rows(self, root: Float[Array, " p"]) -> Float[Array, "nk p"]:
        """J diag(root), materialised: for few rows."""

    def in_chunks(self) -> "AbstractJacobian":
        """The rows in chunks of bounded size: a leading axis on every leaf, rows of zeros at the end."""
        n, k, size = self.shape
        rows = max(1, min(n, CHUNK_ELEMENTS // (k * size)))
        chunks = math.ceil(n / rows)

        def cut(leaf: Array) -> Array:
            widths = [(0, chunks * rows - n), *[(0, 0)] * (leaf.ndim - 1)]
            return jnp.pad(leaf, widths).reshape(chunks, rows, *leaf.shape[1:])

        return jax.tree.map(cut, self)

    @abstractmethod
    def gram_diagonal(self, metric: AbstractMetric) -> Float[Array, "n k"]:
        """The diagonal of J D Jᵀ, at the price of one product with J."""
