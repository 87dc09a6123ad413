"""Different losses for different outputs of one model."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..curvature import BlockFactor, in_slices
from .base import AbstractLoss


class PerOutput(AbstractLoss):
    """The sum of losses on consecutive slices of the outputs: ℓ = Σ_j β_j ℓ_j(o_j, y_j), with a block Hessian factor.

    Targets are one array, the slices' targets side by side. A softmax slice takes its probabilities or, all such
    slices alike, one column of labels each. Weights of 1 leave an unknown noise variance to be estimated if every loss
    has one, the same for all; any other weights are read as inverse variances, and σ² = 1. So give a squared error
    beside a loss of classes or counts the weight 1/σ².

    Args:
        parts: (loss, columns) or (loss, columns, weight), in the order of the outputs; weights are positive, 1 if none
            is given.

    Raises:
        TypeError: for a part that is no such tuple.
        ValueError: for columns below 1 or a weight that is not positive and finite.

    Example:
        >>> import concordax as cx, jax.numpy as jnp
        >>> loss = PerOutput((cx.SquaredError(), 1), (cx.SoftmaxCrossEntropy(), 2))
        >>> targets = loss.encode(jnp.array([[0.5, 1.0]]), 3)
        >>> bool(jnp.allclose(loss.value(jnp.zeros((1, 3)), targets), 0.5 * 0.5**2 + jnp.log(2.0)))
        True
    """

    name: ClassVar[str] = "per output"
    losses: tuple[AbstractLoss, ...]
    widths: tuple[int, ...] = eqx.field(static=True)
    weights: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, *parts):
        filled = [(*part, 1.0) if isinstance(part, tuple) and len(part) == 2 else part for part in parts]
        for part in filled:
            if not (isinstance(part, tuple) and len(part) == 3 and isinstance(part[0], AbstractLoss)):
                raise TypeError(f"`PerOutput({part!r})`: each part must be (loss, columns) or (loss, columns, weight).")
            if not isinstance(part[1], int) or part[1] < 1:
                raise ValueError(f"`PerOutput`: {part[0]!r} has columns={part[1]!r}; must be a whole number from 1 up.")
            if not (math.isfinite(part[2]) and part[2] > 0):
                raise ValueError(f"`PerOutput`: {part[0]!r} has weight={part[2]!r}; must be positive and finite.")
        if not filled:
            raise ValueError("`PerOutput()`: needs at least one part (loss, columns).")
        self.losses, self.widths, weights = zip(*filled, strict=True)
        self.weights = tuple(float(weight) for weight in weights)

    @property
    def estimates_noise(self):
        """Whether every part does, at weight 1: one σ² stands for all outputs."""
        return all(loss.estimates_noise for loss in self.losses) and set(self.weights) == {1.0}

    @property
    def is_quadratic(self):
        """Whether every part is, at weight 1."""
        return all(loss.is_quadratic for loss in self.losses) and set(self.weights) == {1.0}

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n, columns in all], or with one column of labels for each softmax slice."""
        parts, labelled = self._slices(targets, outputs)
        encoded = [
            loss.encode(part[:, 0].astype(int) if labels else part, width)
            for loss, part, width, labels in zip(self.losses, parts, self.widths, labelled, strict=True)
        ]
        return jnp.concatenate(encoded, axis=1)

    def check(self, targets, outputs):
        """Each slice by its own loss; labels must be whole numbers."""
        parts, labelled = self._slices(targets, outputs)
        for loss, part, width, labels in zip(self.losses, parts, self.widths, labelled, strict=True):
            if labels and np.any(part != np.round(part)):
                odd = part[part != np.round(part)][0]
                raise ValueError(f"`PerOutput`: the labels of {loss!r} must be whole numbers; {odd:g} is among them.")
            loss.check(part[:, 0].astype(int) if labels else part, width)

    def value(self, outputs, targets):
        """Σ_j β_j ℓ_j."""
        terms = [weight * loss.value(o, y) for loss, weight, o, y in self._zipped(outputs, targets)]
        return jnp.sum(jnp.stack(terms), axis=0)

    def gradient(self, outputs, targets):
        """The gradients of the slices side by side, each times its weight."""
        return jnp.concatenate(
            [weight * loss.gradient(o, y) for loss, weight, o, y in self._zipped(outputs, targets)], axis=1
        )

    def hessian_factor(self, outputs, targets):
        """√β_j S_j, block by block."""
        blocks = tuple(loss.hessian_factor(o, y) for loss, _, o, y in self._zipped(outputs, targets))
        return BlockFactor(blocks, self.widths, tuple(math.sqrt(weight) for weight in self.weights))

    def whitened_residual(self, outputs, targets):
        """√β_j r_j side by side."""
        return jnp.concatenate(
            [math.sqrt(weight) * loss.whitened_residual(o, y) for loss, weight, o, y in self._zipped(outputs, targets)],
            axis=1,
        )

    def concordance(self, slopes):
        """The largest κ of the slices: at ν = 2 weights change nothing."""
        parts = zip(self.losses, in_slices(slopes, self.widths), strict=True)
        return jnp.max(jnp.stack([loss.concordance(part) for loss, part in parts]))

    def _zipped(self, outputs: Array, targets: Array):
        slices = (in_slices(x, self.widths) for x in (outputs, targets))
        return zip(self.losses, self.weights, *slices, strict=True)

    def _slices(self, targets, outputs: int):
        """The targets of each slice, and whether they are labels."""
        if sum(self.widths) != outputs:
            raise ValueError(
                f"`PerOutput` has {' + '.join(map(str, self.widths))} = {sum(self.widths)} columns and the model "
                f"{outputs} outputs; the two must be equal."
            )
        targets = targets[:, None] if targets.ndim == 1 else targets
        labelled = [loss.takes_labels and width > 1 for loss, width in zip(self.losses, self.widths, strict=True)]
        short = tuple(1 if labels else width for width, labels in zip(self.widths, labelled, strict=True))
        if targets.ndim == 2 and targets.shape[1] == outputs:
            return in_slices(targets, self.widths), [False] * len(self.widths)
        if targets.ndim == 2 and targets.shape[1] == sum(short):
            return in_slices(targets, short), labelled
        also = f" or [n, {sum(short)}], with one column of labels for each softmax slice," if any(labelled) else ""
        raise ValueError(f"`PerOutput` needs targets [n, {outputs}]{also} for its slices; got shape {targets.shape}.")
