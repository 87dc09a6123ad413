"""Factorization of K + tI for a symmetric positive semidefinite K, with a short ladder instead of a NaN.

Cholesky of K + tI; with a larger shift, up to three times; failure, said in `ok`.

The ladder is a `while_loop`, not `cond`s: under vmap a `cond` runs both branches for every member of the batch, a loop
runs only while some member needs it. No rung is an eigen-decomposition with the negative eigenvalues clipped: XLA sets
its work space aside whether it runs or not (at N = 1000 a step then took 72 ms instead of 50), and what it could mend
beyond the last rung is no rounding error, but a wrong matrix.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Larger shifts tried, in units of eps · trace: the backward error of Cholesky is about N·eps·max diag, at most N times
# the first; that of a Gram of p columns is p·eps·diag.
_LADDER = (4.0, 400.0, 40_000.0)


class SPDFactor(eqx.Module):
    """The upper triangular U with UᵀU = K + shift·I, and whether it can be used.

    Upper, because in memory U row by row is L column by column, as LAPACK gives and takes it.
    """

    upper: Float[Array, "n n"]
    shift: Float[Array, ""]
    ok: Bool[Array, ""]

    @property
    def lower(self) -> Float[Array, "n n"]:
        """L = Uᵀ."""
        return self.upper.T

    def solve(self, rhs: Float[Array, "n *m"]) -> Float[Array, "n *m"]:
        """(K + shift·I)⁻¹ rhs."""
        return jax.scipy.linalg.cho_solve((self.upper, False), rhs)

    def half_solve(self, rhs: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """A with Aᵀ A = rhsᵀ (K + shift·I)⁻¹ rhs."""
        return jax.scipy.linalg.solve_triangular(self.upper, rhs, trans=1)

    def inverse_root(self) -> Float[Array, "n n"]:
        """L⁻¹; its columns' products are the entries of (K + shift·I)⁻¹."""
        return inverse_lower(self.lower)

    def inverse_diagonal(self) -> Float[Array, " n"]:
        """Diag (K + shift·I)⁻¹: the squared norms of the columns of L⁻¹."""
        return jnp.sum(self.inverse_root() ** 2, axis=0)

    def inverse_trace(self) -> Float[Array, ""]:
        """tr (K + shift·I)⁻¹ = ‖L⁻¹‖²_F."""
        return jnp.sum(self.inverse_diagonal())

    def log_determinant(self) -> Float[Array, ""]:
        """log det (K + shift·I)."""
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.upper)))


# Rows up to which a product turns its sides, and numbers on the other side from which it does.
_FEW, _LARGE = 64, 2**16
# Size at which halving a triangular inverse stops paying.
_LEAF = 128
# Parts of a long sum, and columns of the table of what they add up to. Of eight parts XLA's loop was four times slower.
_PARTS, _COLUMNS = 4, 256
# Rows of a block of a symmetric product; fewer than two blocks do not pay.
BLOCK = 256


