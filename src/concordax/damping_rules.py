"""How the damping λ of a trust region follows the gain ratio ρ = (F(θ) − F(θ+δ)) / (decrease of the quadratic model).

A rule gives one factor for λ after a step that was taken and one after a trial that was refused. Refusals in a row
raise λ ever faster: by `growth` at least, which doubles with each. After a step λ falls to no less than `least` of
itself, which a rule may let depend on how many steps were refused of late.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Below this a gain ratio counts as this: what it divides stays finite.
_LEAST_RATIO = 1e-4
# The gain ratio that the damping steers to. At one half, where Nielsen's rule rests, the softmax of a network holds it
# ten to a hundred times too high for as long as anyone would wait: steps that gain a quarter of what the model promises
# gain more in all.
_GAIN = 0.25
# How the least factor of `MissedShare` follows refusals, and the most that it becomes. A λ that may always fall to 0.03
# of itself is refused at every other step where weights are far above the smoothing, one that never falls below a fifth
# takes one to three steps more to a loss of 1e-8 where none is refused.
_RAISED, _LOWERED, _MOST = 10.0, 0.95, 0.5
# Refusals in a step that are put down to that. Where a kink sharpens under the weights a dozen raise λ to the
# ten-thousandfold: coming down by halves, steps then gain so little that the run seems to have converged.
_FEW = 4


class AbstractDampingRule(eqx.Module):
    """A rule for the damping of `TrustRegion`."""

    @property
    def growth(self) -> float:
        """The factor of a first refusal; each further one has twice the factor of the one before."""
        return 2.0

    @property
    @abstractmethod
    def least(self) -> float:
        """The least factor after a step, at the start of a run."""

    def least_after(self, least: Float[Array, ""], refusals: Int[Array, ""]) -> Float[Array, ""]:
        """The least factor of the next step, from that of one taken after so many refusals."""
        del refusals
        return least

    @abstractmethod
    def after_step(
        self, ratio: Float[Array, ""], refused: Bool[Array, ""], least: Float[Array, ""] | float
    ) -> Float[Array, ""]:
        """The factor after a step that was taken at gain ratio ρ, `least` at least."""

    def after_refusal(self, ratio: Float[Array, ""], growth: Float[Array, ""]) -> Float[Array, ""]:
        """The factor after a trial that was refused; ρ is −∞ or NaN where nothing can be compared."""
        del ratio
        return growth


class MissedShare(AbstractDampingRule):
    """λ·√((1−ρ)/(1−¼)): the share 1 − ρ of its promise that the model missed falls with about the square of λ.

    After a step whose first trial was taken it is λ/(4ρ) where that is less. A refusal raises it by the root, up to 4,
    and by 1.5, 3, 6, ... at least. By 1/(4ρ) alone λ falls too far after a refusal, and steps near the end of a run are
    refused again and again.

    λ falls to 0.01 of itself in one step, until trials are refused for it: each step with refusals lets it fall ten
    times less far, at most to one half, and each without one 5 % farther again. Five refusals in a step raise λ far
    past what was needed, and it may fall as at the start.

    Example:
        >>> import jax.numpy as jnp
        >>> rule, refused = MissedShare(), jnp.asarray(True)
        >>> round(float(rule.after_step(jnp.asarray(1 - 0.27), refused, rule.least)), 6)
        0.6
        >>> round(float(rule.least_after(jnp.asarray(rule.least), jnp.asarray(1))), 6)
        0.1
    """

    @property
    def growth(self):
        """1.5."""
        return 1.5

    @property
    def least(self):
        """0.01."""
        return 0.01

    def least_after(self, least, refusals):
        """Ten times as much after one to four refusals, up to ½; 5 % less after none; 0.01 after more."""
        raised, lowered = jnp.minimum(_RAISED * least, _MOST), jnp.maximum(_LOWERED * least, self.least)
        return jnp.select([refusals == 0, refusals <= _FEW], [lowered, raised], self.least)

    def after_step(self, ratio, refused, least):
        """The root; without a refusal, the less of it and 1/(4ρ)."""
        root = _root(ratio)
        return jnp.maximum(jnp.where(refused, root, jnp.minimum(root, _quarter(ratio))), least)

    def after_refusal(self, ratio, growth):
        """The root up to 4, and `growth` at least."""
        return jnp.maximum(growth, jnp.minimum(_root(ratio), 4.0))


class GainRatio(AbstractDampingRule):
    """λ/(4ρ), a factor from 1/10 to 2; after a refusal λ·2, 4, 8, ...

    What the data choose on the way, a strength or the step to stop at, comes out better than by `MissedShare`.

    Example:
        >>> import jax.numpy as jnp
        >>> float(GainRatio().after_step(jnp.asarray(0.5), jnp.asarray(False), GainRatio().least))
        0.5
    """

    @property
    def least(self):
        """1/10."""
        return 0.1

    def after_step(self, ratio, refused, least):
        """1/(4ρ)."""
        del refused
        return jnp.clip(_quarter(ratio), least, 2.0)


class Nielsen(AbstractDampingRule):
    """λ·max(⅓, 1 − (2ρ−1)³); after a refusal λ·2, 4, 8, ...: at rest where the model promises twice the gain.

    Source: Nielsen, IMM-REP-1999-05.

    Example:
        >>> import jax.numpy as jnp
        >>> float(Nielsen().after_step(jnp.asarray(0.5), jnp.asarray(False), Nielsen().least))
        1.0
    """

    @property
    def least(self):
        """⅓."""
        return 1 / 3

    def after_step(self, ratio, refused, least):
        """max(⅓, 1 − (2ρ−1)³)."""
        del refused
        return jnp.maximum(1 - (2 * ratio - 1) ** 3, least)


def _quarter(ratio: Float[Array, ""]) -> Float[Array, ""]:
    return _GAIN / jnp.maximum(ratio, _LEAST_RATIO)


def _root(ratio: Float[Array, ""]) -> Float[Array, ""]:
    """√((1−ρ)/(1−¼)), without bound where there is nothing to compare."""
    missed = jnp.where(jnp.isfinite(ratio), jnp.maximum(1 - ratio, 0.0), jnp.inf)
    return jnp.sqrt(missed / (1 - _GAIN))
