"""The tangent kernel of a network as it is: K = J(x₁) H⁻¹ J(x₂)ᵀ, its diagonal, and its products with vectors.

In blocks of rows that fit into a share of the free memory. Networks that hand out their layers have Grams of factors;
of other models the rows of J are made by one backward pass each, for one block at a time.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..jacobians import AbstractJacobian, linearize
from ..linalg import symmetric
from .checks import (
    Network,
    as_rows,
    check_network,
    check_result,
    check_rows,
    check_same_features,
    rows_of_a_block,
    starts,
    vectors_of_a_block,
)


def empirical(
    model: Callable, params: PyTree, x1: PyTree, x2: PyTree | None = None, *, metric=None
) -> Float[Array, "n1 n2"] | Float[Array, "n1 c n2 c"]:
    """The tangent kernel of a network at its parameters, in the metric of a Gauss-Newton step.

    K = J(x₁) H⁻¹ J(x₂)ᵀ. With H the Hessian of a regularizer this is the kernel on which a step regresses; with H = I
    the neural tangent kernel.

    Args:
        model: a callable (params, inputs) -> outputs [n, c] that treats its rows one by one.
        params: where it is differentiated, a pytree of any kind.
        x1: n1 rows: an array [n1, d], or a pytree of arrays as the model takes it.
        x2: n2 rows; None for x1 once more, at half the work, and exactly symmetric.
        metric: H: None for the identity, a regularizer for its Hessian at the parameters, or an `AbstractMetric`.

    Returns:
        [n1, n2] of a model with one output, else [n1, c, n2, c].

    Raises:
        ValueError: for no rows, rows or parameters that are not finite, features that differ, or a metric of another
            number of parameters.
        TypeError: for a metric that is none.
        MemoryError: where the kernel itself does not fit.

    Source: Jacot, Gabriel & Hongler, NeurIPS 2018; in the metric of a regularizer arXiv 2404.14875, eq. (13).

    Example:
        >>> import concordax as cx, jax
        >>> model = cx.TwoLayer(inputs=2, width=5)
        >>> x = jax.numpy.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
        >>> kernel = empirical(model, model.init(jax.random.key(0)), x, metric=cx.PseudoHuber(1.0))
        >>> kernel.shape, bool((kernel == kernel.T).all())
        ((3, 3), True)
    """
    n1 = check_rows("ntk.empirical", "x1", x1)
    n2 = n1 if x2 is None else check_rows("ntk.empirical", "x2", x2)
    if x2 is not None:
        check_same_features("ntk.empirical", x1, x2)
    network = check_network("ntk.empirical", model, params, x1, metric)
    c = network.outputs
    check_result("ntk.empirical", n1 * n2 * c**2, network.flat.dtype)
    rows = rows_of_a_block(network, n1, n2)
    if x2 is None:
        kernel = _symmetric(network, as_rows(network, x1), n1, rows)
    else:
        other = rows_of_a_block(network, n2, n1)
        kernel = _rectangular(network, as_rows(network, x1), as_rows(network, x2), (n1, n2), (rows, other))
    return kernel if c == 1 else kernel.reshape(n1, c, n2, c)


def empirical_diagonal(
    model: Callable, params: PyTree, x: PyTree, *, metric=None
) -> Float[Array, " n"] | Float[Array, "n c"]:
    """The diagonal of `empirical`, without the rest: J_ia H⁻¹ J_iaᵀ, row by row and output by output.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        params: where it is differentiated.
        x: n rows.
        metric: H, as for `empirical`.

    Returns:
        [n] of a model with one output, else [n, c].

    Raises:
        ValueError: as `empirical`.
        TypeError: as `empirical`.

    Example:
        >>> import jax
        >>> linear = lambda params, x: x @ params
        >>> empirical_diagonal(linear, jax.numpy.ones((2, 1)), jax.numpy.array([[3.0, 4.0], [1.0, 0.0]])).tolist()
        [25.0, 1.0]
    """
    n = check_rows("ntk.empirical_diagonal", "x", x)
    network = check_network("ntk.empirical_diagonal", model, params, x, metric)
    x, count = as_rows(network, x), rows_of_a_block(network, n)
    parts = [_diagonal(network, _cut(x, start, count)) for start in starts(n, count)]
    diagonal = _join(parts, n, count)
    return diagonal[:, 0] if network.outputs == 1 else diagonal


def empirical_product(
    model: Callable, params: PyTree, x1: PyTree, vectors, x2: PyTree | None = None, *, metric=None
) -> Float[Array, "n1 *r"] | Float[Array, "n1 c *r"]:
    """K V without forming K: one backward pass over x₂, one solve with H and one forward pass over x₁ for each vector.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        params: where it is differentiated.
        x1: n1 rows.
        vectors: V, [n2, *r] for a model with one output, else [n2, c, *r].
        x2: n2 rows; None for x1.
        metric: H, as for `empirical`.

    Returns:
        [n1, *r] for a model with one output, else [n1, c, *r].

    Raises:
        ValueError: as `empirical`, and for vectors of another shape or that are not finite.
        TypeError: as `empirical`.

    Example:
        >>> import jax
        >>> linear = lambda params, x: x @ params
        >>> x, v = jax.numpy.array([[3.0, 4.0], [1.0, 0.0]]), jax.numpy.array([1.0, -2.0])
        >>> empirical_product(linear, jax.numpy.ones((2, 1)), x, v).tolist()  # x xᵀ v
        [19.0, 1.0]
    """
    call = "ntk.empirical_product"
    n1 = check_rows(call, "x1", x1)
    n2 = n1 if x2 is None else check_rows(call, "x2", x2)
    check_same_features(call, x1, x1 if x2 is None else x2)
    network = check_network(call, model, params, x1, metric)
    c = network.outputs
    vectors = np.asarray(vectors, network.flat.dtype)
    lead = (n2,) if c == 1 else (n2, c)
    if vectors.shape[: len(lead)] != lead:
        raise ValueError(
            f"`{call}(vectors=...)` must have shape {[*lead, '*r']}, the rows of x2 first; got {vectors.shape}."
        )
    check_rows(call, "vectors", vectors)
    x1, x2 = as_rows(network, x1), as_rows(network, x1 if x2 is None else x2)
    right = np.moveaxis(vectors.reshape(n2, c, -1), 2, 0)
    most = vectors_of_a_block(network, len(right))
    left = [_products(network, x1, x2, right[start : start + most], (n1, n2)) for start in range(0, len(right), most)]
    return jnp.moveaxis(jnp.concatenate(left), 0, 2).reshape(n1, *lead[1:], *vectors.shape[len(lead) :])


# Blocks of rows -------------------------------------------------------------------------------------------------------


def _cut(rows: PyTree, start: int, count: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[start : start + count], rows)


def _join(parts: list[Array], size: int, count: int) -> Array:
    """The blocks one after the other; what overlaps comes from the last."""
    kept = size - count * (len(parts) - 1)
    return jnp.concatenate([*parts[:-1], parts[-1][count - kept :]]) if len(parts) > 1 else parts[0]


def _jacobian(network: Network, rows: PyTree) -> AbstractJacobian:
    return linearize(network.model, network.unravel, network.flat, rows)[1]


_jacobian_of = eqx.filter_jit(_jacobian)


@eqx.filter_jit
def _gram(jacobian: AbstractJacobian, metric) -> Float[Array, "n n"]:
    with jax.default_matmul_precision("highest"):
        return symmetric(jacobian.gram(metric))


@eqx.filter_jit
def _cross_gram(one: AbstractJacobian, two: AbstractJacobian, metric) -> Float[Array, "n m"]:
    with jax.default_matmul_precision("highest"):
        return one.cross_gram(two, metric)


@eqx.filter_jit
def _diagonal(network: Network, rows: PyTree) -> Float[Array, "n c"]:
    with jax.default_matmul_precision("highest"):
        return _jacobian(network, rows).gram_diagonal(network.metric)


@partial(jax.jit, donate_argnums=0)
def _place(kernel: Array, block: Array, row: int | Array, column: int | Array) -> Array:
    return jax.lax.dynamic_update_slice(kernel, block, (row, column))


def _symmetric(network: Network, x: PyTree, n: int, count: int) -> Float[Array, "n n"]:
    """Blocks on and above the diagonal, each also in its mirror image.

    The block of the last rows with themselves comes last: where it overlaps others, both of its halves are its own.
    """
    c, begins = network.outputs, starts(n, count)
    if len(begins) == 1:
        return _gram(_jacobian_of(network, x), network.metric)
    kernel = jnp.zeros((n * c, n * c), network.flat.dtype)
    for index, i in enumerate(begins):
        one = _jacobian_of(network, _cut(x, i, count))
        for j in begins[index + 1 :]:
            block = _cross_gram(one, _jacobian_of(network, _cut(x, j, count)), network.metric)
            kernel = _place(_place(kernel, block, i * c, j * c), block.T, j * c, i * c)
        kernel = _place(kernel, _gram(one, network.metric), i * c, i * c)
    return kernel


def _rectangular(network: Network, x1, x2, sizes: tuple[int, int], counts: tuple[int, int]) -> Float[Array, "n m"]:
    c, (first, second) = network.outputs, (starts(*side) for side in zip(sizes, counts, strict=True))
    kernel = jnp.zeros((sizes[0] * c, sizes[1] * c), network.flat.dtype)
    # Of one block alone the Jacobian is made once; else anew for each block of the other rows, at a small part of the
    # price of their product.
    only = _jacobian_of(network, x2) if len(second) == 1 else None
    for i in first:
        one = _jacobian_of(network, _cut(x1, i, counts[0]))
        for j in second:
            two = _jacobian_of(network, _cut(x2, j, counts[1])) if only is None else only
            block = _cross_gram(one, two, network.metric)
            kernel = block if block.shape == kernel.shape else _place(kernel, block, i * c, j * c)
    return kernel


# Products -------------------------------------------------------------------------------------------------------------


def _products(
    network: Network, x1, x2, right: Float[np.ndarray, "r n c"], sizes: tuple[int, int]
) -> Float[Array, "r m c"]:
    counts = [max(1, rows_of_a_block(network, size) // len(right)) for size in sizes]
    total = jnp.zeros((len(right), network.flat.size), network.flat.dtype)
    for start in range(0, sizes[1], counts[1]):
        total += _transposed(network, _cut(x2, start, counts[1]), jnp.asarray(right[:, start : start + counts[1]]))
    total = network.metric.solve(total)
    begins = starts(sizes[0], counts[0])
    parts = [jnp.moveaxis(_forward(network, _cut(x1, start, counts[0]), total), 1, 0) for start in begins]
    return jnp.moveaxis(_join(parts, sizes[0], counts[0]), 0, 1)


@eqx.filter_jit
def _transposed(network: Network, rows: PyTree, right: Float[Array, "r n c"]) -> Float[Array, "r p"]:
    with jax.default_matmul_precision("highest"):
        jacobian = linearize(network.model, network.unravel, network.flat, rows, matrix_free=True)[1]
        return jax.vmap(jacobian.rmv)(right)


@eqx.filter_jit
def _forward(network: Network, rows: PyTree, tangents: Float[Array, "r p"]) -> Float[Array, "r n c"]:
    with jax.default_matmul_precision("highest"):
        jacobian = linearize(network.model, network.unravel, network.flat, rows, matrix_free=True)[1]
        return jax.vmap(jacobian.mv)(tangents)
