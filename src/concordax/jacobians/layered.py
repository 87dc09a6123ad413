"""The Jacobian of a dense network as its layers' factors.

G [n, k, d_out] holds the derivatives by a layer's pre-activations (one backward pass an output), A [n, d_in] the
layer's inputs, a bias being one more column of ones. J v and Jᵀ u are then two small products a layer, and n·k·p
numbers are never stored.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..linalg import sum_of, upper_product, upper_triangle
from ..metrics import AbstractMetric, GroupMetric, ScalarMetric
from ..models import LayeredModel
from . import base
from .base import AbstractJacobian
from .factors import LayerFactors, hadamard, scaled_product
from .pairs import pair_gram, pairs_pay


class LayeredJacobian(AbstractJacobian):
    """J held as one pair of factors a layer."""

    layers: tuple[LayerFactors, ...]

    @property
    def shape(self):
        """(n, k, p)."""
        n, k, _ = self.layers[0].backward.shape
        return n, k, sum(layer.size for layer in self.layers)

    def _pieces(self, v) -> list:
        """A flat vector, of JAX or NumPy, cut at the layers, each piece as [d_out, d_in]."""
        ends = accumulate(layer.size for layer in self.layers)
        return [layer.matrix(v[..., end - layer.size : end]) for layer, end in zip(self.layers, ends, strict=True)]

    def mv(self, v):
        """Σ_layers G (V a): two products a layer."""
        return sum_of([layer.mv(piece) for layer, piece in zip(self.layers, self._pieces(v), strict=True)])

    def rmv(self, u):
        """For each layer (Gᵀ u)ᵀ A."""
        return jnp.concatenate([layer.flat(layer.rmv(u)) for layer in self.layers])

    def transform(self, rowwise):
        """`rowwise` acts on the backward factors alone."""
        return LayeredJacobian(
            tuple(LayerFactors(rowwise(layer.backward), layer.forward, layer.bias) for layer in self.layers)
        )

    def squared_norms(self):
        """Σ_layers ‖G‖² ‖A‖² a row."""
        parts = [jnp.sum(f.backward**2, axis=2) * jnp.sum(f.forward**2, axis=1)[:, None] for f in self.layers]
        return sum_of(parts)

    def squared(self):
        """G² and A²."""
        squares = [LayerFactors(layer.backward**2, layer.forward**2, layer.bias) for layer in self.layers]
        return LayeredJacobian(tuple(squares))

    def images(self, metric):
        """Layer by layer, a group's parts added up."""
        groups, along = metric.groups, self._pieces(metric.along)
        pairs = zip(self.layers, along, self._pieces(groups.labels), strict=True)
        return sum_of([layer.images(piece, labels, groups.count) for layer, piece, labels in pairs])

    def diagonal_gram(self, metric):
        """Hadamard products a layer where H is a multiple of I; else by pairs of examples, or J D^½ times itself."""
        if isinstance(metric, ScalarMetric):
            return self.structured_gram(metric)
        n, k, size = self.shape
        if pairs_pay(n, k, [layer.matrix_shape for layer in self.layers]):
            return pair_gram(self.layers, self._pieces(metric.diagonal(size)))
        roots = self._pieces(jnp.sqrt(metric.diagonal(size)))
        if math.prod(self.shape) <= base.CHUNK_ELEMENTS:
            # Each row scaled once, and all layers in one product.
            return upper_product(self._columns(roots))
        return self._upper(
            lambda one, two, root: scaled_product(one, two, root, base.CHUNK_ELEMENTS), self.layers, roots
        )

    def structured_gram(self, metric: AbstractMetric) -> Float[Array, "nk nk"]:
        """Upper triangle of Σ_layers (G e^a Gᵀ) ∘ (A e^b Aᵀ): J D Jᵀ where log D_ij = a_i + b_j in each layer.

        What groups add to J D Jᵀ is there in full: it is the largest part where groups are large.

        At N² (d_in + d_out) a layer, where the Gram of a general D costs N² d_in d_out. Of a general D, a_i and b_j are
        the least squares of log D. Means of rows and columns of D itself do as well at random weights, but not on a
        trained network: 61 iterations a step against 25 on a table of 1000 rows at μ = 3.
        """
        # Each side scaled by the root, once: in every block it would be the larger part of what is not a product.
        scaled = [layer.scaled(*root) for layer, root in zip(self.layers, self._scales(metric), strict=True)]
        gram = self._upper(hadamard, scaled)
        return gram + upper_product(self._images(metric)) if isinstance(metric, GroupMetric) else gram

    def _upper(self, product: Callable, layers: Sequence[LayerFactors], *scales: list) -> Float[Array, "nk nk"]:
        """The upper triangle of the sum over layers of `product(rows i, rows j, scale)`."""
        n, k, _ = self.shape

        def block(i, j, count):
            parts = zip(layers, *scales, strict=True)
            return sum_of([product(layer.rows(i, count), layer.rows(j, count), *scale) for layer, *scale in parts])

        return upper_triangle(n, block, self.layers[0].backward.dtype, unit=k)

    def _scales(self, metric: AbstractMetric) -> list[tuple[Array, Array]]:
        """(e^{a/2} [d_out], e^{b/2} [d_in]) a layer."""
        if isinstance(metric, ScalarMetric):
            return [(jnp.sqrt(metric.inverse), jnp.ones_like(metric.inverse))] * len(self.layers)
        inverse = metric.diagonal(self.shape[2])
        # In float32, in half the time: a fit need not be known to more digits. Of all layers at once: of a layer of
        # few inputs alone, XLA unrolls the loop over them, to ten times the code.
        logarithm = jnp.log(jnp.maximum(inverse.astype(jnp.float32), jnp.finfo(jnp.float32).tiny))
        halves = []
        for piece in self._pieces(jax.lax.optimization_barrier(logarithm)):
            row, column = (jnp.mean(piece, axis=axis) for axis in (1, 0))
            halves += [0.5 * row, 0.5 * (column - jnp.mean(row))]
        roots = jnp.exp(jax.lax.optimization_barrier(jnp.concatenate(halves))).astype(inverse.dtype)
        parts = jnp.split(roots, list(accumulate(half.size for half in halves))[:-1])
        return list(zip(parts[::2], parts[1::2], strict=True))

    def diagonal_cross_gram(self, other, metric):
        """Hadamard products where H is a multiple of I; else products of J D^½ in bounded chunks."""
        if not isinstance(other, LayeredJacobian):
            raise TypeError("a layered Jacobian has a Gram with another layered one of the same model only.")
        pairs = list(zip(self.layers, other.layers, strict=True))
        if isinstance(metric, ScalarMetric):
            return metric.inverse * sum_of([hadamard(one, two) for one, two in pairs])
        roots = self._pieces(jnp.sqrt(metric.diagonal(self.shape[2])))
        if max(math.prod(self.shape), math.prod(other.shape)) <= base.CHUNK_ELEMENTS:
            return self._columns(roots) @ other._columns(roots).T
        return sum_of(
            [scaled_product(*pair, root, base.CHUNK_ELEMENTS) for pair, root in zip(pairs, roots, strict=True)]
        )

    def _columns(self, roots: list[Array]) -> Float[Array, "nk p"]:
        """J D^½ with the columns in the order of the layers' matrices, unsorted: a Gram does not see it."""
        return jnp.concatenate(
            [layer.scaled_rows(root) for layer, root in zip(self.layers, roots, strict=True)], axis=1
        )

    def normal(self, root):
        """Upper triangle of Rᵀ Jᵀ J R, accumulated over chunks of rows."""
        size = self.shape[2]

        def add(total, part):
            return total + upper_product(root.rmv(part.rows()).T), None

        return jax.lax.scan(add, jnp.zeros((size, size), root.scale.dtype), self.in_chunks())[0]

    def rows(self):
        """J, the layers side by side."""
        parts = [layer.flat(layer.scaled_rows(1.0).reshape(-1, *layer.matrix_shape)) for layer in self.layers]
        return jnp.concatenate(parts, axis=1)


def layered_jacobian(
    model: LayeredModel, params, inputs: Float[Array, "n d"]
) -> tuple[Float[Array, "n c"], LayeredJacobian]:
    """Outputs and factors of a layered model: one backward pass an output, for all rows at once."""
    taps = tuple(jnp.zeros((inputs.shape[0], layer.weight.shape[0]), layer.weight.dtype) for layer in params)
    outputs, pullback, forwards = jax.vjp(lambda t: model.tapped(params, inputs, t), taps, has_aux=True)
    # Row i of the outputs depends on row i of the taps alone: one cotangent of ones serves every row.
    rows, columns = outputs.shape
    basis = jnp.broadcast_to(jnp.eye(columns, dtype=outputs.dtype), (rows, columns, columns))
    (backwards,) = jax.vmap(pullback, in_axes=1, out_axes=1)(basis)

    layers = tuple(
        LayerFactors(backward, forward, layer.bias is not None)
        for backward, forward, layer in zip(backwards, forwards, params, strict=True)
    )
    return outputs, LayeredJacobian(layers)
