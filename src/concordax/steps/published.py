"""The learning rate of the publication, as its authors wrote it."""

import math

import equinox as eqx
import jax.numpy as jnp

from .base import AbstractStep, fixed_damping


class PublishedStep(AbstractStep):
    """The learning rate of the published code: α = min(1, scale/(1 + M η)), η = √(τ∇g · H⁻¹ τ∇g).

    M = M_h p^{(3−ν)/2} μ^{ν/2−2} with (M_h, ν) = (2, 2.6) for pseudo-Huber. The pair does not hold (see
    `PseudoHuber`) and the power of p is not needed; both are kept here, and only here, to reproduce arXiv 2404.14875.
    The published mode is this rule with `damping = 1 − strength`.

    Args:
        scale: the numerator, 0.95 in the paper's first experiment.

    Raises:
        ValueError: if the scale is not a positive finite number.

    Example:
        >>> PublishedStep().scale
        0.95
    """

    scale: float = eqx.field(static=True)

    def __init__(self, scale: float = 0.95):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"`PublishedStep(scale={scale})`: the scale must be a positive finite number.")
        self.scale = float(scale)

    def init(self, like):
        """No state."""
        del like
        return ()

    def take(self, local, state):
        """One solve, one step of the published size."""
        gradient = local.strength * local.system.gradient
        eta = jnp.sqrt(jnp.sum(gradient * local.system.metric.solve(gradient)))
        constant = local.regularizer.published_constants().in_dimension(local.flat.shape[0])
        return fixed_damping(local, lambda _: jnp.minimum(1.0, self.scale / (1 + constant * eta))), state
