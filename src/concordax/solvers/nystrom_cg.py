"""Steps where neither the N × N nor the p × p matrix can be formed: products with W and Wᵀ alone.

    (Rᵀ Wᵀ W R + tI) z = −Rᵀ (Wᵀ r + τ g),   δ = R z,   R Rᵀ = H⁻¹,

by conjugate gradients on the parameters' side: every iterate lowers the quadratic model, so that one cut short is still
a direction of descent (Steihaug 1983). On the dual side only the last one is.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from ..metrics import Root
from ..system import System
from .base import AbstractPrepared, AbstractSolver, Solution, SolveStats
from .conjugate_gradients import CGState, conjugate_gradients
from .nystrom import NystromSketch, nystrom_sketch
from .stochastic import stochastic_complexity

# Random vectors for the trace of K, the scale of a first damping: each costs a product with Wᵀ.
_TRACE_PROBES = 8


class _PreparedNystrom(AbstractPrepared):
    system: System
    root: Root
    rank: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    max_iterations: int = eqx.field(static=True)

    def trace(self):
        """Tr K = E ‖Rᵀ Wᵀ z‖² over random signs z (Hutchinson)."""
        residual = self.system.residual
        # Drawn as one row: where the last axis is a few outputs, XLA unrolls it, to three quarters of a program's code.
        signs = jax.random.rademacher(jax.random.key(0), (_TRACE_PROBES * residual.size,), residual.dtype)
        signs = signs.reshape(_TRACE_PROBES, *residual.shape)
        return jnp.mean(jax.lax.map(lambda z: jnp.sum(self.root.rmv(self.system.jacobian.rmv(z)) ** 2), signs))

    def solve(self, strength, damping):
        system, shift = self.system, strength + damping
        target = -self.root.rmv(system.objective_gradient(strength))
        tolerance = max(self.tolerance, 8 * float(jnp.finfo(target.dtype).eps))

        def product(v):
            image = system.jacobian.mv(self.root.mv(v))
            return self.root.rmv(system.jacobian.rmv(image)) + shift * v, (v, image)

        def measure(bound):
            def small(state: CGState):
                solution, image = state.carried
                energy = jnp.sum(image**2) + shift * jnp.sum(solution**2)
                return bound(state.residual) <= tolerance**2 * energy, ()

            return small

        nothing = jnp.zeros_like(target), jnp.zeros_like(system.residual)
        # Plain iterations first, as many as a sketch takes products: with much damping they are enough, and when they
        # are not, this costs twice the cheaper way at most.
        plainly = measure(lambda residual: jnp.vdot(residual, residual) / shift)
        plain = conjugate_gradients(product, lambda v: v, nothing, target, plainly, self.rank)

        def sketched(carry):
            rounds, state = carry
            sketch = self._sketch(rounds)
            precondition = lambda v: sketch.precondition(v, shift)
            small = measure(lambda residual: sketch.error_bound(residual, shift))
            begin = state.carried, state.residual
            end = conjugate_gradients(product, precondition, *begin, small, self.max_iterations)
            end = end._replace(iterations=state.iterations + end.iterations)
            usable = jnp.all(jnp.isfinite(end.carried[0]))
            return rounds + 1, jax.tree.map(lambda new, old: jnp.where(usable, new, old), end, state)

        # A loop of at most one round, not a cond: see linalg.py.
        second = (jnp.zeros((), int), plain)
        _, end = jax.lax.while_loop(lambda carry: (carry[0] == 0) & ~carry[1].done, sketched, second)
        return self._solution(end, shift)

    def _sketch(self, carried) -> NystromSketch:
        # Tied to what a loop carries: XLA would otherwise take the sketch out of the loop, and make it in every step,
        # whether it is needed or not.
        key, _ = jax.lax.optimization_barrier((jax.random.key(0), carried))

        def product(v):
            return self.root.rmv(self.system.jacobian.rmv(self.system.jacobian.mv(self.root.mv(v))))

        gradient = self.system.gradient
        return nystrom_sketch(product, gradient.size, min(self.rank, gradient.size), key, gradient.dtype)

    def _solution(self, end: CGState, shift) -> Solution:
        scaled, image = end.carried
        usable = jnp.all(jnp.isfinite(scaled))
        direction = jnp.where(usable, self.root.mv(scaled), 0.0)
        return Solution(
            direction=direction,
            status=usable,
            stats=SolveStats(shift, end.iterations, end.done, jnp.zeros((), bool)),
            image=jnp.where(usable, image, 0.0),
            squared_norm=self.system.metric.squared_norm(direction),
            # The rest of (Wᵀ W + tH) δ + Wᵀ r + τ g is −R⁻ᵀ times the residual here.
            slack=jnp.where(usable, -jnp.vdot(end.residual, scaled), 0.0),
        )

    def complexity(self, strength):
        """Estimated from random vectors, with its standard error."""
        return stochastic_complexity(self.system, self.root, self._sketch(strength), strength)


class NystromCG(AbstractSolver):
    """Conjugate gradients from products with J and Jᵀ alone, preconditioned where it is needed; for any model.

    Memory: some rank × p numbers and the intermediate values of one forward pass. Starts without a preconditioner and
    makes the randomised Nyström sketch of Rᵀ WᵀW R only when `rank` iterations were not enough. A solve that ends
    with its budget returns what it has, which still lowers the quadratic model; `stats.converged` says so.

    Args:
        rank: of the sketch; it costs as many products with WᵀW.
        tolerance: bound on the relative error of δ in the norm of the quadratic model, ‖Wδ‖² + t‖δ‖²_H.
        max_iterations: the budget after the sketch.

    Raises:
        ValueError: for a tolerance outside (0, 1), or a rank or budget below 1.

    Source: Frangella, Tropp & Udell, SIAM J. Matrix Anal. Appl. 44(2), 2023.

    Example:
        >>> import concordax as cx, jax
        >>> params = {"w": jax.numpy.zeros(3)}
        >>> x = jax.random.normal(jax.random.key(1), (50, 3))
        >>> model = lambda params, x: jax.numpy.tanh(x @ params["w"][:, None])
        >>> args = (model, cx.SquaredError(), cx.L2(), params, x, x[:, :1])
        >>> one = cx.direction(*args, strength=1e-3, solver=cx.NystromCG())
        >>> two = cx.direction(*args, strength=1e-3, solver=cx.Primal())
        >>> bool(jax.numpy.allclose(one.direction["w"], two.direction["w"], atol=1e-4))
        True
    """

    rank: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    max_iterations: int = eqx.field(static=True)

    def __init__(self, rank: int = 100, tolerance: float = 1e-6, max_iterations: int = 200):
        for name, value in (("rank", rank), ("max_iterations", max_iterations)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`NystromCG({name}={value!r})`: must be a whole number from 1 up.")
        if not (math.isfinite(tolerance) and 0 < tolerance < 1):
            raise ValueError(f"`NystromCG(tolerance={tolerance!r})`: must be a number between 0 and 1, as 1e-6.")
        self.rank, self.tolerance, self.max_iterations = rank, float(tolerance), max_iterations

    @property
    def matrix_free(self):
        """True."""
        return True

    def prepare(self, system: System) -> AbstractPrepared:
        """Forms nothing."""
        return _PreparedNystrom(system, system.metric.root(), self.rank, self.tolerance, self.max_iterations)
