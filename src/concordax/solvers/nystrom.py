"""A randomised Nyström approximation M ≈ U Λ Uᵀ of a matrix known by its products alone, and what a shift makes of it.

Source: Frangella, Tropp & Udell, SIAM J. Matrix Anal. Appl. 44(2), 2023, Algorithms 2.1 and 5.1.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class NystromSketch(eqx.Module):
    """U Λ Uᵀ with orthonormal U, `basis` = Uᵀ [rank, p], and Λ, largest first. It never exceeds M."""

    basis: Float[Array, "rank p"]
    values: Float[Array, " rank"]

    def precondition(self, v: Float[Array, " p"], shift: Float[Array, ""]) -> Float[Array, " p"]:
        """P⁻¹ v for P = U (Λ + t) Uᵀ + (λ_min + t)(I − U Uᵀ): outside of U, M is taken for the least value inside."""
        return self.root(v, shift, -1.0)

    def root(self, v: Float[Array, " p"], shift: Float[Array, ""], power: float) -> Float[Array, " p"]:
        """P^power v."""
        rest = (self.values[-1] + shift) ** power
        return v * rest + ((self.basis @ v) * ((self.values + shift) ** power - rest)) @ self.basis

    def error_bound(self, residual: Float[Array, " p"], shift: Float[Array, ""]) -> Float[Array, ""]:
        """ρᵀ (U Λ Uᵀ + tI)⁻¹ ρ ≥ ρᵀ (M + tI)⁻¹ ρ, the squared energy of the error that leaves the residual ρ."""
        inside = (self.basis @ residual) ** 2
        outside = jnp.maximum(jnp.vdot(residual, residual) - jnp.sum(inside), 0.0)
        return outside / shift + jnp.sum(inside / (self.values + shift))

    def log_determinant(self, size: int, shift: Float[Array, ""]) -> Float[Array, ""]:
        """log det P."""
        rank = self.values.shape[0]
        return jnp.sum(jnp.log(self.values + shift)) + (size - rank) * jnp.log(self.values[-1] + shift)


def nystrom_sketch(
    product: Callable[[Array], Array], size: int, rank: int, key: PRNGKeyArray, dtype: jnp.dtype
) -> NystromSketch:
    """The Nyström approximation from `rank` products with Gaussian vectors.

    Args:
        product: v [p] to M v.
        size: p.
        rank: columns of U, at most p.
        key: of the vectors.
        dtype: of the vectors.

    Returns:
        The sketch; not finite where M is not.
    """
    # Not orthonormalised: p × rank Gaussian numbers are as well conditioned as the quotient of their sides allows.
    tests = jax.random.normal(key, (rank, size), dtype)
    # One product after the other: on CPU a batch of them took up to twice the time (1437 rows of 10 outputs).
    images = jax.lax.map(product, tests)
    # Shifted up by its own rounding, so that the core has a Cholesky factor; taken off again below.
    shift = jnp.finfo(dtype).eps * jnp.linalg.norm(images)
    images = images + shift * tests
    core = jnp.linalg.cholesky(images @ tests.T)
    half = jax.scipy.linalg.solve_triangular(core, images, lower=True)
    _, singular, basis = jnp.linalg.svd(half, full_matrices=False)
    return NystromSketch(basis, jnp.maximum(singular**2 - shift, 0.0))
