"""Steps to exact zeros: a penalty that need not be smooth, kept whole in the model of each step.

    min_x ½‖W(x − θ) + r‖² + ½‖x − c‖²_{tH} + τ R(x),   c = θ − (τ/t) H⁻¹ g,

is solved on the output side. Its dual in u, the whitened residual, is smooth: x(u) = prox(c − (tH)⁻¹ Wᵀu), and

    G(u) = u − r − W(x(u) − θ) = 0

is the gradient of a convex function Φ. Semismooth Newton on it takes steps (I + W P Wᵀ) Δ = −G, where P is the inverse
of tH + τ∂²R on what is not held at a corner: each is a Gauss-Newton solve with P in place of H⁻¹, by any solver, and
without a penalty the first one is the whole step. ½‖G‖² is the duality gap. Source of the idea: Li, Sun & Toh, SIAM J.
Optim. 28, 2018; Lee, Sun & Saunders, SIAM J. Optim. 24, 2014, for the outer steps.

The published method (Prox-GGN-SCORE, arXiv 2309.01781) smooths R, solves, and then applies the proximal map of R in the
diagonal metric H alone; the fixed points of that are not the minimisers of loss + τR.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._status import StepStatus
from .metrics import DiagonalMetric, ScalarMetric
from .penalties import AbstractPenalty
from .solvers import AbstractPrepared, AbstractShifted, Solution, SolveStats
from .steps import AbstractStep, LocalProblem
from .system import System
from .trust_region import TrustRegion

# Newton steps on the dual, halvings of one of them, and the share of the promised decrease that may be left as gap: its
# root is the error of δ in the norm of the model, in ‖δ‖ as much larger as tH is small.
_ROUNDS = 60
_HALVINGS = 30
_GAP = 1e-26
# The gap, as such a share or in units of the rounding of u, beyond which a solve counts as one that missed.
_ENOUGH = 1e-6
_ROUNDING = 16.0


class _Dual(NamedTuple):
    """A point u of the dual, x(u), G(u), Φ(u), and how many solves and iterations led to it."""

    u: Float[Array, "n k"]
    x: Float[Array, " p"]
    gap: Float[Array, "n k"]
    value: Float[Array, ""]
    rounds: Int[Array, ""]
    iterations: Int[Array, ""]
    usable: Bool[Array, ""]
    stuck: Bool[Array, ""]


class PreparedProximal(AbstractPrepared):
    """The linearised system with the penalty: what a step rule solves."""

    system: System
    inner: AbstractPrepared
    prepare: Callable[[System], AbstractPrepared]
    penalty: AbstractPenalty
    flat: Float[Array, " p"]

    def trace(self):
        """Tr K of the smooth part."""
        return self.inner.trace()

    def complexity(self, strength):
        """That of the smooth part."""
        return self.inner.complexity(strength)

    def at(self, strength, damping):
        """With nothing factored: what is held at a corner is not known before."""
        return _ShiftedProximal(self.system, self.prepare, self.penalty, self.flat, strength, strength + damping)


class _ShiftedProximal(AbstractShifted):
    system: System
    prepare: Callable[[System], AbstractPrepared]
    penalty: AbstractPenalty
    flat: Float[Array, " p"]
    strength: Float[Array, ""]
    shift: Float[Array, ""]

    def solve(self):
        """x − θ at the minimum of the model with the penalty."""
        system, flat, strength, shift = self.system, self.flat, self.strength, self.shift
        h = shift / system.metric.diagonal(flat.size)
        center = flat - strength * system.gradient / h

        def at(u) -> _Dual:
            pulled = system.jacobian.rmv(u)
            x = self.penalty.prox(center - pulled / h, h, strength)
            gap = u - system.residual - system.jacobian.mv(x - flat)
            # Φ up to a constant, with Wᵀu taken once: u·W(x − θ) = (x − θ)·Wᵀu.
            inside = pulled @ (x - flat) + 0.5 * jnp.sum(h * (x - center) ** 2) + strength * self.penalty.value(x)
            value = 0.5 * jnp.sum(u**2) - jnp.sum(u * system.residual) - inside
            zero, no = jnp.zeros((), int), jnp.zeros((), bool)
            return _Dual(u, x, gap, value, zero, zero, ~no, no)

        def go_on(dual: _Dual):
            promised = self._decrease(dual.x)
            # Not also at the rounding of u, for at a small t that is far from the rounding of δ: `stuck` ends those.
            small = 0.5 * jnp.sum(dual.gap**2) <= _GAP * jnp.abs(promised)
            return ~small & ~dual.stuck & dual.usable & (dual.rounds < _ROUNDS)

        def newton(dual: _Dual) -> _Dual:
            curvature = self.penalty.curvature(dual.x, h, strength)
            newtonian = eqx.tree_at(
                lambda s: (s.metric, s.gradient, s.residual), system, (curvature, jnp.zeros_like(flat), dual.gap)
            )
            solution = self.prepare(newtonian).solve(jnp.ones_like(shift), jnp.zeros_like(shift))
            # At t = 1 the dual variable of a solve is its residual plus W δ: −Δ, whichever solver found δ.
            move = -(dual.gap + solution.image)
            return self._searched(at, dual, move)._replace(
                rounds=dual.rounds + 1,
                iterations=dual.iterations + solution.stats.iterations,
                usable=solution.status & jnp.all(jnp.isfinite(move)),
            )

        end = jax.lax.while_loop(go_on, newton, at(system.residual))
        return self._solution(end)

    def follow(self, direction, change):
        """Solved anew: other parameters may be held at a corner."""
        del direction
        return eqx.tree_at(lambda self: self.system.residual, self, self.system.residual + change).solve().direction

    @staticmethod
    def _searched(at, dual: _Dual, move) -> _Dual:
        """Armijo's rule on Φ along the Newton step; `stuck` where rounding leaves nothing to gain."""
        slope = jnp.sum(dual.gap * move)
        # Φ is a difference of terms of the size of ‖u‖², far larger than itself where the residual stays.
        noise = 8 * jnp.finfo(slope.dtype).eps * (jnp.abs(dual.value) + jnp.sum(dual.u**2))

        def refused(carry):
            count, size, trial = carry
            return (count < _HALVINGS) & ~(trial.value <= dual.value + 1e-4 * size * slope + noise)

        def halve(carry):
            count, size, _ = carry
            return count + 1, 0.5 * size, at(dual.u + 0.5 * size * move)

        start = (jnp.zeros((), int), jnp.ones_like(slope), at(dual.u + move))
        count, _, trial = jax.lax.while_loop(refused, halve, start)
        better = jnp.sum(trial.gap**2) < 0.25 * jnp.sum(dual.gap**2)
        # Φ may be flat to rounding while G still shrinks; once neither does, this is as far as the digits go.
        flat = (jnp.abs(trial.value - dual.value) <= noise) & ~better
        taken = jax.tree.map(lambda new, old: jnp.where(flat, old, new), trial, dual)
        return taken._replace(stuck=flat | (count >= _HALVINGS))

    def _decrease(self, x):
        """F(θ) less the model at x, the penalty in both."""
        system, strength, move = self.system, self.strength, x - self.flat
        image = system.jacobian.mv(move)
        smooth = jnp.sum(system.residual * image) + strength * (system.gradient @ move)
        quadratic = 0.5 * jnp.sum(image**2) + 0.5 * strength * system.metric.squared_norm(move)
        return strength * (self.penalty.value(self.flat) - self.penalty.value(x)) - smooth - quadratic

    def _solution(self, end: _Dual) -> Solution:
        strength, shift, move = self.strength, self.shift, end.x - self.flat
        usable = end.usable & jnp.all(jnp.isfinite(move))
        move = jnp.where(usable, move, 0.0)
        image = self.system.jacobian.mv(move)
        squared_norm = self.system.metric.squared_norm(move)
        promised = jnp.where(usable, self._decrease(end.x), 0.0)
        # With it, decrement and promised decrease of the solution are those of loss, g and R together.
        slack = 0.5 * jnp.sum(image**2) + (shift - 0.5 * strength) * squared_norm - promised
        # Rounding of u leaves a gap of its own, which counts where nothing is promised any more.
        rounding = (_ROUNDING * jnp.finfo(promised.dtype).eps) ** 2 * jnp.sum(end.u**2)
        converged = 0.5 * jnp.sum(end.gap**2) <= _ENOUGH * jnp.abs(promised) + rounding
        stats = SolveStats(shift, end.iterations + end.rounds, converged, jnp.zeros((), bool))
        return Solution(move, usable, stats, image, squared_norm, slack)


