"""The smooth group lasso."""

import equinox as eqx
import jax.numpy as jnp

from ..groups import Groups
from ..linalg import long_sum
from ..metrics import DiagonalMetric, GroupMetric
from ..self_concordance import SelfConcordance
from .base import AbstractRegularizer, checked


class GroupPseudoHuber(AbstractRegularizer):
    """A smooth group lasso: g = Σ_g ω_g (s_g − μ), s_g = √(μ² + ‖x_g‖²); parameters that stand alone are groups of one.

    H_g = (ω/s)(I − x xᵀ/s²), H_g⁻¹ = (s/ω)(I + x xᵀ/μ²). Whole groups are drawn to zero together. (M, ν) = (1.5/μ, 2);
    none above ν = 2 holds, since across a large group H falls like 1/s while along it D³g does.

    Args:
        smoothing: μ > 0, in units of the norms of the groups.
        groups: which parameters belong together, and their weights ω.

    Raises:
        ValueError: for a smoothing that is not positive and finite, or parameters of another number.
        TypeError: for groups that are no `Groups`.

    Source: Yuan & Lin, JRSS B 68, 2006, for the penalty; smoothed as in arXiv 2309.01781.

    Example:
        >>> import jax.numpy as jnp
        >>> group = GroupPseudoHuber(1e-6, Groups([0, 0, 1]))
        >>> bool(jnp.isclose(group.value(jnp.array([3.0, 4.0, -2.0])), 7.0, atol=1e-4))
        True
    """

    smoothing: float
    groups: Groups = eqx.field(static=True)

    def __init__(self, smoothing: float, groups):
        if not isinstance(groups, Groups):
            raise TypeError(f"`GroupPseudoHuber(groups={groups!r})`: must be a cx.Groups, as cx.Groups.inputs(params).")
        self.smoothing, self.groups = checked("GroupPseudoHuber", "smoothing", smoothing), groups

    def _scaled(self, x):
        """T = x/μ, √(1 + ‖t_g‖²) of each parameter's group, and its ω."""
        if x.shape != (self.groups.size,):
            raise ValueError(
                f"`GroupPseudoHuber` was built for {self.groups.size} parameters; the model has {x.size}. Make the "
                "groups from the same parameters, as in cx.Groups.inputs(params)."
            )
        # Cut where the square of a group would overflow.
        largest = 0.5 * (float(jnp.finfo(x.dtype).max) / self.groups.size) ** 0.5
        t = jnp.clip(x * (1 / self.smoothing), -largest, largest)
        squares = self.groups.spread(self.groups.total(t**2))
        root = jnp.sqrt(1 + jnp.where(self.groups.alone, t**2, squares))
        return t, root, self.groups.spread(jnp.asarray(self.groups.weights, x.dtype), alone=1.0)

    def value(self, x):
        """Σ ω ‖x‖²/(s + μ), summed over parameters: ω(s − μ) without its cancellation."""
        return self.smoothing * long_sum(lambda t, root, weight: weight * t * (t / (1 + root)), *self._scaled(x))

    def gradient(self, x):
        """ω x/s."""
        t, root, weight = self._scaled(x)
        return weight * t / root

    def metric(self, x):
        """H⁻¹ = (s/ω)(I + x xᵀ/μ²) of each group."""
        t, root, weight = self._scaled(x)
        scale = self.smoothing * root / weight
        alone = self.groups.alone
        inverse = jnp.where(alone, scale * root**2, scale)
        return GroupMetric(inverse, jnp.where(alone, 0.0, jnp.sqrt(scale) * t), self.groups)

    def damping_metric(self, x):
        """ω/μ, the curvature at 0."""
        _, _, weight = self._scaled(x)
        return DiagonalMetric(self.smoothing / (weight * jnp.ones_like(x)))

    def constants(self):
        """(1.5/μ, 2)."""
        return (SelfConcordance(1.5, 2.0).smoothed(self.smoothing),)

    def concordance(self, direction):
        """1.5 max ‖δ_g‖/μ."""
        alone = jnp.max(jnp.where(self.groups.alone, jnp.abs(direction), 0.0))
        largest = jnp.maximum(jnp.sqrt(jnp.max(self.groups.total(direction**2))), alone)
        return 1.5 * largest / self.smoothing

    def published_constants(self):
        """(2, 2.6), as published; it holds for no group of more than one."""
        return SelfConcordance(2.0, 2.6).smoothed(self.smoothing)
