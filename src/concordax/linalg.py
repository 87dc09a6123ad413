"""Factorization of K + tI for a symmetric positive semidefinite K, with a short ladder instead of a NaN.

Cholesky of K + tI; with a larger shift, up to three times; failure, said in `ok`.

The ladder is a `while_loop`, not `cond`s: under vmap a `cond` runs both branches for every member of the batch, a loop
runs only while some member needs it. No rung is an eigen-decomposition with the negative eigenvalues clipped: XLA sets
its work space aside whether it runs or not (at N = 1000 a step then took 72 ms instead of 50), and what it could mend
beyond the last rung is no rounding error, but a wrong matrix.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
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
        return jax.scipy.linalg.cho_solve((self.lower, True), rhs)

    def half_solve(self, rhs: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """A with Aᵀ A = rhsᵀ (K + shift·I)⁻¹ rhs."""
        return jax.scipy.linalg.solve_triangular(self.lower, rhs, lower=True)

    def inverse_root(self) -> Float[Array, "n n"]:
        """L⁻¹; its columns' products are the entries of (K + shift·I)⁻¹."""
        return _inverse_lower(self.lower)

    def inverse_trace(self) -> Float[Array, ""]:
        """tr (K + shift·I)⁻¹ = ‖L⁻¹‖²_F."""
        return jnp.sum(self.inverse_root() ** 2)

    def log_determinant(self) -> Float[Array, ""]:
        """log det (K + shift·I)."""
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.upper)))


# Size at which halving a triangular inverse stops paying.
_LEAF = 256
# Row blocks of a symmetric product, and the size below which they do not pay.
_BLOCKS = 4
_SMALLEST = 512


def symmetric_product(rows: Float[Array, "n m"]) -> Float[Array, "n n"]:
    """A Aᵀ from the row blocks of its lower triangle: five eighths of the product, and symmetric to the last bit."""
    size = rows.shape[0]
    if size < _SMALLEST:
        return rows @ rows.T
    ends = [size * (block + 1) // _BLOCKS for block in range(_BLOCKS)]
    lower = jnp.concatenate(
        [
            jnp.pad(rows[start:end] @ rows[:end].T, ((0, 0), (0, size - end)))
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
    )
    return jnp.tril(lower) + jnp.tril(lower, -1).T


def _inverse_lower(lower: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """L⁻¹ by halves: a triangular solve against the identity does more work, and not as matrix products."""
    size = lower.shape[0]
    if size <= _LEAF:
        return jax.scipy.linalg.solve_triangular(lower, jnp.eye(size, dtype=lower.dtype), lower=True)
    half = size // 2
    first, last = _inverse_lower(lower[:half, :half]), _inverse_lower(lower[half:, half:])
    corner = -last @ (lower[half:, :half] @ first)
    return jnp.block([[first, jnp.zeros((half, size - half), lower.dtype)], [corner, last]])


def _finite(matrix: Array) -> Bool[Array, ""]:
    # The diagonal of a failed Cholesky factor is NaN; a finite one is a finite factor.
    return jnp.all(jnp.isfinite(jnp.diagonal(matrix)))


def factorize(matrix: Float[Array, "n n"], shift: Float[Array, ""]) -> SPDFactor:
    """Factorizes `matrix` + `shift`·I up the ladder above.

    Args:
        matrix: symmetric positive semidefinite up to rounding.
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
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    # Transposed on the way in and out, both lie in memory as LAPACK has them: no copies from rows to columns.
    return jnp.linalg.cholesky(matrix.T + shift * identity, symmetrize_input=False).T
