"""The dual (Gram, NTK) side: an N × N system, N = n·k numbers of output; for p > N.

    (K + tI) u = r − (τ/t) W H⁻¹ g,   K = W H⁻¹ Wᵀ,   δ = −H⁻¹ (Wᵀ u + (τ/t) g),   t = τ + λ.

Not Woodbury on the summed gradient Wᵀr + τg: that subtracts two vectors that agree to t/‖K‖ and loses as many digits
(in float32, percents at t = 1e-6). With r and g apart there is no such difference.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..linalg import SPDFactor, factorize, transposed_product
from ..system import System
from .base import AbstractFactorable, AbstractShifted, AbstractSolver, dual_leverage, finish

# Vectors of a block of products with Wᵀ.
_VECTORS = 64


class _ShiftedDual(AbstractShifted):
    system: System
    image: Float[Array, "n k"]
    strength: Float[Array, ""]
    factor: SPDFactor

    def solve(self):
        system = self.system
        share = self.strength / self.factor.shift
        dual = self._inverse(system.residual - share * self.image)
        direction = -system.metric.solve(system.jacobian.rmv(dual) + share * system.gradient)
        for _ in range(2 if dual.size > direction.size else 1):
            direction = direction + self._refinement(direction)
        return finish(system, direction, self.factor)

    def follow(self, direction, change):
        return direction - self.system.metric.solve(self.system.jacobian.rmv(self._inverse(change)))

    def _inverse(self, x):
        return self.factor.solve(x.reshape(-1)).reshape(x.shape)

    def _refinement(self, direction):
        """−(Wᵀ W + tH)⁻¹ ρ for the gradient ρ that rounding left over, by Woodbury.

        Where N > p the part of u outside the range of W is of the size r/t and leaves eps/t of itself in Wᵀu: at
        t = 1e-8 it cost up to 1e-7 of δ; one pass leaves up to 2e-8 there, a second 1e-12. ρ is small, so that here the
        difference which Woodbury takes does no harm.
        """
        system, shift = self.system, self.factor.shift
        residual = system.residual + system.jacobian.mv(direction)
        gradient = system.jacobian.rmv(residual) + self.strength * system.gradient
        left = system.metric.solve(gradient) + shift * direction
        image = self._inverse(system.jacobian.mv(left))
        return -(left - system.metric.solve(system.jacobian.rmv(image))) / shift


class _PreparedDual(AbstractFactorable):
    system: System
    gram: Float[Array, "m m"]
    image: Float[Array, "n k"]

    @property
    def matrix(self):
        return self.gram

    def factor(self, shift):
        return factorize(self.gram, shift)

    def at(self, strength, damping):
        return _ShiftedDual(self.system, self.image, strength, self.factor(strength + damping))

    def leverage(self, factor):
        return dual_leverage(self.system, factor)

    def determination(self, factor):
        """Diag of Rᵀ Wᵀ (K + tI)⁻¹ W R by products with Wᵀ: W is never held whole."""
        jacobian, root = self.system.jacobian, self.system.metric.root()
        n, k, size = jacobian.shape
        vectors = factor.inverse_root().reshape(-1, n, k)
        # Vectors of zeros at the end add nothing.
        missing = -len(vectors) % _VECTORS
        chunks = jnp.pad(vectors, ((0, missing), (0, 0), (0, 0))).reshape(-1, _VECTORS, n, k)

        def add(total, chunk):
            return total + jnp.sum(root.rmv(jax.vmap(jacobian.rmv)(chunk)) ** 2, axis=0), None

        squares, _ = jax.lax.scan(add, jnp.zeros(size, vectors.dtype), chunks)
        return jnp.clip(squares, 0.0, 1.0)

    def covariance(self, rows, strength, factor):
        metric = self.system.metric
        prior = rows.cross_gram(rows, metric)
        half = factor.half_solve(self.system.jacobian.cross_gram(rows, metric))
        return (prior - transposed_product(half, half)) / strength


class Dual(AbstractSolver):
    """Solves on the Gram side: cost N²p for the Gram in general, N²(d_in + d_out) a layer under L2, and N³/3.

    Use when N = n·k is smaller than the number of parameters. Source: arXiv 2404.14875, §3, with τI where the published
    code has I.

    Example:
        >>> import concordax as cx
        >>> cx.ggn_score(cx.MLP(2, (3,)), cx.SquaredError(), cx.L2(), strength=1e-3, solver=cx.Dual()).init is None
        False
    """

    def prepare(self, system: System) -> _PreparedDual:
        """Forms K and W H⁻¹ g."""
        gram = system.jacobian.gram(system.metric)
        return _PreparedDual(system, gram, system.jacobian.mv(system.metric.solve(system.gradient)))
