"""What a solver is: prepare once for a linearised system, then factor for a strength and damping, then solve."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..jacobians import AbstractJacobian
from ..linalg import SPDFactor
from ..system import System
from .costs import SystemShape


class SolveStats(NamedTuple):
    """What a solve reports.

    Attributes:
        shift: the total shift t that went through, above τ + λ if Cholesky had to be helped.
        iterations: of conjugate gradients; 0 for a direct solve.
        converged: whether the tolerance was reached; True for a direct solve.
        handed_over: whether it was not, and a direct solve followed.
    """

    shift: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]
    handed_over: Bool[Array, ""]


class Solution(NamedTuple):
    """A direction, its status (True when it can be used) and what the solve reports.

    `image` is W δ and `squared_norm` is ‖δ‖²_H: by-products from which every decrease is computed. `slack` is ρᵀδ for
    the rest ρ that an iterative solve leaves of (Wᵀ W + tH) δ + Wᵀ r + τ g, and 0 for a direct one.
    """

    direction: Any
    status: Bool[Array, ""]
    stats: SolveStats
    image: Float[Array, "n k"]
    squared_norm: Float[Array, ""]
    slack: Float[Array, ""]

    @property
    def decrement(self) -> Float[Array, ""]:
        """√(−∇Fᵀδ), by −∇Fᵀδ = ‖Wδ‖² + t‖δ‖²_H − ρᵀδ: a sum of squares, where the product would cancel."""
        energy = jnp.sum(self.image**2) + self.stats.shift * self.squared_norm
        return jnp.sqrt(jnp.maximum(energy - self.slack, 0.0))

    def predicted_decrease(self, strength: Float[Array, ""]) -> Float[Array, ""]:
        """F(θ) − model(θ + δ) = ½‖Wδ‖² + (t − τ/2)‖δ‖²_H − ρᵀδ."""
        squares = 0.5 * jnp.sum(self.image**2) + (self.stats.shift - 0.5 * strength) * self.squared_norm
        return squares - self.slack


class Complexity(NamedTuple):
    """How much of the parameters the data determine, at shift τ.

    Attributes:
        leverage: the diagonal blocks of W (Wᵀ W + τH)⁻¹ Wᵀ, one a row.
        log_determinant: log det (I + K/τ).
        effective_parameters: γ = tr K (K + τI)⁻¹, the sum of the leverages.
        error: the standard error of γ where it was estimated from random vectors; 0 where it was computed.
    """

    leverage: Float[Array, "n k k"]
    log_determinant: Float[Array, ""]
    effective_parameters: Float[Array, ""]
    error: Float[Array, ""]


def complexity_of(leverage: Float[Array, "n k k"], log_determinant: Float[Array, ""]) -> Complexity:
    """The complexity from exact leverages."""
    n, k, _ = leverage.shape
    gamma = jnp.clip(jnp.einsum("naa->", leverage), 0.0, n * k)
    return Complexity(leverage, log_determinant, gamma, jnp.zeros_like(gamma))


class AbstractShifted(eqx.Module):
    """A prepared system at one shift t = τ + λ: what depends on that is formed too, for all right-hand sides."""

    @abstractmethod
    def solve(self) -> Solution:
        """δ with (Wᵀ W + tH) δ = −(Wᵀ r + τ g)."""

    @abstractmethod
    def follow(self, direction: Float[Array, " p"], change: Float[Array, "n k"]) -> Float[Array, " p"]:
        """δ for r + x from that for r, δ − (Wᵀ W + tH)⁻¹ Wᵀ x, cheaply: of an iterative solver what M⁻¹ makes of it."""


class AbstractPrepared(eqx.Module):
    """A system made ready: what does not depend on the shift is formed."""

    system: eqx.AbstractVar[System]

    @abstractmethod
    def at(self, strength: Float[Array, ""], damping: Float[Array, ""]) -> AbstractShifted:
        """The system at shift τ + λ."""

    def solve(self, strength: Float[Array, ""], damping: Float[Array, ""]) -> Solution:
        """δ with (Wᵀ W + (τ+λ) H) δ = −(Wᵀ r + τ g)."""
        return self.at(strength, damping).solve()

    @abstractmethod
    def complexity(self, strength: Float[Array, ""]) -> Complexity:
        """Leverages and log determinant at shift τ."""

    @abstractmethod
    def trace(self) -> Float[Array, ""]:
        """Tr K, K = W H⁻¹ Wᵀ."""

    def is_finite(self) -> Bool[Array, ""]:
        """Whether W is finite: one NaN in it reaches the diagonal of K, and its sum."""
        return jnp.isfinite(self.trace())

    def curvature(self) -> Float[Array, ""]:
        """The mean of diag K, a row of weight 2 counted as two, the same on either side: the scale of a damping."""
        return self.trace() / self.system.numbers


class AbstractFactorable(AbstractPrepared):
    """A prepared system whose small matrix is formed whole."""

    @abstractmethod
    def factor(self, shift: Float[Array, ""]) -> SPDFactor:
        """The factor of the small matrix plus shift·I."""

    @property
    @abstractmethod
    def matrix(self) -> Float[Array, "m m"]:
        """Upper triangle of W H⁻¹ Wᵀ or H^{-½} Wᵀ W H^{-½}; both have the same non-zero eigenvalues."""

    @abstractmethod
    def leverage(self, factor: SPDFactor) -> Float[Array, "n k k"]:
        """Diagonal blocks of W (Wᵀ W + τH)⁻¹ Wᵀ, one a row, from the factor at shift τ."""

    @abstractmethod
    def determination(self, factor: SPDFactor) -> Float[Array, " p"]:
        """1 − τ diag (Wᵀ W + τH)⁻¹H a parameter, in [0, 1] and of sum γ, from the factor at shift τ."""

    @abstractmethod
    def covariance(
        self, rows: AbstractJacobian, strength: Float[Array, ""], factor: SPDFactor
    ) -> Float[Array, "mk mk"]:
        """J (Wᵀ W + τH)⁻¹ Jᵀ for the Jacobian of any rows, from the factor at shift τ."""

    def trace(self):
        """The sum of the diagonal."""
        return jnp.sum(jnp.diagonal(self.matrix))

    def complexity(self, strength):
        """From the Cholesky factor at shift τ."""
        factor = self.factor(strength)
        return complexity_of(self.leverage(factor), log_determinant(factor))

    def effective_parameters(self, factor: SPDFactor) -> Float[Array, ""]:
        """γ = tr K (K + τI)⁻¹ = m − τ tr (K + τI)⁻¹, from the factor at shift τ: without eigenvalues."""
        size = self.matrix.shape[0]
        return jnp.clip(size - factor.shift * factor.inverse_trace(), 0.0, size)


class AbstractSolver(eqx.Module):
    """A way to solve the linearised system."""

    @abstractmethod
    def prepare(self, system: System) -> AbstractPrepared:
        """Forms what does not depend on strength and damping."""

    @property
    def matrix_free(self) -> bool:
        """Whether products with J and Jᵀ are all that this solver takes of it."""
        return False

    def resolve(self, shape: SystemShape) -> "AbstractSolver":
        """The solver that runs on a system of this shape: itself, or its choice."""
        del shape
        return self

    def explain(self, shape: SystemShape) -> str:
        """Which solver runs on a system of this shape, and why."""
        del shape
        return f"{type(self).__name__}, as asked"

    def choice(self, shape: SystemShape) -> tuple["AbstractSolver", str]:
        """`resolve` and `explain` at once."""
        return self.resolve(shape), self.explain(shape)

    @property
    def direct(self) -> "AbstractSolver":
        """The solver whose matrix error bars are made from; itself for a direct one."""
        return self

    @property
    def backup(self) -> "AbstractSolver":
        """What takes a step again in which this solver did not converge; itself where there is nothing."""
        return self

    @property
    def alone(self) -> "AbstractSolver":
        """This solver without the direct one in the same program, for a caller that hands over itself."""
        return self


def log_determinant(factor: SPDFactor) -> Float[Array, ""]:
    """Log det (I + K/τ) from the factor of K + τI."""
    return factor.log_determinant() - factor.upper.shape[0] * jnp.log(factor.shift)


def finish(system: System, direction: Array, factor: SPDFactor) -> Solution:
    """The Solution of a direct solve: by-products computed, a direction that is not finite replaced by zero."""
    usable = factor.ok & jnp.all(jnp.isfinite(direction))
    direction = jnp.where(usable, direction, 0.0)
    return Solution(
        direction=direction,
        status=usable,
        stats=SolveStats(factor.shift, jnp.zeros((), int), jnp.ones((), bool), jnp.zeros((), bool)),
        image=system.jacobian.mv(direction),
        squared_norm=system.metric.squared_norm(direction),
        slack=jnp.zeros((), direction.dtype),
    )


def dual_leverage(system: System, factor: SPDFactor) -> Float[Array, "n k k"]:
    """I − t (K + tI)⁻¹ a row: W (Wᵀ W + tH)⁻¹ Wᵀ = K (K + tI)⁻¹."""
    n, k, _ = system.jacobian.shape
    columns = factor.inverse_root().reshape(-1, n, k)
    # Products summed as they are made: an einsum would first copy L⁻¹ twice to bring the rows to the front.
    blocks = jnp.sum(columns[..., :, None] * columns[..., None, :], axis=0)
    return jnp.eye(k, dtype=columns.dtype) - factor.shift * blocks
