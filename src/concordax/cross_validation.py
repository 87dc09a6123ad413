"""The strength by cross-validation of the linearised model: leave-one-out, or its rotation-invariant form."""

from abc import abstractmethod

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Batch
from .adaptive_strength import AbstractAdaptiveStrength
from .evidence import judge
from .leave_one_out import at_minimum, leave_one_out, left_out_residual
from .linalg import weighted_sum
from .losses import AbstractLoss
from .solvers import Complexity

# Neighbours of τ at which the score is taken too, as a factor: three points to lay a parabola through.
_APART = 3.0


class AbstractCrossValidation(AbstractAdaptiveStrength):
    """τ where a score of the linearised model's own minimum is best.

    The score is taken at τ/3, τ and 3τ from one Gram; τ goes to the vertex of the parabola through the three over
    log τ, or to the better end where that has none.
    """

    @abstractmethod
    def criterion(
        self,
        loss: AbstractLoss,
        batch: Batch,
        outputs: Float[Array, "n c"],
        residual: Float[Array, "n k"],
        complexity: Complexity,
    ) -> Float[Array, ""]:
        """The score, the larger the better, of outputs and whitened residuals at the linearised model's minimum."""

    def estimate(self, state, system, prepared, loss, batch):
        """Three scores and the vertex between them."""
        steps = jnp.log(_APART) * jnp.arange(-1.0, 2.0)
        complexities, scores = [], []
        # Unrolled: three shifts of one Gram.
        for step in steps:
            tau = state.strength * jnp.exp(step)
            complexity = prepared.complexity(tau)
            outputs, residual = at_minimum(system, prepared, loss, batch, tau)
            complexities.append(complexity)
            scores.append(self.criterion(loss, batch, outputs, residual, complexity))
        low, middle, high = scores
        slope, bend = 0.5 * (high - low), high - 2 * middle + low
        vertex = jnp.clip(-slope / jnp.where(bend < 0, bend, -1.0), -1.0, 1.0)
        move = jnp.where(bend < 0, vertex, jnp.sign(slope))
        target = state.strength * _APART ** jnp.where(jnp.isfinite(move), move, 0.0)
        return target, judge(state, system, prepared, complexities[1], loss, batch)._replace(score=middle)


class LeaveOneOut(AbstractCrossValidation):
    """τ by leave-one-out cross-validation of the linearised model, without refits.

    For squared error the score is −½ log of the mean squared left-out residual ρ_i/(1 − h_i) (Allen's PRESS); for other
    losses minus the mean loss of each row by the model without it. Features that learnt a row while it was
    there stay learnt, so that on small tables `Evidence` is the safer choice.

    Args:
        initial: τ until the first update.
        wait: steps taken before the first update.
        largest_change: the factor by which one update may move τ.
        largest_gap: steps from one update to the next at most.

    Raises:
        ValueError: for a number out of range.

    Source: Allen, Technometrics 16, 1974; Rahnama Rad & Maleki, JRSS B 82, 2020.

    Example:
        >>> LeaveOneOut().is_adaptive
        True
    """

    def criterion(self, loss, batch, outputs, residual, complexity):
        """−½ log PRESS, or minus the mean left-out loss."""
        if not loss.is_quadratic:
            one = jnp.ones_like(complexity.effective_parameters)
            return leave_one_out(loss, outputs, batch, complexity.leverage, one)
        left_out = left_out_residual(residual, batch, complexity.leverage)
        squares = weighted_sum(jnp.sum(left_out**2, axis=1), batch.weights)
        return -0.5 * jnp.log(squares / jnp.sum(batch.weights))


class GeneralizedCrossValidation(AbstractCrossValidation):
    """τ by generalized cross-validation: the score is −log of Σ w‖ρ‖²/(1 − γ/N)², ρ the whitened residuals.

    Leave-one-out with every leverage replaced by their mean, so that single rows of high leverage weigh less.

    Args:
        initial: τ until the first update.
        wait: steps taken before the first update.
        largest_change: the factor by which one update may move τ.
        largest_gap: steps from one update to the next at most.

    Raises:
        ValueError: for a number out of range.

    Source: Golub, Heath & Wahba, Technometrics 21, 1979.

    Example:
        >>> GeneralizedCrossValidation().is_adaptive
        True
    """

    def criterion(self, loss, batch, outputs, residual, complexity):
        """−log of the generalized mean square."""
        del loss, outputs
        weights = jnp.sum(batch.weights)
        squares = weighted_sum(jnp.sum(residual**2, axis=1), batch.weights)
        free = 1 - complexity.effective_parameters / (weights * residual.shape[1])
        return jnp.where(free > 0, -jnp.log(squares / weights) + 2 * jnp.log(jnp.maximum(free, 1e-30)), -jnp.inf)
