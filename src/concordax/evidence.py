"""The strength by the Laplace evidence."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Batch
from .adaptive_strength import AbstractAdaptiveStrength
from .leave_one_out import at_minimum, leave_one_out
from .linalg import weighted_sum
from .losses import AbstractLoss
from .solvers import AbstractPrepared, Complexity
from .strength import StrengthState
from .system import System


class Evidence(AbstractAdaptiveStrength):
    """MacKay's fixed point of the Laplace evidence of the linearised model.

    γ = tr K (K + τI)⁻¹, σ² = Σ w ‖∂ℓ/∂o‖²/(N − γ) for squared error (1 for likelihood losses), τ ← γ σ²/(2 n g(θ)),
    by at most a factor 3 at a time, once three steps have been taken. Exact for L2; for another penalty its quadratic
    model stands in.

    Each update also scores the point it starts from: the mean of log evidence a row and of the leave-one-out log
    density at the linearised model's minimum. The first averages over predictions from few rows to many (Fong & Holmes,
    Biometrika 107, 2020) and is pessimistic; the second sees features that have learnt the row left out and is
    optimistic. Where the fixed point drifts to networks too complex for noisy data, their mean turns; `train` keeps the
    best. Source: MacKay, Neural Computation 4(3), 1992.

    Args:
        initial: τ until the first update.
        wait: steps taken before the first update.
        largest_change: the factor by which one update may move τ.
        largest_gap: steps from one update to the next at most; 1 updates at every step.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> Evidence().wait
        3
    """

    def estimate(self, state, system, prepared, loss, batch):
        """τ ← γ σ²/(2 n g(θ))."""
        examples = jnp.sum(batch.weights)
        judged = judge(state, system, prepared, prepared.complexity(state.strength), loss, batch)
        score = 0.5 * (judged.log_evidence / examples + judged.leave_one_out)
        target = judged.gamma * judged.noise_variance / (2 * examples * system.penalty)
        return target, judged._replace(score=score)


def judge(
    state: StrengthState,
    system: System,
    prepared: AbstractPrepared,
    complexity: Complexity,
    loss: AbstractLoss,
    batch: Batch,
) -> StrengthState:
    """The state with all that its strength's complexity tells of the point: γ, σ², log evidence, left-out density."""
    # The evidence at the minimum too, and σ² from there, was tried: runs ended after a few steps, some far too early.
    least, _ = at_minimum(system, prepared, loss, batch, state.strength)
    gamma = complexity.effective_parameters
    variance = noise_variance(loss, system.outputs, batch, gamma)
    return state._replace(
        noise_variance=variance,
        gamma=gamma,
        gamma_error=complexity.error,
        log_evidence=log_evidence(loss, system, batch, complexity, state.strength, variance),
        leave_one_out=leave_one_out(loss, least, batch, complexity.leverage, variance),
    )


def log_evidence(
    loss: AbstractLoss,
    system: System,
    batch: Batch,
    complexity: Complexity,
    strength: Float[Array, ""],
    variance: Float[Array, ""],
) -> Float[Array, ""]:
    """log p(y) of Laplace's approximation at θ: −Σ w F/σ² − ½ log det(I + K/τ), −½ N log 2πσ² more for squared error.

    Exact for a Gaussian model linear in its parameters, at its minimum, under L2.
    """
    examples = jnp.sum(batch.weights)
    energy = force_energy(loss, system.outputs, batch) if loss.estimates_noise else examples * system.loss
    fit = (energy + examples * strength * system.penalty) / variance
    numbers = examples * system.residual.shape[1] if loss.estimates_noise else 0.0
    return -fit - 0.5 * complexity.log_determinant - 0.5 * numbers * jnp.log(2 * jnp.pi * variance)


def noise_variance(
    loss: AbstractLoss, outputs: Float[Array, "n c"], batch: Batch, gamma: Float[Array, ""]
) -> Float[Array, ""]:
    """σ² = Σ w ‖∂ℓ/∂o‖²/(N − γ), for squared error Σ w ‖o−y‖²/(N − γ); 1 for a likelihood loss.

    N − γ is held above N/100: a network that interpolates leaves no residual and no degrees of freedom to judge by.
    """
    if not loss.estimates_noise:
        return jnp.ones_like(gamma)
    numbers = jnp.sum(batch.weights) * outputs.shape[1]
    return 2 * force_energy(loss, outputs, batch) / jnp.maximum(numbers - gamma, 0.01 * numbers)


def force_energy(loss: AbstractLoss, outputs: Float[Array, "n c"], batch: Batch) -> Float[Array, ""]:
    """½ Σ w ‖∂ℓ/∂o‖², for squared error the sum of the losses.

    It stands for them in all that judges noise, because the forces of a robust loss are bounded and its values are not:
    one far outlier must not make all else look like noise.
    """
    squares = jnp.sum(loss.gradient(outputs, batch.targets) ** 2, axis=1)
    return 0.5 * weighted_sum(squares, batch.weights)
