"""Barzilai and Borwein's quotient in the metric of the Gauss-Newton model, with a nonmonotone safeguard."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import AbstractStep, LocalProblem, start_is_finite
from .line_search import backtrack, check_trials, outcome, solve

# The quotient is kept within these factors of the full step: one from a short or backward step says nothing.
_SHORTEST, _LONGEST = 0.01, 10.0


class BarzilaiBorweinState(NamedTuple):
    """The last displacement, the slope ∇Fᵀs where it started, and what the last objectives are made of.

    Losses and penalties are kept apart, unused places as −∞ and 0: the strength may move between steps.
    """

    displacement: Float[Array, " p"]
    slope: Float[Array, ""]
    losses: Float[Array, " memory"]
    penalties: Float[Array, " memory"]


class BarzilaiBorwein(AbstractStep):
    """α = ‖s‖²_B / sᵀy for the last displacement s and change of the gradient y, with B = WᵀW + tH of this point.

    1/α is the curvature that F had along the last step in units of the curvature that the model B has there: the
    number for which B/α comes nearest to y = B s/α in the norm of B⁻¹. In gradient descent B is I, and α the plain
    quotient ‖s‖²/sᵀy; for a direction that is already scaled by B⁻¹ that one has the wrong units. The other quotient,
    sᵀy/‖y‖²_{B⁻¹}, would need a second solve; this one needs one product with W.

    A trial is taken when F falls enough below the largest of the last `memory` objectives, else halved. With 1, the
    default, F never rises; with more it may for a while, as gradient descent with such steps needs it to: here it does
    not help, since the metric has removed the narrow valleys. The first step is the full one, as is one after a
    refusal; α stays within 0.01 and 10, and is 10 where the curvature was not positive. A memory is for full batches:
    objectives of different rows do not compare.

    Args:
        memory: objectives a trial is compared with.
        max_trials: trials a step before it is given up and the parameters stay.

    Raises:
        ValueError: if one of them is not a whole number from 1 up.

    Source: Barzilai & Borwein, IMA J. Numer. Anal. 8, 1988; Grippo, Lampariello & Lucidi, SIAM J. Numer. Anal. 23,
    1986; Raydan, SIAM J. Optim. 7, 1997.

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.numpy.linspace(-1, 1, 20)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(8,))
        >>> start = model.init(jax.random.key(0))
        >>> args = (model, cx.SquaredError(), cx.L2(), start, (x, x**2))
        >>> history = cx.train(*args, strength=1e-4, step=BarzilaiBorwein(), max_steps=10).history
        >>> bool(history["objective"][-1] < history["objective"][0])
        True
    """

    memory: int = eqx.field(static=True)
    max_trials: int = eqx.field(static=True)

    def __init__(self, memory: int = 1, *, max_trials: int = 30):
        check_trials("BarzilaiBorwein", "memory", memory)
        check_trials("BarzilaiBorwein", "max_trials", max_trials)
        self.memory, self.max_trials = memory, max_trials

    def init(self, like):
        """No step taken yet."""
        return BarzilaiBorweinState(
            displacement=jnp.zeros_like(like),
            slope=jnp.zeros((), like.dtype),
            losses=jnp.full(self.memory, -jnp.inf, like.dtype),
            penalties=jnp.zeros(self.memory, like.dtype),
        )

    def take(self, local, state):
        """One solve, trials from the quotient down."""
        solution = solve(local)
        losses = jnp.roll(state.losses, 1).at[0].set(local.loss)
        penalties = jnp.roll(state.penalties, 1).at[0].set(local.system.penalty)
        reference = jnp.max(losses + local.strength * penalties)
        # At one point the two sums may differ by a rounding; F itself is never above the reference.
        reference = jnp.maximum(reference, local.objective)
        size = _quotient(local, state)
        search = backtrack(local, solution, size, reference=reference, max_trials=self.max_trials)
        result = outcome(local, solution, search)
        slope = -result.step_size * solution.decrement**2
        new = BarzilaiBorweinState(result.displacement, slope, losses, penalties)
        # A point that cannot be used leaves no trace: one NaN among the objectives would refuse all that follow.
        usable = start_is_finite(local)
        return result, jax.tree.map(lambda new, old: jnp.where(usable, new, old), new, state)


def _quotient(local: LocalProblem, state: BarzilaiBorweinState) -> Float[Array, ""]:
    """‖s‖²_B / (sᵀ∇F − sᵀ∇F before), within its bounds; 1 without a step behind it."""
    system, step = local.system, state.displacement
    image = system.jacobian.mv(step)
    shift = local.strength + local.damping
    squared_norm = jnp.sum(image**2) + shift * system.metric.squared_norm(step)
    slope = jnp.sum(image * system.residual) + local.strength * jnp.sum(system.gradient * step)
    change = slope - state.slope
    bent = change > squared_norm / _LONGEST
    alpha = jnp.where(bent, squared_norm / jnp.where(bent, change, 1.0), _LONGEST)
    return jnp.where(squared_norm > 0, jnp.maximum(alpha, _SHORTEST), 1.0).astype(step.dtype)
