"""Exact steps at the price of the layers: conjugate gradients on the Gram through its factors, never formed.

The preconditioner is the Cholesky factor of K̃ + tI, with K̃ the Gram for a D that is a product e^a e^bᵀ in each layer
(`LayeredJacobian.structured_gram`). K̃ = K under L2: no iterations are then needed. On a mini-batch of several outputs K
itself costs less than iterations, by pairs of examples (`jacobians/pairs.py`), and takes the place of K̃.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..jacobians import LayeredJacobian
from ..linalg import SPDFactor, factorize, symmetric
from ..metrics import AbstractMetric, GroupMetric
from ..substitution import Substitution, substitution
from ..system import System
from .base import (
    AbstractPrepared,
    AbstractShifted,
    AbstractSolver,
    Solution,
    SolveStats,
    complexity_of,
    dual_leverage,
    log_determinant,
)
from .conjugate_gradients import CGState, conjugate_gradients
from .costs import exact_gram_pays, shape_of, single_precision_pays
from .dual import Dual

# Operations, N²p, up to which a complexity is that of K itself: some ten milliseconds. With K̃ the log evidence of a
# small network was off by 0.5 %, and a fit with weights chose another strength than one with the rows repeated, since
# one of them was solved by `Dual`.
_CHEAP = 1e8


class _PreparedCG(AbstractPrepared):
    system: System
    gram: Float[Array, "m m"]
    image: Float[Array, "n k"]
    solver: "StructuredCG" = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    def trace(self):
        if self.exact:
            return jnp.sum(jnp.diagonal(self.gram).astype(self.image.dtype))
        return jnp.sum(self.system.jacobian.gram_diagonal(self.system.metric))

    def is_finite(self):
        """By W H⁻¹ g, which is there, where diag K is not: 0 · NaN and 0 · ∞ are NaN, no entry is passed over."""
        return jnp.all(jnp.isfinite(self.image))

    def at(self, strength, damping):
        low = self.gram.dtype
        factor = factorize(self.gram, (strength + damping).astype(low))
        # The factor of lower precision may have needed a larger shift; the system has its own.
        shift = factor.shift if low == self.system.residual.dtype else strength + damping
        # Of K itself one or two solves are taken, too few to invert anything for.
        return _ShiftedCG(self, strength, damping, shift, factor, factor if self.exact else substitution(factor))

    def complexity(self, strength):
        """Exact where K is there or cheap; else from the factor of K̃ + τI in full precision, exact under L2."""
        gram = self.gram
        if not self.exact and len(gram) ** 2 * len(self.system.gradient) <= _CHEAP:
            return Dual().prepare(self.system).complexity(strength)
        if gram.dtype != self.system.residual.dtype:
            # Tied to the strength: XLA would otherwise form it in every step, whether γ is wanted or not.
            jacobian, metric, strength = jax.lax.optimization_barrier(
                (self.system.jacobian, self.system.metric, strength)
            )
            gram = _gram(jacobian, metric, exact=self.exact)
        factor = factorize(gram, strength)
        return complexity_of(dual_leverage(self.system, factor), log_determinant(factor))


class _ShiftedCG(AbstractShifted):
    prepared: _PreparedCG
    strength: Float[Array, ""]
    damping: Float[Array, ""]
    shift: Float[Array, ""]
    factor: SPDFactor
    inverse: SPDFactor | Substitution

    @property
    def system(self) -> System:
        return self.prepared.system

    def solve(self):
        prepared = self.prepared
        # From u = 0 the iteration that makes M⁻¹ b of it is not counted.
        uncounted = int(not prepared.exact)
        begin = self._corrected() if prepared.exact else self._from_nothing()
        budget = prepared.solver.max_iterations + uncounted
        unknown = jnp.zeros_like(self.system.gradient), jnp.zeros_like(self.shift)
        end = conjugate_gradients(self._product, self._precondition, *begin, self._measure, budget, measured=unknown)
        solution = self._solution(end, uncounted)
        return self._handed_over(solution) if prepared.solver.hand_over else solution

    def follow(self, direction, change):
        return direction - self.system.metric.solve(self.system.jacobian.rmv(self._precondition(change)))

    def _precondition(self, v):
        low, vector = self.prepared.gram.dtype, v.reshape(-1)
        return self.inverse.solve(vector.astype(low)).reshape(v.shape).astype(v.dtype)

    def _product(self, v):
        system = self.system
        pulled = system.jacobian.rmv(v)
        image = system.jacobian.mv(system.metric.solve(pulled))
        return image + self.shift * v, (-pulled, -image)

    def _measure(self, state: CGState):
        """Whether what is left is small, as the model's own energy, and (δ, ‖δ‖²_H).

        Of δ's error E, ‖WE‖² + t‖E‖²_H = sᵀK(K + tI)⁻¹s, and of δ the same form.
        """
        shift, residual, dtype, metric = self.shift, state.residual, self.shift.dtype, self.system.metric
        dual, image = state.carried
        squared_norm = metric.squared_dual_norm(dual)
        energy = jnp.sum(image**2) + shift * squared_norm
        error = jnp.vdot(residual, residual - shift * state.conditioned)
        # Where t M⁻¹ s is nearly s, their difference is the rounding of M⁻¹, of either sign.
        least = float(jnp.finfo(self.prepared.gram.dtype).eps) * jnp.vdot(residual, residual)
        tolerance = max(self.prepared.solver.tolerance, 8 * float(jnp.finfo(dtype).eps))
        return jnp.maximum(error, least) <= tolerance**2 * energy, (metric.solve(dual), squared_norm)

    def _from_nothing(self):
        """(Hδ, Wδ) and the residual at u = 0.

        In a program that begins with u = M⁻¹ b each product and each solve stands once more, to be compiled once more.
        """
        share = self.strength / self.shift
        image = -share * self.prepared.image
        return (-share * self.system.gradient, image), self.system.residual + image

    def _corrected(self):
        """Those at u = M⁻¹ b, which is the solution where K itself is there; the residual is s = r − t u + Wδ.

        As the first iteration of a loop it would cost copies of δ: 400,000 numbers for the pictures of a mini-batch.
        """
        system, share = self.system, self.strength / self.shift
        u = self._precondition(system.residual - share * self.prepared.image)
        dual = -(system.jacobian.rmv(u) + share * system.gradient)
        # Through K, whose rounding the residual then does not see, where that is below the tolerance: a product with W
        # reads as many numbers as δ has once more.
        gram = self.prepared.gram
        rounding = jnp.finfo(gram.dtype).eps * self.prepared.trace() / self.shift
        image = jax.lax.cond(
            rounding <= self.prepared.solver.tolerance,
            lambda: -((gram.astype(u.dtype) @ u.reshape(-1)).reshape(u.shape) + share * self.prepared.image),
            lambda: system.jacobian.mv(system.metric.solve(dual)),
        )
        return (dual, image), system.residual - self.shift * u + image

    def _solution(self, end: CGState, uncounted: int) -> Solution:
        image, (direction, squared_norm) = end.carried[1], end.measured
        # Not finite where an entry of Hδ, or one of b, is not.
        usable = self.factor.ok & jnp.isfinite(squared_norm) & jnp.isfinite(end.slope) & jnp.all(jnp.isfinite(image))
        direction, image = (jnp.where(usable, x, 0.0) for x in (direction, image))
        counted = jnp.maximum(end.iterations - uncounted, 0)
        return Solution(
            direction=direction,
            status=usable,
            stats=SolveStats(self.shift, counted, end.done, jnp.zeros((), bool)),
            image=image,
            squared_norm=jnp.where(usable, squared_norm, 0.0),
            slack=jnp.where(usable, jnp.vdot(end.residual, image), 0.0),
        )

    def _handed_over(self, solution: Solution) -> Solution:
        """The solution of the exact dual where conjugate gradients missed their tolerance."""

        # A loop of at most one round, not a cond: see linalg.py.
        def directly(solution: Solution) -> Solution:
            exact = Dual().prepare(self.system).solve(self.strength, self.damping)
            stats = exact.stats._replace(iterations=solution.stats.iterations, handed_over=jnp.ones((), bool))
            return exact._replace(stats=stats)

        return jax.lax.while_loop(lambda solution: ~solution.stats.converged, directly, solution)


class StructuredCG(AbstractSolver):
    """Conjugate gradients on the dual side, at N²(d_in + d_out) a layer and N³/3, where `Dual` costs N²p.

    Solves (K + tI) u = r − (τ/t) W H⁻¹ g with K = W H⁻¹ Wᵀ applied through the layers' factors, preconditioned by the
    Cholesky factor of K̃ + tI. Where the tolerance is not reached within the budget, the exact dual solve follows and
    `stats.handed_over` says so.

    Args:
        tolerance: relative error of δ in the norm of the quadratic model, ‖Wδ‖² + t‖δ‖²_H.
        max_iterations: the budget.
        single: whether K̃ and its factor are in float32 where the system is in float64: half their time, and an
            iteration or so more. By default where it pays, by a model of operations.
        hand_over: whether the direct solve is part of the program. `train` leaves it out, and compiles it only when a
            step needs it: unused, it takes 16 ms of a 43 ms step at N = 1000. Without it a direction that missed its
            tolerance is returned as it is, with `stats.converged` False.

    Raises:
        ValueError: for a tolerance outside (0, 1) or a budget below 1.
        TypeError: when the model does not hand out its layers.

    Example:
        >>> import concordax as cx, jax
        >>> model = cx.MLP(inputs=2, widths=(50,))
        >>> params = model.init(jax.random.key(0))
        >>> x = jax.random.normal(jax.random.key(1), (20, 2))
        >>> args = (model, cx.SquaredError(), cx.PseudoHuber(7.0), params, x, x[:, :1])
        >>> one = cx.direction(*args, strength=1e-3, solver=cx.StructuredCG())
        >>> two = cx.direction(*args, strength=1e-3, solver=cx.Dual())
        >>> bool(jax.numpy.allclose(one.direction[0].weight, two.direction[0].weight, atol=1e-4))
        True
    """

    tolerance: float = eqx.field(static=True)
    max_iterations: int = eqx.field(static=True)
    single: bool | None = eqx.field(static=True)
    hand_over: bool = eqx.field(static=True)

    def __init__(
        self,
        tolerance: float = 1e-10,
        max_iterations: int = 100,
        *,
        single: bool | None = None,
        hand_over: bool = True,
    ):
        if not (math.isfinite(tolerance) and 0 < tolerance < 1):
            raise ValueError(f"`StructuredCG(tolerance={tolerance!r})`: must be a number between 0 and 1, as 1e-10.")
        if not isinstance(max_iterations, int) or max_iterations < 1:
            raise ValueError(f"`StructuredCG(max_iterations={max_iterations!r})`: must be a whole number from 1 up.")
        self.tolerance, self.max_iterations = float(tolerance), max_iterations
        self.single, self.hand_over = single, bool(hand_over)

    @property
    def direct(self):
        """The exact dual."""
        return Dual()

    @property
    def backup(self):
        """With a factor of the full precision and the exact dual behind it."""
        return StructuredCG(self.tolerance, self.max_iterations, single=False) if self.single is not False else Dual()

    @property
    def alone(self):
        """The same, without the hand-over."""
        return StructuredCG(self.tolerance, self.max_iterations, single=self.single, hand_over=False)

    def _lowered(self, system: System) -> bool:
        if self.single is not None:
            return self.single
        return single_precision_pays(shape_of(system))

    def prepare(self, system: System) -> AbstractPrepared:
        """Forms K̃, or K, and W H⁻¹ g."""
        if not isinstance(system.jacobian, LayeredJacobian):
            raise TypeError(
                "`StructuredCG()` needs a model that hands out its layers, as cx.MLP and cx.TwoLayer do (see "
                "cx.LayeredModel). Use cx.Dual(), cx.Primal() or cx.Auto() for any other."
            )
        jacobian, metric = system.jacobian, system.metric
        if self._lowered(system):
            jacobian, metric = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (jacobian, metric))
        image = system.jacobian.mv(system.metric.solve(system.gradient))
        exact = exact_gram_pays(shape_of(system))
        return _PreparedCG(system, _gram(jacobian, metric, exact=exact), image, self, exact)


def _gram(jacobian: LayeredJacobian, metric: AbstractMetric, *, exact: bool) -> Float[Array, "m m"]:
    """K, whole, or the upper triangle of K̃."""
    if not exact:
        return jacobian.structured_gram(metric)
    gram = jacobian.gram(metric)
    # By pairs K is whole; what groups add to it is an upper triangle.
    return symmetric(gram) if isinstance(metric, GroupMetric) else gram
