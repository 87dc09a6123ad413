"""The factors of one dense layer: for row i, output a, weight (o, d) the Jacobian is G[i,a,o]·A[i,d]."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg import product_transposed, transposed_product


class LayerFactors(eqx.Module):
    """G [n, k, d_out] by a layer's pre-activations, A [n, d_in] its inputs; `bias`: A ends in the bias's column."""

    backward: Float[Array, "n k d_out"]
    forward: Float[Array, "n d_in"]
    bias: bool = eqx.field(static=True)

    def rows(self, start: Array, count: int) -> "LayerFactors":
        """The factors of `count` examples from `start` on."""
        backward = jax.lax.dynamic_slice_in_dim(self.backward, start, count)
        return LayerFactors(backward, jax.lax.dynamic_slice_in_dim(self.forward, start, count), self.bias)

    def scaled(self, row: Array, column: Array) -> "LayerFactors":
        """G diag(row) and A diag(column)."""
        return LayerFactors(self.backward * row, self.forward * column, self.bias)

    @property
    def size(self) -> int:
        """Parameters of the layer."""
        return self.backward.shape[2] * self.forward.shape[1]

    def matrix(self, flat):
        """A flat piece [*b, p] of a vector (weights row by row, then the bias) as [*b, d_out, d_in], the bias last.

        Of a NumPy array it makes a NumPy array: labels of groups stay known while a program is traced.
        """
        concatenate = np.concatenate if isinstance(flat, np.ndarray) else jnp.concatenate
        d_out, d_in = self.matrix_shape
        lead = flat.shape[:-1]
        if not self.bias:
            return flat.reshape(*lead, d_out, d_in)
        weight = flat[..., : d_out * (d_in - 1)].reshape(*lead, d_out, d_in - 1)
        return concatenate([weight, flat[..., d_out * (d_in - 1) :, None]], axis=-1)

    def flat(self, matrix: Float[Array, "*b d_out d_in"]) -> Float[Array, "*b p"]:
        """The inverse of `matrix`."""
        lead = matrix.shape[:-2]
        if not self.bias:
            return matrix.reshape(*lead, -1)
        return jnp.concatenate([matrix[..., :-1].reshape(*lead, -1), matrix[..., -1]], axis=-1)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.backward.shape[2], self.forward.shape[1]

    def mv(self, weight: Float[Array, "d_out d_in"]) -> Float[Array, "n k"]:
        """G (V a) for every example."""
        if self._narrow:
            return jnp.sum((self.backward[:, 0] @ weight) * self.forward, axis=1, keepdims=True)
        return jnp.einsum("nko,no->nk", self.backward, product_transposed(self.forward, weight))

    def rmv(self, u: Float[Array, "n k"]) -> Float[Array, "d_out d_in"]:
        """Σ over examples of (Gᵀ u) aᵀ."""
        if self._narrow:
            return transposed_product(self.backward[:, 0], u * self.forward)
        return transposed_product(jnp.einsum("nko,nk->no", self.backward, u), self.forward)

    @property
    def _narrow(self) -> bool:
        """Whether to take the product with G first: what lies between is then [n, d_in] instead of [n, d_out]."""
        _, k, d_out = self.backward.shape
        return k == 1 and d_out > self.forward.shape[1]

    def images(self, along: Float[Array, "d_out d_in"], labels: np.ndarray, count: int) -> Float[Array, "n k g"]:
        """Sums over each group of the columns of J times `along`; a negative label [d_out, d_in] is in no group.

        Groups that are rows or columns of the layer take two thin products; any others all n·k·p numbers once.
        """
        n, k, _ = self.backward.shape
        total = jnp.zeros((n, k, count + 1), self.backward.dtype)
        labels = np.where(labels < 0, count, labels)
        if np.all(labels == count):
            return total[..., :count]
        if np.all(labels == labels[:1]):
            parts = jnp.einsum("nko,od->nkd", self.backward, along) * self.forward[:, None, :]
            return total.at[..., labels[0]].add(parts)[..., :count]
        if np.all(labels[:, :-1] == labels[:, :1]) and (self.bias or np.all(labels[:, -1] == labels[:, 0])):
            # The bias's column may have labels of its own: a unit's, or none.
            last = -1 if self.bias else None
            inner = self.backward * (self.forward[:, :last] @ along[:, :last].T)[:, None, :]
            total = total.at[..., labels[:, 0]].add(inner)
            if self.bias:
                outer = self.backward * (self.forward[:, -1:] * along[:, -1])[:, None, :]
                total = total.at[..., labels[:, -1]].add(outer)
            return total[..., :count]

        def add(total, unit):
            backward, row, where = unit
            return total.at[..., where].add(backward[..., None] * (self.forward * row)[:, None, :]), None

        units = (jnp.moveaxis(self.backward, 2, 0), along, jnp.asarray(labels))
        return jax.lax.scan(add, total, units)[0][..., :count]

    def scaled_rows(self, root: Float[Array, "d_out d_in"] | float) -> Float[Array, "nk p"]:
        """J diag(root), materialised, the columns in the order of `matrix`."""
        return (self.backward[..., :, None] * (self.forward[:, None, None, :] * root)).reshape(-1, self.size)


def hadamard(left: LayerFactors, right: LayerFactors) -> Float[Array, "nk mk"]:
    """(G₁ G₂ᵀ) ∘ (A₁ A₂ᵀ): the Gram of one layer, at N²(d_in + d_out)."""
    outer = jnp.einsum("nko,mlo->nkml", left.backward, right.backward)
    inner = (left.forward @ right.forward.T)[:, None, :, None]
    n, k, _ = left.backward.shape
    return (outer * inner).reshape(n * k, -1)


def scaled_product(
    left: LayerFactors, right: LayerFactors, root: Float[Array, "d_out d_in"], elements: int
) -> Float[Array, "nk mk"]:
    """(J₁ D^½)(J₂ D^½)ᵀ of one layer, over blocks of output units that hold at most `elements` numbers each."""
    d_out, d_in = root.shape
    rows = [f.backward.shape[0] * f.backward.shape[1] for f in (left, right)]
    units = max(1, min(d_out, elements // (max(rows) * d_in)))
    blocks = -(-d_out // units)

    def split(x: Array, axis: int) -> Array:
        # The last block is filled up with zeros; the blocks lead.
        widths = [(0, blocks * units - d_out) if a == axis else (0, 0) for a in range(x.ndim)]
        cut = jnp.pad(x, widths).reshape(*x.shape[:axis], blocks, units, *x.shape[axis + 1 :])
        return jnp.moveaxis(cut, axis, 0)

    def add(total, chunk):
        part, *backwards = chunk
        one, two = (
            LayerFactors(backward, factors.forward, bias=False).scaled_rows(part)
            for backward, factors in zip(backwards, (left, right), strict=True)
        )
        return total + one @ two.T, None

    chunks = (split(root, 0), split(left.backward, 2), split(right.backward, 2))
    return jax.lax.scan(add, jnp.zeros(rows, root.dtype), chunks)[0]