def upper_triangle(
    size: int, block: Callable[[Array, Array, int], Array], dtype: jnp.dtype, *, unit: int = 1
) -> Float[Array, "n n"]:
    """A symmetric matrix by its upper triangle, in square blocks: about five eighths of the work, and no mirror image.

    A loop over the blocks, not one product after the other: XLA would compute all of them before it puts the first in
    place, and hold them all in memory.

    Args:
        size: examples.
        block: (i, j, count) to the entries of `count` examples from i on against `count` from j on,
            [count·unit, count·unit].
        dtype: of the entries.
        unit: rows of the matrix for each example.

    Returns:
        [size·unit, size·unit]; what stands below the blocks is zero.
    """
    count = -(-size * unit // BLOCK)
    if count < 2 or size < count:
        return block(jnp.zeros((), int), jnp.zeros((), int), size)
    length = -(-size // count)
    # The last block starts where it fits; it may overlap the one before.
    starts = [min(length * number, size - length) for number in range(count)]
    pairs = jnp.array([(i, j) for index, i in enumerate(starts) for j in starts[index:]])

    def place(number, matrix):
        i, j = pairs[number]
        return jax.lax.dynamic_update_slice(matrix, block(i, j, length), (i * unit, j * unit))

    return jax.lax.fori_loop(0, len(pairs), place, jnp.zeros((size * unit, size * unit), dtype))


def upper_product(rows: Float[Array, "n m"]) -> Float[Array, "n n"]:
    """The upper triangle of A Aᵀ."""

    def block(i, j, count):
        one, two = (jax.lax.dynamic_slice_in_dim(rows, start, count) for start in (i, j))
        return one @ two.T

    return upper_triangle(rows.shape[0], block, rows.dtype)


def transposed_product(x: Float[Array, "n a"], y: Float[Array, "n b"]) -> Float[Array, "a b"]:
    """xᵀ y, a sum over rows.

    In float64 XLA's product on a CPU takes twice the time where it sums over the first axis of its left side, and it
    folds a transposition into the product: the smaller side is transposed behind a barrier.
    """
    if x.dtype != jnp.float64:
        return x.T @ y
    copied = jax.lax.optimization_barrier
    if x.shape[1] <= y.shape[1]:
        return copied(x.T) @ y
    # The transposition of the result would be folded in as well.
    return copied(copied(y.T) @ x).T


def product_transposed(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """x yᵀ; of few rows x and a large y as (y xᵀ)ᵀ.

    XLA's product on a CPU turns its whole right side before it begins: for the 784 × 512 weights of a mini-batch of 16
    rows that took a third of the time. From some hundred rows on it is nothing, nor is it on small weights.
    """
    if x.shape[0] > _FEW or x.shape[0] >= y.shape[0] or y.size < _LARGE:
        return x @ y.T
    copied = jax.lax.optimization_barrier
    return copied(copied(y @ copied(x.T)).T)


def inverse_lower(lower: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """L⁻¹ by halves: a triangular solve against the identity does more work, and not as matrix products.

    Written out, half by half: a loop for each size of block is compiled in half the time, but a fit of a thousand rows,
    whose error bars and strength want the inverse in every step, then took a fifth longer.
    """
    size = lower.shape[0]
    if size <= _LEAF:
        return jax.scipy.linalg.solve_triangular(lower, jnp.eye(size, dtype=lower.dtype), lower=True)
    half = size // 2
    first, last = inverse_lower(lower[:half, :half]), inverse_lower(lower[half:, half:])
    # −last · L₂₁ · first: of both triangles the quarter that is zero takes no part.
    left, top = half // 2, (size - half) // 2
    below = lower[half:, :half]
    below = jnp.concatenate([below @ first[:, :left], below[:, left:] @ first[left:, left:]], axis=1)
    corner = -jnp.concatenate([last[:top, :top] @ below[:top], last[top:] @ below])
    return jnp.block([[first, jnp.zeros((half, size - half), lower.dtype)], [corner, last]])


def _finite(matrix: Array) -> Bool[Array, ""]:
    # The diagonal of a failed Cholesky factor is NaN; a finite one is a finite factor.
    return jnp.all(jnp.isfinite(jnp.diagonal(matrix)))


def factorize(matrix: Float[Array, "n n"], shift: Float[Array, ""]) -> SPDFactor:
    """Factorizes `matrix` + `shift`·I up the ladder above.

    Args:
        matrix: symmetric positive semidefinite up to rounding; the upper triangle alone is read.
        shift: t > 0.

    Returns:
        The factor; `shift` on it is the one that went through, `ok` False when none did.
    """
    unit = jnp.finfo(matrix.dtype).eps * jnp.sum(jnp.diagonal(matrix))
    shifts = shift + jnp.array(_LADDER, matrix.dtype) * unit

    def climb(carry):
        rung, _, _ = carry
        return rung + 1, _cholesky(matrix, shifts[rung]), shifts[rung]

    def failing(carry):
        rung, upper, _ = carry
        return (rung < len(_LADDER)) & ~_finite(upper)

    # The first try stands before the loop: as its first round it would cost copies of N² numbers at every solve.
    start = (jnp.zeros((), int), _cholesky(matrix, shift), shift)
    _, upper, total = jax.lax.while_loop(failing, climb, start)
    return SPDFactor(upper, total, _finite(upper))


def _cholesky(matrix: Float[Array, "n n"], shift: Float[Array, ""]) -> Float[Array, "n n"]:
    # Transposed on the way in and out, both lie in memory as LAPACK has them: no copies from rows to columns. Of the
    # transpose LAPACK reads the lower triangle. The shift goes in with the copy that LAPACK writes on; a scatter along
    # the diagonal is a loop of its own to XLA's former emitters, with a transposition before and after. The places are
    # tied to the shift: taken out of a loop over shifts, they would be N² truth values, and their transpose.
    places, shift = jax.lax.optimization_barrier((jnp.arange(len(matrix)), shift))
    shifted = jnp.where(places[:, None] == places, matrix.T + shift, matrix.T)
    return jnp.linalg.cholesky(shifted, symmetrize_input=False).T


def weighted_sum(values: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, ""]:
    """Σ w v over rows; a row of weight zero is absent, whatever it holds: 0 · NaN would be NaN."""
    return jnp.sum(jnp.where(weights > 0, weights * values, 0.0))


def sum_of(parts: Sequence[Array]) -> Array:
    """The sum of arrays, without a zero to start from."""
    return functools.reduce(operator.add, parts)


def long_sum(function: Callable[..., Array], *vectors: Float[Array, " p"]) -> Float[Array, ""]:
    """Σ_i φ(x_i, y_i, ...) over vectors.

    XLA on a CPU writes such a function's parts and constants to memory before it reduces them: with 400,000 parameters
    a penalty took 1.8 ms in place of 1.1. Of long vectors the values of four parts are added as they are computed, and
    the sum of the rest is a product with ones.
    """
    part = vectors[0].size // _PARTS
    if part < _COLUMNS:
        return jnp.sum(function(*vectors))
    starts = range(0, _PARTS * part, part)
    values = sum_of([function(*(vector[start : start + part] for vector in vectors)) for start in starts])
    rows = -(-part // _COLUMNS)
    table = jnp.pad(values, (0, rows * _COLUMNS - part)).reshape(rows, _COLUMNS)
    # Behind a barrier, since XLA (jaxlib 0.10.2, CPU) compiles some products with a broadcast into garbage.
    ones = jax.lax.optimization_barrier(jnp.ones(rows, values.dtype))
    total = jnp.sum(jnp.dot(ones, table, precision=jax.lax.Precision.HIGHEST))
    return total + jnp.sum(function(*(vector[_PARTS * part :] for vector in vectors)))


def symmetric(upper: Any) -> Any:
    """The matrix [m, m] whose upper triangle is given; a NumPy array gives one."""
    xp = np if isinstance(upper, np.ndarray) else jnp
    return xp.triu(upper) + xp.triu(upper, 1).T
