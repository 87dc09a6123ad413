"""What a solver is: prepare once for a linearised system, then solve for any strength and damping."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..jacobians import AbstractJacobian
from ..linalg import SPDFactor
from ..system import System


class SolveStats(NamedTuple):
    """What a solve reports: the total shift t that went through (above τ + λ if Cholesky had to be helped)."""

    shift: Float[Array, ""]


class Solution(NamedTuple):
    """A direction, its status (True when it can be used) and what the solve reports.

    `image` is W δ and `squared_norm` is ‖δ‖²_H: by-products from which every decrease is computed.
    """

    direction: Any
    status: Bool[Array, ""]
    stats: SolveStats
    image: Float[Array, "n k"]
    squared_norm: Float[Array, ""]

    @property
    def decrement(self) -> Float[Array, ""]:
        """√(−∇Fᵀδ), by −∇Fᵀδ = ‖Wδ‖² + t‖δ‖²_H: a sum of squares, where the product would cancel."""
        return jnp.sqrt(jnp.sum(self.image**2) + self.stats.shift * self.squared_norm)

    def predicted_decrease(self, strength: Float[Array, ""]) -> Float[Array, ""]:
        """F(θ) − model(θ + δ) = ½‖Wδ‖² + (t − τ/2)‖δ‖²_H; never negative, never a difference."""
        return 0.5 * jnp.sum(self.image**2) + (self.stats.shift - 0.5 * strength) * self.squared_norm


class AbstractPrepared(eqx.Module):
    """A system made ready: the Gram or the normal matrix is formed, a shift is still free."""

    system: eqx.AbstractVar[System]

    @abstractmethod
    def solve(self, strength: Float[Array, ""], damping: Float[Array, ""]) -> Solution:
        """δ with (Wᵀ W + (τ+λ) H) δ = −(Wᵀ r + τ g)."""

    @abstractmethod
    def factor(self, shift: Float[Array, ""]) -> SPDFactor:
        """The factor of the small matrix plus shift·I."""

    @property
    @abstractmethod
    def matrix(self) -> Float[Array, "m m"]:
        """The small matrix: W H⁻¹ Wᵀ or H^{-½} Wᵀ W H^{-½}; both have the same non-zero eigenvalues."""

    @abstractmethod
    def covariance(
        self, rows: AbstractJacobian, strength: Float[Array, ""], factor: SPDFactor
    ) -> Float[Array, "mk mk"]:
        """J (Wᵀ W + τH)⁻¹ Jᵀ for the Jacobian of any rows, from the factor at shift τ."""

    @abstractmethod
    def leverage(self, factor: SPDFactor) -> Float[Array, "n k k"]:
        """Diagonal blocks of W (Wᵀ W + τH)⁻¹ Wᵀ, one a row, from the factor at shift τ; their traces sum to γ."""

    def effective_parameters(self, factor: SPDFactor) -> Float[Array, ""]:
        """γ = tr K (K + τI)⁻¹ = m − τ tr (K + τI)⁻¹, from the factor at shift τ: without eigenvalues."""
        size = self.matrix.shape[0]
        return jnp.clip(size - factor.shift * factor.inverse_trace(), 0.0, size)

    def curvature(self) -> Float[Array, ""]:
        """The mean of diag K over the rows that carry weight, the same on either side: the scale of a first damping."""
        return jnp.sum(jnp.diagonal(self.matrix)) / self.system.numbers


class AbstractSolver(eqx.Module):
    """A way to solve the linearised system."""

    @abstractmethod
    def prepare(self, system: System) -> AbstractPrepared:
        """Forms what does not depend on strength and damping."""


def finish(system: System, direction: Array, factor: SPDFactor) -> Solution:
    """A Solution from a direction: by-products computed, a direction that is not finite replaced by zero."""
    usable = factor.ok & jnp.all(jnp.isfinite(direction))
    direction = jnp.where(usable, direction, 0.0)
    return Solution(
        direction=direction,
        status=usable,
        stats=SolveStats(factor.shift),
        image=system.jacobian.mv(direction),
        squared_norm=system.metric.squared_norm(direction),
    )
