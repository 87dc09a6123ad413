"""What is refused before a kernel is computed, and in which blocks of rows it is."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._checks import check_finite
from ..metrics import AbstractMetric, DiagonalMetric, GroupMetric, ScalarMetric
from ..models import LayeredModel, layer_shapes
from ..regularizers import AbstractRegularizer
from ..solvers.memory import free_bytes

# Shares of the memory that is free: what a result may take, and what one block of rows may work on.
RESULT_SHARE, BLOCK_SHARE = 0.5, 0.125
# Rows of a block at most: products are at the processor's peak long before.
_MOST_ROWS = 1024


def check_rows(call: str, argument: str, rows: PyTree) -> int:
    """The number of rows; raises ValueError where there are none, or one is not finite."""
    leaves = jax.tree.leaves(rows)
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves) or np.shape(leaves[0])[0] == 0:
        shapes = [np.shape(leaf) for leaf in leaves]
        raise ValueError(
            f"`{call}({argument}=...)` holds no rows; it needs shape [n, d] with n at least 1, not {shapes}."
        )
    if any(np.shape(leaf)[0] != np.shape(leaves[0])[0] for leaf in leaves):
        shapes = [np.shape(leaf) for leaf in leaves]
        raise ValueError(f"`{call}({argument}=...)`: its arrays must have the same number of rows; got {shapes}.")
    for leaf in leaves:
        check_finite(f"`{call}({argument}=...)`", leaf)
    return np.shape(leaves[0])[0]


def check_same_features(call: str, x1: PyTree, x2: PyTree) -> None:
    """Raises ValueError unless the rows of both have the same shapes."""
    shapes = [[np.shape(leaf)[1:] for leaf in jax.tree.leaves(x)] for x in (x1, x2)]
    if jax.tree.structure(x1) != jax.tree.structure(x2) or shapes[0] != shapes[1]:
        raise ValueError(
            f"`{call}(x1, x2)`: both need the same features; a row of x1 has shape {shapes[0]}, of x2 {shapes[1]}."
        )


class Network(NamedTuple):
    """A model at its parameters, with H⁻¹ and the sizes that decide how many rows a block has."""

    model: Callable
    unravel: Callable
    flat: Float[Array, " p"]
    metric: AbstractMetric
    outputs: int

    @property
    def numbers(self) -> int:
        """Numbers that the Jacobian of one row takes, with its copies."""
        groups = self.metric.groups.count if isinstance(self.metric, GroupMetric) else 0
        if not isinstance(self.model, LayeredModel):
            return 3 * self.outputs * (self.flat.size + groups)
        shapes = layer_shapes(self.unravel(self.flat))
        width = self.outputs * sum(d_out for d_out, _ in shapes) + sum(d_in for _, d_in in shapes)
        # Groups that are neither rows nor columns of a layer are summed with one number for each of them.
        return 3 * width + 2 * self.outputs * groups


def as_rows(network: Network, rows: PyTree) -> PyTree:
    """The rows as NumPy arrays, floating ones in the precision of the parameters.

    Blocks of them are then views; slices of JAX arrays would be compiled, one for each block.
    """
    dtype = network.flat.dtype
    cast = lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    return jax.tree.map(lambda leaf: cast(np.asarray(leaf)), rows)


def check_network(call: str, model: Callable, params: PyTree, rows: PyTree, metric) -> Network:
    """The model at its parameters; raises for what the public functions say."""
    flat, unravel = ravel_pytree(params)
    if not flat.size:
        raise ValueError(f"`{call}(params=...)` holds no parameters; a kernel needs something to differentiate by.")
    check_finite(f"`{call}(params=...)`", flat, "`explain(result)` says why a run ended so.")
    example = jax.tree.map(lambda leaf: np.asarray(leaf)[:1], rows)
    shape = jax.eval_shape(lambda p, x: model(p, x), params, example).shape
    if len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"`{call}(model=...)` must return [n, outputs] for n rows; it returned {shape} for one row.")
    return Network(model, unravel, flat, _as_metric(call, metric, flat), shape[1])


def _as_metric(call: str, metric, flat: Float[Array, " p"]) -> AbstractMetric:
    if metric is None:
        return ScalarMetric(jnp.ones((), flat.dtype))
    if isinstance(metric, AbstractRegularizer):
        metric = metric.metric(flat)
    if not isinstance(metric, AbstractMetric):
        raise TypeError(
            f"`{call}(metric={metric!r})`: must be None, a regularizer as cx.L2(), or what its `metric` returns."
        )
    size = metric.inverse.size if isinstance(metric, DiagonalMetric | GroupMetric) else flat.size
    if size != flat.size:
        raise ValueError(
            f"`{call}(metric=...)` is of {size} parameters; the model has {flat.size}. Build it from the same ones."
        )
    for leaf in jax.tree.leaves(metric):
        check_finite(f"`{call}(metric=...)`", leaf, "Use a larger smoothing.")
    return metric


def check_result(call: str, numbers: int, dtype) -> None:
    """Raises MemoryError where a result of so many numbers does not fit."""
    needed, budget = 2 * numbers * jnp.dtype(dtype).itemsize, RESULT_SHARE * free_bytes()
    if needed > budget:
        raise MemoryError(
            f"`{call}`: a kernel of {numbers:,} numbers takes {needed / 1e9:.3g} GB with its copy; {budget / 1e9:.3g} "
            "GB may be used. Ask for fewer rows, for `empirical_diagonal`, or for `empirical_product`."
        )


def rows_of_a_block(network: Network, rows: int, columns: int | None = None) -> int:
    """As many rows as a share of the free memory holds: their Jacobian, and their products with the other rows."""
    room = BLOCK_SHARE * free_bytes() / network.flat.dtype.itemsize
    products = 0 if columns is None else 3 * network.outputs**2 * min(columns, _MOST_ROWS)
    return int(max(1, min(rows, _MOST_ROWS, room // (network.numbers + products))))


def vectors_of_a_block(network: Network, vectors: int) -> int:
    """As many vectors of the parameters as the same share holds: a sum, H⁻¹ times it, the tangent, a copy."""
    room = BLOCK_SHARE * free_bytes() / network.flat.dtype.itemsize
    return int(max(1, min(vectors, _MOST_ROWS, room // (4 * network.flat.size))))


def starts(size: int, count: int) -> list[int]:
    """Where blocks of `count` rows start; the last may overlap the one before, so that one program serves all."""
    return [min(start, size - count) for start in range(0, size, count)]
