"""The group lasso and, with an ℓ1 part, the sparse group lasso."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..groups import Groups
from ..metrics import GroupMetric
from .base import AbstractPenalty, soft_threshold

# Newton steps for the norm of each group: for equal h one is exact, else digits double from step to step.
_ROUNDS = 40


class GroupLasso(AbstractPenalty):
    """R = Σ_g ω_g ‖x_g‖ + ρ‖x‖₁: whole groups that the data do not need are exactly zero.

    Parameters that stand alone are free but for the ℓ1 part.

    Args:
        groups: which parameters belong together, and their weights ω.
        l1: ρ ≥ 0; above 0 it is the sparse group lasso, with zeros within the groups that stay.

    Raises:
        TypeError: for groups that are no `Groups`.
        ValueError: for an ℓ1 part that is negative or not finite.

    Source: Yuan & Lin, JRSS B 68, 2006; Simon, Friedman, Hastie & Tibshirani, JCGS 22, 2013.

    Example:
        >>> import jax.numpy as jnp
        >>> lasso = GroupLasso(Groups([0, 0, 1]))
        >>> lasso.prox(jnp.array([3.0, 4.0, 0.5]), jnp.ones(3), jnp.array(1.0)).round(3).tolist()
        [2.4, 3.2, 0.0]
    """

    groups: Groups = eqx.field(static=True)
    l1: float = eqx.field(static=True)

    def __init__(self, groups, l1: float = 0.0):
        if not isinstance(groups, Groups):
            raise TypeError(f"`GroupLasso(groups={groups!r})`: must be a cx.Groups, as cx.Groups.inputs(params).")
        if not (math.isfinite(l1) and l1 >= 0):
            raise ValueError(f"`GroupLasso(l1={l1!r})`: must be a finite number from 0 up.")
        self.groups, self.l1 = groups, float(l1)

    def value(self, x):
        """Σ ω ‖x_g‖ + ρ‖x‖₁."""
        norms = jnp.sqrt(self.groups.total(x**2))
        return jnp.sum(self._weights(x) * norms) + self.l1 * jnp.sum(jnp.abs(x))

    def prox(self, z, h, weight):
        """Soft thresholding, then h s/(h + c/r) in each group, c = τω, at the norm r of the result.

        r is where Σ (h s/(h r + c))² = 1, and none exists, so that x_g = 0, where ‖h s‖ ≤ c. Newton on the inverse
        root of that sum, which is concave in r and a straight line for equal h: iterates rise to the solution.
        """
        s = soft_threshold(z, weight * self.l1 / h)
        force = h * s
        c = weight * self._weights(z)
        active = jnp.sqrt(self.groups.total(force**2)) > c

        def newton(_, r):
            denominator = h * self.groups.spread(r) + self.groups.spread(c, alone=1.0)
            share = self.groups.total((force / denominator) ** 2)
            slope = -2 * self.groups.total(h * force**2 / denominator**3)
            # 1/√share − 1 over its derivative −½ slope share^{−3/2}.
            move = (1 - jnp.sqrt(share)) * share / (-0.5 * slope)
            return jnp.maximum(r + jnp.where(active, -move, 0.0), 0.0)

        r = jax.lax.fori_loop(0, _ROUNDS, newton, jnp.zeros_like(c))
        kept = active & (r > 0)
        pull = self.groups.spread(c / jnp.where(kept, r, 1.0))
        inside = jnp.where(self.groups.spread(kept.astype(z.dtype)) > 0, force / (h + pull), 0.0)
        return jnp.where(self.groups.alone, s, inside)

    def curvature(self, x, h, weight):
        """diag(h) + (c/r)(I − x̂ x̂ᵀ) of each group where x is not zero.

        The inverse is D + w wᵀ, D = 1/(h + a), w = D n √(a/γ), with a = c/r, n = x̂ and γ = 1 − a nᵀDn = Σ n² h D.
        """
        norms = jnp.sqrt(self.groups.total(x**2))
        safe = jnp.where(norms > 0, norms, 1.0)
        pull = self.groups.spread(weight * self._weights(x) / safe)
        inverse = jnp.where(x != 0, 1 / (h + pull), 0.0)
        unit = x / self.groups.spread(safe, alone=1.0)
        gap = self.groups.spread(jnp.where(norms > 0, self.groups.total(unit**2 * h * inverse), 1.0), alone=1.0)
        along = jnp.where(self.groups.alone, 0.0, inverse * unit * jnp.sqrt(pull / gap))
        return GroupMetric(inverse, along, self.groups)

    def _weights(self, x: Float[Array, " p"]) -> Float[Array, " g"]:
        if x.shape != (self.groups.size,):
            raise ValueError(
                f"`GroupLasso` was built for {self.groups.size} parameters; the model has {x.size}. Make the groups "
                "from the same parameters, as in cx.Groups.inputs(params)."
            )
        return jnp.asarray(self.groups.weights, x.dtype)
