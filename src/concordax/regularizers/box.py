"""Smooth walls around an interval."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from ..linalg import long_sum, sum_of
from ..metrics import DiagonalMetric
from ..self_concordance import SelfConcordance
from .base import AbstractRegularizer, checked


class SmoothBox(AbstractRegularizer):
    """Walls at the ends of an interval: g = Σ μ φ((x − low)/μ) + μ φ((high − x)/μ), φ(t) = e^{−t}.

    With `linear`, φ(t) = log(1 + e^{−t}), which grows linearly outside instead of exponentially. Both have
    (M, ν) = (1, 2). Far from either wall there is no curvature left: add a small part of `L2`, as in
    `SmoothBox(0.0, None, 0.1) + 1e-3 * L2()`.

    Args:
        low: the lower end, or None.
        high: the upper end, or None.
        smoothing: μ > 0, the thickness of the walls, in units of the parameters.
        linear: whether the walls grow linearly.

    Raises:
        ValueError: for no end at all, ends in the wrong order, or a smoothing that is not positive and finite.

    Source: arXiv 2309.01781.

    Example:
        >>> import jax.numpy as jnp
        >>> box = SmoothBox(0.0, 1.0, 0.01)
        >>> inside, outside = box.value(jnp.array([0.5])), box.value(jnp.array([1.1]))
        >>> bool(inside < 1e-20), bool(outside > 100)
        (True, True)
    """

    low: float | None
    high: float | None
    smoothing: float
    linear: bool = eqx.field(static=True)

    def __init__(self, low: float | None, high: float | None, smoothing: float, *, linear: bool = False):
        ends = [end for end in (low, high) if end is not None]
        if not ends or not all(math.isfinite(end) for end in ends) or ends != sorted(set(ends)):
            raise ValueError(
                f"`SmoothBox(low={low!r}, high={high!r})`: give one end or both, finite, the lower one first; None is "
                "no wall."
            )
        self.low, self.high = low, high
        self.smoothing, self.linear = checked("SmoothBox", "smoothing", smoothing), bool(linear)

    def _walls(self, x):
        """(t, the sign of dt/dx) of each wall; t = 0 on it, positive inside."""
        if self.low is not None:
            yield (x - self.low) / self.smoothing, 1.0
        if self.high is not None:
            yield (self.high - x) / self.smoothing, -1.0

    def _wall(self, t):
        """φ, −φ' and φ''."""
        if self.linear:
            inside = jax.nn.sigmoid(-t)
            return jax.nn.softplus(-t), inside, inside * jax.nn.sigmoid(t)
        # Outside by more than this the value is of no use, but must not overflow.
        height = jnp.exp(jnp.minimum(-t, 0.25 * math.log(float(jnp.finfo(t.dtype).max))))
        return height, height, height

    def value(self, x):
        """μ Σ φ over the walls."""
        return self.smoothing * sum_of([long_sum(lambda t: self._wall(t)[0], t) for t, _ in self._walls(x)])

    def gradient(self, x):
        """Σ ∓φ' over the walls."""
        return sum_of([-sign * self._wall(t)[1] for t, sign in self._walls(x)])

    def metric(self, x):
        """Σ φ''/μ over the walls, on the diagonal."""
        curvature = sum_of([self._wall(t)[2] for t, _ in self._walls(x)])
        # H⁻¹ is kept finite where both walls are too far away to be felt.
        return DiagonalMetric(self.smoothing / jnp.maximum(curvature, float(jnp.finfo(x.dtype).tiny) ** 0.25))

    def damping_metric(self, x):
        """The larger of ∇²g and the curvature on a wall: inside there is none to speak of."""
        wall = self._wall(jnp.zeros((), x.dtype))[2]
        return DiagonalMetric(jnp.minimum(self.metric(x).inverse, self.smoothing / wall))

    def constants(self):
        """(1/μ, 2)."""
        return (SelfConcordance(1.0, 2.0).smoothed(self.smoothing),)

    def concordance(self, direction):
        """max|δ|/μ."""
        return jnp.max(jnp.abs(direction)) / self.smoothing
