"""Constants (M, ν) of a function of one variable, found and checked by numbers."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Points a decade of a branch, fine where functions usually bend; a function of width 1 at 300 is met by several.
_COARSE, _FINE = 48, 480
# The stencil around each point, in relative steps, whose fourth difference tells rounding from curvature.
_STENCIL = 1 + 3e-6 * np.arange(-2, 3)
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / math.sqrt(70)
# Rounding is judged by the worst of so many points on both sides: a single stencil may look smooth by chance.
_WINDOW = 6
# A ratio counts where it is known to this, and is unbounded where its logarithm keeps growing by this much.
_NOISE, _GROWTH = 1e-8, 1e-3


class Supremum(NamedTuple):
    """The supremum M of |φ'''|/(φ'')^{ν/2}, ν, and the t where it is reached.

    Where the ratio only approaches M at an end of the domain, `at` is the last t at which it is known; where it grows
    without bound, M is `inf` and `at` that end.
    """

    constant: float
    order: float
    at: float


class Verdict(NamedTuple):
    """Whether |φ'''| ≤ M (φ'')^{ν/2} was found to hold, the largest ratio of the two sides, and the t where it is."""

    holds: bool
    worst: float
    at: float

    def __bool__(self) -> bool:
        return self.holds


class _Branch(NamedTuple):
    """Points a ± s on one side of an end a of the domain or of 0, s growing; `endless` where s → ∞ is an end too."""

    origin: float
    sign: float
    distances: np.ndarray
    endless: bool


def tightest(phi: Callable, order: float, *, domain: tuple[float, float] = (-math.inf, math.inf)) -> Supremum:
    """The least M with |φ'''(t)| ≤ M φ''(t)^{ν/2} over a domain: derivatives by JAX in float64, on grids.

    The grids are logarithmic on both sides of 0, or of the domain's ends, over 24 decades, and refined around the
    largest ratio. A ratio counts only where rounding leaves it eight digits: derivatives of √(1+t²) have none beyond
    t = 10⁴. A ratio that still grows at a steady power of t where the digits end is `inf`; so a supremum that is
    approached as slowly as a logarithm is, or that lies in a bend narrower than a fiftieth of its distance from 0, is
    missed. Evidence, then, and not a proof.

    Args:
        phi: a convex function of a scalar, of JAX operations, with three derivatives.
        order: ν ≥ 0.
        domain: the open interval on which φ is meant.

    Returns:
        The supremum with the t where it is reached.

    Raises:
        ValueError: for an empty domain, a negative order, or a φ that is not convex or nowhere finite on the domain.

    Source: Sun & Tran-Dinh, Math. Program. 178, 2019, Definition 1.

    Example:
        >>> import jax.numpy as jnp
        >>> found = tightest(lambda t: jnp.sqrt(1 + t**2), 2.6)
        >>> round(found.constant, 4), round(found.at**2, 3)
        (2.5372, 10.0)
    """
    low, high = (float(end) for end in domain)
    if not low < high or not order >= 0:
        raise ValueError(
            f"`tightest(order={order!r}, domain={domain!r})`: needs an order from 0 up and a domain (low, high) with "
            "low below high."
        )
    branches = _branches(low, high)
    ratio = _Ratio(phi, order, domain)
    values = [ratio(branch) for branch in branches]
    if not any(np.isfinite(value).any() for value in values):
        raise ValueError(
            f"`tightest(domain={domain!r})`: φ has no point in the domain where its second and third derivatives are "
            "finite and φ'' positive, to eight digits. Write it without cancellation, or give the domain on which it "
            "is meant."
        )
    for branch, value in zip(branches, values, strict=True):
        end = _unbounded_end(branch, value)
        if end is not None:
            return Supremum(math.inf, float(order), end)
    pairs = [ratio.refined(branch, value) for branch, value in zip(branches, values, strict=True)]
    points, found = (np.concatenate(part) for part in zip(*pairs, strict=True))
    largest = np.nanmax(found)
    # Of points that differ by rounding alone, the one nearest to 0: e^−t has the same ratio everywhere.
    ties = points[found >= largest * (1 - 1e-12)]
    return Supremum(float(largest), float(order), float(ties[np.argmin(np.abs(ties))]))


def verify(
    phi: Callable, constant: float, order: float, *, domain: tuple[float, float] = (-math.inf, math.inf)
) -> Verdict:
    """Whether φ is (M, ν)-generalised self-concordant on a domain, by the search of `tightest`.

    Args:
        phi: a convex function of a scalar, of JAX operations.
        constant: M ≥ 0.
        order: ν ≥ 0.
        domain: the open interval on which φ is meant.

    Returns:
        A `Verdict`, true where the constant holds to eight digits, with the worst ratio, 1 where M is tight, and where
        it is.

    Raises:
        ValueError: for a constant that is negative or not finite, and as in `tightest`.

    Example:
        >>> import jax.numpy as jnp
        >>> published = verify(lambda t: jnp.sqrt(1 + t**2), 2.0, 2.6)
        >>> published.holds, round(published.worst, 4)
        (False, 1.2686)
    """
    if not (math.isfinite(constant) and constant >= 0):
        raise ValueError(f"`verify(constant={constant!r})`: must be a finite number from 0 up.")
    found = tightest(phi, order, domain=domain)
    worst = found.constant / constant if constant > 0 else math.inf if found.constant > 0 else 0.0
    return Verdict(worst <= 1 + _NOISE, worst, found.at)


class _Ratio:
    """|φ'''|/(φ'')^{ν/2} along a branch, NaN where it is not known to eight digits."""

    def __init__(self, phi: Callable, order: float, domain):
        second = jax.jacfwd(jax.jacfwd(phi))
        self._derivatives = jax.jit(jax.vmap(lambda t: (second(t), jax.jacfwd(second)(t))))
        self._order, self._domain = order, domain

    def __call__(self, branch: _Branch) -> np.ndarray:
        # Steps in the distance from the origin, so that they stay within the domain however near its end.
        around = branch.origin + branch.sign * branch.distances[:, None] * _STENCIL
        with jax.enable_x64(True):
            parts = self._derivatives(jnp.asarray(around.ravel(), float))
            second, third = (np.asarray(part).reshape(around.shape) for part in parts)
        with np.errstate(all="ignore"):
            blurred_second, blurred_third = np.abs(second @ _FOURTH), np.abs(third @ _FOURTH)
            second, third = second[:, 2], third[:, 2]
            bent = (second < 0) & (_largest_around(blurred_second) <= 1e-4 * -second)
            if bent.any():
                raise ValueError(
                    f"`tightest`: φ is not convex on the domain {self._domain}: its second derivative is "
                    f"{second[bent][0]:.3g} at t = {around[bent][0, 2]:g}."
                )
            weight = second ** (-self._order / 2)
            ratio = np.abs(third) * weight
            noise = blurred_third * weight + ratio * (self._order / 2) * blurred_second / second
        noise = np.where((second > np.finfo(float).tiny) & np.isfinite(noise), noise, np.inf)
        known = _largest_around(noise) <= _NOISE * _largest_around(np.where(np.isfinite(noise), ratio, 0.0))
        return np.where(known, ratio, np.nan)

    def refined(self, branch: _Branch, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The branch's points and ratios, with as many more between the neighbors of the largest."""
        distances = branch.distances
        if np.isfinite(values).any():
            best = int(np.nanargmax(values))
            low, high = distances[max(best - 1, 0)], distances[min(best + 1, len(distances) - 1)]
            # As many as the branch has: they share its program.
            between = branch._replace(distances=np.linspace(low, high, len(distances)))
            distances, values = (
                np.concatenate(pair) for pair in ((distances, between.distances), (values, self(between)))
            )
        return branch.origin + branch.sign * distances, values


