"""Before a run: whether it has a minimiser near its start, how near, and how fast it gets there; after it, whether so.

The theorems are in docs/certificates.md; `ball.py` has their inequalities, `lipschitz.py` the constant that they need.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from ..history import TrainResult
from ..metrics import AbstractMetric
from .ball import Ball, counted

# Steps after which a count of them is given up.
_MOST_STEPS = 100_000
# Rounding of what is compared after a run, in units of eps: sums over all parameters.
_ROUNDING = 1e3


class Certificate(NamedTuple):
    """What is shown of a run before it begins. Distances are in ‖·‖_H, H the Hessian of the regularizer at the start.

    Everything is proved up to rounding if `lipschitz_proved`; else it rests on a measured L, and is an estimate.

    Attributes:
        exists: whether F has a minimiser within `radius`, the only stationary point there.
        reason: a sentence: why not, or what was shown.
        radius: ρ; every step of `FixedStep` of at most 1 without damping stays within. Infinite where none exists.
        euclidean_radius: the same in ‖·‖₂.
        first_step: ‖δ₁‖_H of the undamped Gauss-Newton step from the start.
        smallest_eigenvalue: of K₀ = W H⁻¹ Wᵀ, rounding taken off; where N ≥ p, of H^-½WᵀWH^-½.
        largest_eigenvalue: of the same.
        lipschitz: L over the ball.
        lipschitz_proved: whether L is a proved bound.
        kantorovich: h = Lη/σ, η = ‖W⁺r‖; the data can be met exactly near the start if h ≤ ½.
        interpolation_radius: how near; infinite where h > ½.
        contraction: by what a step at least shortens the distance to the minimiser; 1 where nothing is shown.
        step_size: α that it holds for.
        damping: λ that it holds for.
        start: the parameters.
        metric: H.
        ball: the numbers that it follows from; None where none exists.
        runs_in: the ball that steps of this size and damping stay in, `ball` where undamped.
    """

    exists: bool
    reason: str
    radius: float
    euclidean_radius: float
    first_step: float
    smallest_eigenvalue: float
    largest_eigenvalue: float
    lipschitz: float
    lipschitz_proved: bool
    kantorovich: float
    interpolation_radius: float
    contraction: float
    step_size: float
    damping: float
    start: PyTree
    metric: AbstractMetric
    ball: Ball | None
    runs_in: Ball | None

    def distance_after(self, steps: int) -> float:
        """A bound of the distance from the minimiser after so many steps of `step_size` at `damping`."""
        distance = self.radius
        for number in range(steps if self.contraction < 1 else 0):
            distance = self._next(distance, first=number == 0)
        return distance

    def loss_after(self, steps: int) -> float:
        """A bound of the data loss ½‖r‖² after so many steps; infinite where no contraction is shown."""
        return self._loss(self.distance_after(steps)) if self.contraction < 1 else math.inf

    def steps_to(self, loss: float) -> int | None:
        """Steps after which the data loss is at most `loss`; None where that is not shown."""
        if not self.contraction < 1:
            return None
        reached = lambda distance: self._loss(distance) <= loss
        after = self._next(self.radius, first=True)
        if reached(self.radius):
            return 0
        more = counted(lambda distance: self._next(distance), after, _MOST_STEPS, reached)
        return None if more is None else more + 1

    def check(self, result: TrainResult | PyTree) -> "Kept":
        """Whether a run from this start kept to the certificate.

        Args:
            result: what `train` returned, or the parameters at the end.

        Returns:
            Distance and, from a history, whether each loss kept below `loss_after`.

        Raises:
            ValueError: for parameters of another number than the certificate's.
        """
        params = result.params if isinstance(result, TrainResult) else result
        start, end = ravel_pytree(self.start)[0], ravel_pytree(params)[0]
        if start.shape != end.shape:
            raise ValueError(
                f"`check(result)`: it has {end.size} parameters, the certificate {start.size}. Certify the same model."
            )
        distance = float(jnp.sqrt(self.metric.squared_norm(end - start)))
        slack = 1 + _ROUNDING * float(jnp.finfo(end.dtype).eps)
        within = distance <= self.radius * slack if self.exists else None
        if not isinstance(result, TrainResult):
            return Kept(distance, self.radius, within, None, None)
        history = result.history
        same = np.allclose(history["step_size"], self.step_size) and np.allclose(history["damping"], self.damping)
        if not (same and self.contraction < 1):
            return Kept(distance, self.radius, within, same, None)
        bounds = np.array([self.loss_after(number) for number in range(1, len(history["loss"]) + 1)])
        return Kept(distance, self.radius, within, same, bool(np.all(history["loss"] <= bounds * slack)))

    def _next(self, distance: float, first: bool = False) -> float:
        assert self.ball is not None
        assert self.runs_in is not None
        shorter = self.runs_in.shrunk(distance, self.ball.residual, self.step_size, self.damping)
        # The full step from the start is known: it ends at δ₁, and the minimiser is within E of that.
        known = self.ball.spill if first and self.step_size == 1 and self.damping == 0 else math.inf
        return min(shorter, known)

    def _loss(self, distance: float) -> float:
        """‖r‖ ≤ V + (σ_max + Lρ)·distance."""
        assert self.ball is not None
        assert self.runs_in is not None
        return 0.5 * (self.ball.residual + (self.ball.start.largest + self.runs_in.moved) * distance) ** 2


class Kept(NamedTuple):
    """Whether a run kept to its certificate; None where there is nothing to keep to.

    Attributes:
        distance: of the parameters at the end from the start, in ‖·‖_H.
        radius: that of the certificate.
        within: whether the distance is at most the radius.
        as_certified: whether the steps were those that the contraction is for.
        losses: whether the loss after each step was at most `loss_after`.
    """

    distance: float
    radius: float
    within: bool | None
    as_certified: bool | None
    losses: bool | None
