"""The Jacobian as an array [n, k, p]: any callable on pytrees, at the price of n·k·p numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..linalg import upper_product
from .base import AbstractJacobian


class DenseJacobian(AbstractJacobian):
    """J materialised."""

    matrix: Float[Array, "n k p"]

    @property
    def shape(self):
        """(n, k, p)."""
        n, k, p = self.matrix.shape
        return n, k, p

    def mv(self, v):
        """J v."""
        return self.matrix @ v

    def rmv(self, u):
        """Jᵀ u."""
        return jnp.einsum("nkp,nk->p", self.matrix, u)

    def transform(self, rowwise):
        """`rowwise` applied to the columns."""
        return DenseJacobian(rowwise(self.matrix))

    def diagonal_cross_gram(self, other, metric):
        """(J₁ D^½) (J₂ D^½)ᵀ."""
        root = jnp.sqrt(metric.diagonal(self.shape[2]))
        return (self.rows() * root) @ (other.rows() * root).T

    def diagonal_gram(self, metric):
        """Upper triangle of (J D^½) (J D^½)ᵀ."""
        return upper_product(self.rows() * jnp.sqrt(metric.diagonal(self.shape[2])))

    def squared_norms(self):
        """Σ J² a row."""
        return jnp.sum(self.matrix**2, axis=2)

    def squared(self):
        """J²."""
        return DenseJacobian(self.matrix**2)

    def images(self, metric):
        """Sums of J w over the columns of each group."""
        return metric.groups.total(self.matrix * metric.along)

    def normal(self, root):
        """Upper triangle of (J R)ᵀ (J R)."""
        return upper_product(root.rmv(self.rows()).T)

    def rows(self):
        """J."""
        return self.matrix.reshape(-1, self.shape[2])


def dense_jacobian(
    model: Callable, unravel: Callable, flat: Float[Array, " p"], inputs
) -> tuple[Float[Array, "n c"], DenseJacobian]:
    """Outputs and Jacobian of any callable, a row at a time.

    By `vmap(jacrev)` of one row, never `jacrev` of the batch: the latter carries n² blocks of which n are non-zero,
    and was eleven times slower on 256 rows of 10 outputs.
    """

    def one(flat, row):
        outputs = model(unravel(flat), jax.tree.map(lambda leaf: leaf[None], row))
        return outputs[0], outputs[0]

    matrix, outputs = jax.vmap(jax.jacrev(one, has_aux=True), in_axes=(None, 0))(flat, inputs)
    return outputs, DenseJacobian(matrix)
