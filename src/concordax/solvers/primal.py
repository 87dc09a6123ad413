"""The primal side: a p × p system; for p ≤ N.

    (Rᵀ Wᵀ W R + tI) z = −Rᵀ (Wᵀ r + τ g),   δ = R z,   R Rᵀ = H⁻¹.

The symmetric scaling makes the shift a multiple of I, so that one matrix serves every damping. Forming WᵀW squares the
condition number; two rounds of refinement with residuals taken through W and r themselves, not through WᵀW, give the
digits back (Björck's corrected semi-normal equations) at the price of four products with W.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..linalg import SPDFactor, factorize, transposed_product
from ..metrics import Root
from ..system import System
from .base import AbstractFactorable, AbstractShifted, AbstractSolver, finish

_REFINEMENTS = 2


class _ShiftedPrimal(AbstractShifted):
    system: System
    root: Root
    strength: Float[Array, ""]
    factor: SPDFactor

    def solve(self):
        system, root, factor = self.system, self.root, self.factor

        def refine(_, z):
            residual = system.residual + system.jacobian.mv(root.mv(z))
            gradient = root.rmv(system.jacobian.rmv(residual) + self.strength * system.gradient) + factor.shift * z
            return z - factor.solve(gradient)

        # The first round starts from z = 0 and is the plain solve.
        z = jax.lax.fori_loop(0, 1 + _REFINEMENTS, refine, jnp.zeros_like(system.gradient))
        return finish(system, root.mv(z), factor)

    def follow(self, direction, change):
        return direction - self.root.mv(self.factor.solve(self.root.rmv(self.system.jacobian.rmv(change))))


class _PreparedPrimal(AbstractFactorable):
    system: System
    normal: Float[Array, "p p"]
    root: Root

    @property
    def matrix(self):
        return self.normal

    def factor(self, shift):
        return factorize(self.normal, shift)

    def at(self, strength, damping):
        return _ShiftedPrimal(self.system, self.root, strength, self.factor(strength + damping))

    def leverage(self, factor):
        """‖L⁻¹ Rᵀ W_iᵀ‖² a row, over chunks of rows: W R is never held whole."""
        n, k, _ = self.system.jacobian.shape

        def blocks(rows):
            half = factor.half_solve(self.root.rmv(rows.rows()).T).reshape(self.normal.shape[0], -1, k)
            return jnp.einsum("pna,pnb->nab", half, half)

        return jax.lax.map(blocks, self.system.jacobian.in_chunks()).reshape(-1, k, k)[:n]

    def determination(self, factor):
        return jnp.clip(1 - factor.shift * factor.inverse_diagonal(), 0.0, 1.0)

    def covariance(self, rows, strength, factor):
        del strength
        half = factor.half_solve(self.root.rmv(rows.rows()).T)
        return transposed_product(half, half)


class Primal(AbstractSolver):
    """Solves on the parameters' side: cost N p² and p³/3, memory p².

    Use when there are fewer parameters than numbers of output.

    Example:
        >>> import concordax as cx
        >>> cx.ggn_score(cx.MLP(2, (3,)), cx.SquaredError(), cx.L2(), strength=1e-3, solver=cx.Primal()).init is None
        False
    """

    def prepare(self, system: System) -> _PreparedPrimal:
        """Forms Rᵀ Wᵀ W R."""
        root = system.metric.root()
        return _PreparedPrimal(system, system.jacobian.normal(root), root)