def _largest_around(x: np.ndarray) -> np.ndarray:
    """The largest of the neighbors within _WINDOW, itself included."""
    padded = np.pad(x, _WINDOW, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * _WINDOW + 1).max(axis=1)


def _branches(low: float, high: float) -> list[_Branch]:
    if math.isinf(low) and math.isinf(high):
        return [_Branch(0.0, sign, _distances(16), True) for sign in (1.0, -1.0)]
    if math.isinf(high):
        return [_Branch(low, 1.0, _distances(16), True)]
    if math.isinf(low):
        return [_Branch(high, -1.0, _distances(16), True)]
    half = 0.5 * (high - low) * _distances(0)
    return [_Branch(low, 1.0, half, False), _Branch(high, -1.0, half, False)]


def _distances(decades: int) -> np.ndarray:
    """From 10⁻⁸ to 10^decades, dense from 10⁻³ to 10³."""
    edges = sorted({-8, -3, min(3, decades), decades})
    pieces = [
        np.logspace(a, b, (b - a) * (_FINE if a >= -3 and b <= 3 else _COARSE), endpoint=False)
        for a, b in pairwise(edges)
    ]
    return np.concatenate([*pieces, [10.0**decades]])


def _unbounded_end(branch: _Branch, values: np.ndarray) -> float | None:
    """The end at which the ratio grows without bound; None where it does not."""
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        return None
    log_s, log_f = np.log(branch.distances[known]), np.log(values[known])
    if branch.endless and _grows(log_s, log_f):
        return branch.sign * math.inf
    return branch.origin if _grows(-log_s[::-1], log_f[::-1]) else None


def _grows(log_s: np.ndarray, log_f: np.ndarray) -> bool:
    """Whether log f rises at an unbroken slope over the last two decades of s that are known."""
    decade = math.log(10)
    slopes = []
    for upper in (log_s[-1], log_s[-1] - decade):
        chosen = (log_s <= upper) & (log_s >= upper - decade)
        if chosen.sum() < 3:
            return False
        slopes.append(np.polyfit(log_s[chosen], log_f[chosen], 1)[0])
    last, before = slopes
    # What settles to a limit rises ever less: at the power −p of s, 10⁻ᵖ of the slope a decade before.
    return bool(last > _GROWTH and last > 0.7 * before)