class ProximalStep(AbstractStep):
    """Exact zeros and bounds: minimizes loss + τ (g + R) with a penalty R that is kept whole, by any step rule.

    Each step solves its model with R in it, to a duality gap of rounding, by a few Gauss-Newton solves on what is not
    held at a corner. The regularizer g must be separable, as a small part of `L2`; it gives the metric.

    Args:
        penalty: R, as `L1()`, `GroupLasso(groups)` or `Box(low, high)`.
        step: how far to go along the step found; `TrustRegion(corrections=0)` by default, under which F never rises:
            to follow the model's bending is to solve with the penalty once more. A rule that shortens steps ends at
            exact zeros only where it takes a full one.

    Raises:
        TypeError: for a penalty or a rule of the wrong kind.

    Source: arXiv 2309.01781 for the method; see the module for how this differs.

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.random.normal(jax.random.key(0), (40, 8))
        >>> linear = lambda params, rows: rows @ params[:, None]
        >>> lasso = cx.ProximalStep(cx.L1())
        >>> result = cx.train(
        ...     linear, cx.SquaredError(), 1e-6 * cx.L2(), jax.numpy.ones(8), (x, x[:, 0]), strength=0.1, step=lasso
        ... )
        >>> (result.params != 0).tolist()
        [True, False, False, False, False, False, False, False]
    """

    penalty: AbstractPenalty
    step: AbstractStep

    def __init__(self, penalty, step=TrustRegion(corrections=0)):
        if not isinstance(penalty, AbstractPenalty):
            raise TypeError(f"`ProximalStep(penalty={penalty!r})`: must be a penalty, as cx.L1().")
        if not isinstance(step, AbstractStep) or isinstance(step, ProximalStep):
            raise TypeError(f"`ProximalStep(step={step!r})`: must be another step rule, as cx.TrustRegion().")
        self.penalty, self.step = penalty, step

    def init(self, like):
        """That of the inner rule."""
        return self.step.init(like)

    def solved_metric(self, metric, flat):
        """That of the regularizer and the penalty together, diagonal or with groups: Grams have no cheaper form."""
        return self.penalty.curvature(flat, 1 / metric.diagonal(flat.size), jnp.ones((), flat.dtype))

    @property
    def adds_penalty(self):
        """It does."""
        return True

    def penalty_value(self, flat):
        """R(θ)."""
        return self.penalty.value(flat)

    def take(self, local, state):
        """The inner rule's step on the model with the penalty; from outside of its domain, the way back into it."""
        system = local.system
        if not isinstance(system.metric, ScalarMetric | DiagonalMetric):
            raise TypeError(
                "`ProximalStep` needs a regularizer without groups: its metric must be diagonal. Use a small part of "
                "cx.L2(), and put the groups into the penalty, cx.GroupLasso(groups)."
            )

        def prepare(system: System) -> PreparedProximal:
            return PreparedProximal(system, local.prepare(system), local.prepare, self.penalty, local.flat)

        # The rule may want another metric.
        outcome, after = self.step.take(local._replace(prepared=prepare(system), prepare=prepare), state)
        gradient = system.objective_gradient(local.strength)
        outcome = outcome._replace(kkt_residual=self.penalty.residual(local.flat, gradient, local.strength))
        return self._inside(local, outcome), after

    def _inside(self, local: LocalProblem, outcome):
        """The step to the nearest point of the domain where θ is outside of it; the inner rule's elsewhere."""
        way = self.penalty.nearest(local.flat) - local.flat
        outside = jnp.any(jnp.abs(way) > 4 * jnp.finfo(way.dtype).eps * jnp.abs(local.flat))
        objective, loss, _ = local.trial_at(local.flat + way)
        inside = outcome._replace(
            displacement=way,
            loss=loss,
            objective=objective,
            step_size=jnp.ones_like(outcome.step_size),
            status=jnp.where(jnp.isfinite(objective), StepStatus.ACCEPTED, outcome.status),
        )
        return jax.tree.map(lambda new, old: jnp.where(outside, new, old), inside, outcome)
