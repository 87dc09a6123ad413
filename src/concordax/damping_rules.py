"""How the damping λ of a trust region follows the gain ratio ρ = (F(θ) − F(θ+δ)) / (decrease of the quadratic model).

A rule gives one factor for λ after a step that was taken and one after a trial that was refused. Refusals in a row
raise λ ever faster: by `growth` at least, which doubles with each.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Below this a gain ratio counts as this: what it divides stays finite.
_LEAST_RATIO = 1e-4
# The gain ratio that the damping steers to. At one half, where Nielsen's rule rests, the softmax of a network holds it
# ten to a hundred times too high for as long as anyone would wait: steps that gain a quarter of what the model promises
# gain more in all.
_GAIN = 0.25


class AbstractDampingRule(eqx.Module):
    """A rule for the damping of `TrustRegion`."""

    @property
    def growth(self) -> float:
        """The factor of a first refusal; each further one has twice the factor of the one before."""
        return 2.0

    @abstractmethod
    def after_step(self, ratio: Float[Array, ""], refused: Bool[Array, ""]) -> Float[Array, ""]:
        """The factor after a step that was taken at gain ratio ρ; `refused`: not at its first trial."""

    def after_refusal(self, ratio: Float[Array, ""], growth: Float[Array, ""]) -> Float[Array, ""]:
        """The factor after a trial that was refused; ρ is −∞ or NaN where nothing can be compared."""
        del ratio
        return growth


class MissedShare(AbstractDampingRule):
    """λ·√((1−ρ)/(1−¼)): the share 1 − ρ of its promise that the model missed falls with about the square of λ.

    After a step whose first trial was taken it is λ/(4ρ) where that is less, and never less than 0.03 λ. A refusal
    raises it by the root, up to 4, and by 1.5, 3, 6, ... at least. By 1/(4ρ) alone λ falls too far after a refusal, and
    steps near the end of a run are refused again and again.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(MissedShare().after_step(jnp.asarray(1 - 0.27), jnp.asarray(True))), 6)
        0.6
    """

    @property
    def growth(self):
        """1.5."""
        return 1.5

    def after_step(self, ratio, refused):
        """The root; without a refusal, the less of it and 1/(4ρ)."""
        root = _root(ratio)
        return jnp.maximum(jnp.where(refused, root, jnp.minimum(root, _quarter(ratio))), 0.03)

    def after_refusal(self, ratio, growth):
        """The root up to 4, and `growth` at least."""
        return jnp.maximum(growth, jnp.minimum(_root(ratio), 4.0))


class GainRatio(AbstractDampingRule):
    """λ/(4ρ), a factor from 1/10 to 2; after a refusal λ·2, 4, 8, ...

    What the data choose on the way, a strength or the step to stop at, comes out better than by `MissedShare`.

    Example:
        >>> import jax.numpy as jnp
        >>> float(GainRatio().after_step(jnp.asarray(0.5), jnp.asarray(False)))
        0.5
    """

    def after_step(self, ratio, refused):
        """1/(4ρ)."""
        del refused
        return jnp.clip(_quarter(ratio), 0.1, 2.0)


class Nielsen(AbstractDampingRule):
    """λ·max(⅓, 1 − (2ρ−1)³); after a refusal λ·2, 4, 8, ...: at rest where the model promises twice the gain.

    Source: Nielsen, IMM-REP-1999-05.

    Example:
        >>> import jax.numpy as jnp
        >>> float(Nielsen().after_step(jnp.asarray(0.5), jnp.asarray(False)))
        1.0
    """

    def after_step(self, ratio, refused):
        """max(⅓, 1 − (2ρ−1)³)."""
        del refused
        return jnp.maximum(1 - (2 * ratio - 1) ** 3, 1 / 3)


def _quarter(ratio: Float[Array, ""]) -> Float[Array, ""]:
    return _GAIN / jnp.maximum(ratio, _LEAST_RATIO)


def _root(ratio: Float[Array, ""]) -> Float[Array, ""]:
    """√((1−ρ)/(1−¼)), without bound where there is nothing to compare."""
    missed = jnp.where(jnp.isfinite(ratio), jnp.maximum(1 - ratio, 0.0), jnp.inf)
    return jnp.sqrt(missed / (1 - _GAIN))
