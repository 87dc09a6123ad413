"""What a convex loss in output space is: value, gradient, Hessian factor S, whitened residual r.

S Sᵀ = ∂²ℓ/∂o² and S r = ∂ℓ/∂o. A loss never sees parameters, weights or 1/n: those enter once, in `system.py`.
"""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..curvature import AbstractHessianFactor


class AbstractLoss(eqx.Module):
    """Loss of one example as a function of its outputs; methods act on n rows at once."""

    name: ClassVar[str]
    takes_labels: ClassVar[bool] = False
    """Whether one column of whole numbers may stand for the targets of all outputs."""

    @property
    def estimates_noise(self) -> bool:
        """Whether ℓ/σ² is a negative log likelihood with an unknown variance σ²."""
        return False

    @property
    def is_quadratic(self) -> bool:
        """Whether it is that of a Gaussian."""
        return False

    @abstractmethod
    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets as an array [n, outputs] that the other methods take; raises ValueError on a shape that cannot be."""

    def check(self, targets: np.ndarray, outputs: int) -> None:
        """Raises ValueError for finite targets that the loss has no meaning for; called before anything is compiled."""
        del targets, outputs

    @abstractmethod
    def value(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, " n"]:
        """ℓ(o, y), one number a row."""

    @abstractmethod
    def gradient(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """∂ℓ/∂o."""

    @abstractmethod
    def hessian_factor(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> AbstractHessianFactor:
        """S with S Sᵀ = ∂²ℓ/∂o². Never regularised: a singular Hessian stays singular."""

    @abstractmethod
    def whitened_residual(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """r orthogonal to ker S with S r = ∂ℓ/∂o; finite even where S underflows."""

    @abstractmethod
    def concordance(self, slopes: Float[Array, "n c"]) -> Float[Array, ""]:
        """κ with |D³ℓ(o)[s, u, u]| ≤ κ D²ℓ(o)[u, u] for every row, its slope s of the outputs, every o and u.

        The constant of (M, ν) at ν = 2 along a direction: 0 where ℓ is quadratic.
        """


def as_columns(targets: Array, outputs: int, loss: str) -> Array:
    """Targets [n] or [n, outputs] as [n, outputs]."""
    if targets.ndim == 1 and outputs == 1:
        return targets[:, None]
    if targets.ndim != 2 or targets.shape[1] != outputs:
        raise ValueError(
            f"`{loss}` needs targets of shape [n, {outputs}] for a model with {outputs} outputs; got {targets.shape}. "
            "Reshape the targets, or build the model with as many outputs as there are target columns."
        )
    return targets
