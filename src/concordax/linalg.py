"""Factorization of K + tI for a symmetric positive semidefinite K, with a short ladder instead of a NaN.

1. Cholesky of K + tI.  2. Cholesky with a larger shift, twice.  3. Symmetric eigen-decomposition with the
negative eigenvalues of rounding set to zero.  4. Failure, said in `ok`.

Rungs 2 and 3 are `while_loop`s that run at most once each, not `cond`s: under vmap a `cond` runs both branches for
every member of the batch, a loop runs only while some member needs it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Larger shifts tried, in units of eps · trace: the backward error of Cholesky is about N·eps·max diag, at most this.
_LADDER = (4.0, 400.0)


class SPDFactor(eqx.Module):
    """A factorization of K + shift·I: a Cholesky factor, or eigenvectors and eigenvalues (`spectral`)."""

    matrix: Float[Array, "n n"]
    eigenvalues: Float[Array, " n"]
    shift: Float[Array, ""]
    spectral: Bool[Array, ""]
    ok: Bool[Array, ""]

    def solve(self, rhs: Float[Array, "n *m"]) -> Float[Array, "n *m"]:
        """(K + shift·I)⁻¹ rhs."""

        def by_eigenvalues(b):
            coefficients = self.matrix.T @ b
            scale = self.eigenvalues.reshape(-1, *(1,) * (b.ndim - 1))
            return self.matrix @ (coefficients / scale)

        def by_cholesky(b):
            return jax.scipy.linalg.cho_solve((self.matrix, True), b)

        return jax.lax.cond(self.spectral, by_eigenvalues, by_cholesky, rhs)

    def half_solve(self, rhs: Float[Array, "n m"]) -> Float[Array, "n m"]:
        """A with Aᵀ A = rhsᵀ (K + shift·I)⁻¹ rhs."""

        def by_eigenvalues(b):
            return (self.matrix.T @ b) / jnp.sqrt(self.eigenvalues)[:, None]

        def by_cholesky(b):
            return jax.scipy.linalg.solve_triangular(self.matrix, b, lower=True)

        return jax.lax.cond(self.spectral, by_eigenvalues, by_cholesky, rhs)

    def inverse_trace(self) -> Float[Array, ""]:
        """tr (K + shift·I)⁻¹ = ‖L⁻¹‖²_F."""
        return jax.lax.cond(
            self.spectral,
            lambda: jnp.sum(1 / self.eigenvalues),
            lambda: jnp.sum(_inverse_lower(self.matrix) ** 2),
        )

    def log_determinant(self) -> Float[Array, ""]:
        """log det (K + shift·I)."""
        return jnp.where(
            self.spectral,
            jnp.sum(jnp.log(self.eigenvalues)),
            2 * jnp.sum(jnp.log(jnp.where(self.spectral, 1.0, jnp.diagonal(self.matrix)))),
        )


# Sizes at which halving stops paying.
_LEAF = 128
_BLOCKS = 4


def symmetric_product(rows: Float[Array, "n m"]) -> Float[Array, "n n"]:
    """A Aᵀ from the row blocks of its lower triangle: five eighths of the product, and symmetric to the last bit."""
    size = rows.shape[0]
    if size < _LEAF * _BLOCKS:
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
    """L⁻¹ by halves: a triangular solve against the identity does twice the work, and not as matrix products."""
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
    size = matrix.shape[0]
    identity = jnp.eye(size, dtype=matrix.dtype)
    unit = jnp.finfo(matrix.dtype).eps * jnp.trace(matrix)
    rungs = jnp.array([0.0, *_LADDER], matrix.dtype) * unit

    def climb(carry):
        rung, _, _ = carry
        total = shift + rungs[rung]
        return rung + 1, jnp.linalg.cholesky(matrix + total * identity, symmetrize_input=False), total

    def failing(carry):
        rung, lower, _ = carry
        return (rung < len(rungs)) & ~_finite(lower)

    start = (jnp.zeros((), int), jnp.full_like(matrix, jnp.nan), shift)
    _, lower, total = jax.lax.while_loop(failing, climb, start)

    def decompose(carry):
        tried, _, _ = carry
        # `where` makes the matrix depend on the loop: XLA hoists what does not out of it, and would run eigh always.
        values, vectors = jnp.linalg.eigh(jnp.where(tried, 0.0, matrix))
        return jnp.ones((), bool), vectors, jnp.maximum(values, 0) + shift

    def untried(carry):
        tried, factor, _ = carry
        # A matrix with non-finite entries goes straight to failure: eigh would only take longer to say so.
        return ~tried & ~_finite(factor) & jnp.all(jnp.isfinite(matrix))

    flat = jnp.ones(size, matrix.dtype)
    spectral, factor, values = jax.lax.while_loop(untried, decompose, (jnp.zeros((), bool), lower, flat))
    ok = _finite(factor) & jnp.all(jnp.isfinite(values))
    return SPDFactor(factor, values, jnp.where(spectral, shift, total), spectral, ok)
