"""Steps where neither the N × N nor the p × p matrix can be formed: products with W and Wᵀ alone.

    (Rᵀ Wᵀ W R + tI) z = −Rᵀ (Wᵀ r + τ g),   δ = R z,   R Rᵀ = H⁻¹,

by conjugate gradients on the parameters' side: every iterate lowers the quadratic model, so that one cut short is still
a direction of descent (Steihaug 1983). On the dual side only the last one is.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..metrics import Root
from ..system import System
from .base import AbstractPrepared, AbstractShifted, AbstractSolver, Solution, SolveStats
from .conjugate_gradients import CGState, conjugate_gradients
from .nystrom import NystromSketch, nystrom_sketch
from .stochastic import stochastic_complexity

# Random vectors for the trace of K, the scale of a first damping: each costs a product with Wᵀ.
_TRACE_PROBES = 8
# A correction of second order is solved for to this share of itself, in so many iterations at most.
_ROUGHLY, _FEW = 0.1, 3


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

    def at(self, strength, damping):
        return _ShiftedNystrom(self, strength, strength + damping)

    def sketch(self, carried) -> NystromSketch:
        """The sketch of Rᵀ Wᵀ W R.

        Tied to what a loop carries: XLA would otherwise take it out of the loop, and make it in every step, whether it
        is needed or not.
        """
        key, _ = jax.lax.optimization_barrier((jax.random.key(0), carried))

        def product(v):
            return self.root.rmv(self.system.jacobian.rmv(self.system.jacobian.mv(self.root.mv(v))))

        gradient = self.system.gradient
        return nystrom_sketch(product, gradient.size, min(self.rank, gradient.size), key, gradient.dtype)

    def complexity(self, strength):
        """Estimated from random vectors, with its standard error."""
        return stochastic_complexity(self.system, self.root, self.sketch(strength), strength)


class _ShiftedNystrom(AbstractShifted):
    """Nothing is factored: a shift and what solves at it."""

    prepared: _PreparedNystrom
    strength: Float[Array, ""]
    shift: Float[Array, ""]

    def solve(self):
        prepared, shift = self.prepared, self.shift
        target = -prepared.root.rmv(prepared.system.objective_gradient(self.strength))
        tolerance = max(prepared.tolerance, 8 * float(jnp.finfo(target.dtype).eps))
        # Plain iterations first, as many as a sketch takes products: with much damping they are enough, and when they
        # are not, this costs twice the cheaper way at most.
        plain = self._plainly(target, tolerance, prepared.rank)

        def sketched(carry):
            rounds, state = carry
            sketch = prepared.sketch(rounds)
            precondition = lambda v: sketch.precondition(v, shift)
            small = self._measure(lambda residual: sketch.error_bound(residual, shift), tolerance)
            begin = state.carried, state.residual
            end = conjugate_gradients(self._product, precondition, *begin, small, prepared.max_iterations)
            end = end._replace(iterations=state.iterations + end.iterations)
            usable = jnp.all(jnp.isfinite(end.carried[0]))
            return rounds + 1, jax.tree.map(lambda new, old: jnp.where(usable, new, old), end, state)

        # A loop of at most one round, not a cond: see linalg.py.
        second = (jnp.zeros((), int), plain)
        _, end = jax.lax.while_loop(lambda carry: (carry[0] == 0) & ~carry[1].done, sketched, second)
        return self._solution(end)

    def follow(self, direction, change):
        root = self.prepared.root
        target = -root.rmv(self.prepared.system.jacobian.rmv(change))
        return direction + root.mv(self._plainly(target, _ROUGHLY, _FEW).carried[0])

    def _plainly(self, target: Float[Array, " p"], tolerance: float, max_iterations: int) -> CGState:
        """Iterations without a preconditioner, from nothing."""
        nothing = jnp.zeros_like(target), jnp.zeros_like(self.prepared.system.residual)
        small = self._measure(lambda residual: jnp.vdot(residual, residual) / self.shift, tolerance)
        return conjugate_gradients(self._product, lambda v: v, nothing, target, small, max_iterations)

    def _product(self, v):
        system, root = self.prepared.system, self.prepared.root
        image = system.jacobian.mv(root.mv(v))
        return root.rmv(system.jacobian.rmv(image)) + self.shift * v, (v, image)

    def _measure(self, bound: Callable, tolerance: float) -> Callable:
        def small(state: CGState):
            solution, image = state.carried
            energy = jnp.sum(image**2) + self.shift * jnp.sum(solution**2)
            return bound(state.residual) <= tolerance**2 * energy, ()

        return small

    def _solution(self, end: CGState) -> Solution:
        system = self.prepared.system
        scaled, image = end.carried
        usable = jnp.all(jnp.isfinite(scaled))
        direction = jnp.where(usable, self.prepared.root.mv(scaled), 0.0)
        return Solution(
            direction=direction,
            status=usable,
            stats=SolveStats(self.shift, end.iterations, end.done, jnp.zeros((), bool)),
            image=jnp.where(usable, image, 0.0),
            squared_norm=system.metric.squared_norm(direction),
            # The rest of (Wᵀ W + tH) δ + Wᵀ r + τ g is −R⁻ᵀ times the residual here.
            slack=jnp.where(usable, -jnp.vdot(end.residual, scaled), 0.0),
        )


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
