"""What an activation makes of a Gaussian pair: E[φ(u) φ(v)] and E[φ'(u) φ'(v)], in closed form or by Hermite series."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..models import ACTIVATIONS, activation_function
from .hermite import QuadratureWarning, Shifted, pairs, shifted

# Correlations so near to ±1 are those of the same row, up to rounding.
_SAME = 16 * np.finfo(float).eps
# What a series may leave out, in units of the second moment.
_EXACT = 1e-11


class DualActivation(NamedTuple):
    """Gaussian expectations of an activation.

    Attributes:
        value: E[φ(u) φ(v)], [n1, n2].
        slope: E[φ'(u) φ'(v)], [n1, n2].
        error: a bound of what quadrature and series change in `value`, [n1, n2]; 0 for a closed form.
        slope_error: the same of `slope`.
    """

    value: Array
    slope: Array
    error: Array
    slope_error: Array


def dual_activation(
    activation: str | Callable,
    variance1,
    variance2,
    covariance,
    *,
    tolerance: float = 1e-6,
) -> DualActivation:
    """E[φ(u) φ(v)] and E[φ'(u) φ'(v)] of centred Gaussian pairs, with the error of each.

    relu, erf and linear have closed forms, by name or as the functions that the names stand for. Any other φ is
    expanded in Hermite polynomials, φ' by automatic differentiation: the error that is stated bounds what the series
    leaves out, by Cauchy and Schwarz, and adds what the quadrature of its coefficients changed when its nodes were
    doubled. For a smooth φ it is near rounding; a kink shows in it, most of all for φ' near a correlation of ±1.
    A derivative that automatic differentiation does not see, of a jump in φ, is not in it.

    Args:
        activation: a name (silu, tanh, relu, gelu, erf, linear) or a function on arrays, entry by entry.
        variance1: E u², [n1].
        variance2: E v², [n2].
        covariance: E u v, [n1, n2].
        tolerance: an error above so many times √(E φ(u)² E φ(v)²), or that of φ', is warned of.

    Returns:
        `DualActivation(value, slope, error, slope_error)`.

    Raises:
        ValueError: for an activation that is not finite, variances that are negative or not finite, shapes that do not
            fit, or a covariance that no pair of such variances has.

    Source: Cho & Saul, NeurIPS 2009 (relu); Williams, NeurIPS 1996 (erf); Daniely, Frostig & Singer, NeurIPS 2016
        (Hermite series).

    Example:
        >>> import numpy as np
        >>> one = np.ones(1)
        >>> dual = dual_activation("relu", one, one, np.array([[0.5]]))
        >>> bool(np.isclose(dual.slope[0, 0], (np.pi - np.arccos(0.5)) / (2 * np.pi)))
        True
        >>> smooth = dual_activation("tanh", one, one, np.array([[0.5]]))
        >>> round(float(smooth.value[0, 0]), 6), bool(smooth.error.max() < 1e-6)
        (0.186324, True)
    """
    q1, q2, c = _checked(variance1, variance2, covariance)
    with jax.enable_x64(True):
        dual = Dual(activation)
        one, two = dual.rows(q1), dual.rows(q2)
        found = dual.pairs(one, two, c)
        warn_of(dual, found, one, two, tolerance)
    return DualActivation(*(jnp.asarray(part) for part in found))


def _checked(variance1, variance2, covariance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q1, q2, c = (np.asarray(x, np.float64) for x in (variance1, variance2, covariance))
    if q1.ndim != 1 or q2.ndim != 1 or c.shape != (q1.size, q2.size) or not c.size:
        raise ValueError(
            f"`ntk.dual_activation` takes variances [n1] and [n2] and covariances [n1, n2]; got {q1.shape}, "
            f"{q2.shape}, {c.shape}."
        )
    for name, values in (("variance1", q1), ("variance2", q2)):
        if not (np.isfinite(values).all() and values.min() >= 0):
            raise ValueError(f"`ntk.dual_activation({name}=...)` must be finite and from 0 up; got {values.min():g}.")
    excess = np.abs(c) - np.sqrt(np.outer(q1, q2)) * (1 + 1e-6)
    if not excess.max() <= 0:
        raise ValueError(
            "`ntk.dual_activation(covariance=...)` must be at most √(variance1 variance2) in size; it is more by "
            f"{excess.max():g}."
        )
    return q1, q2, c


class Rows(NamedTuple):
    """What an activation makes of each row's variance.

    Attributes:
        variance: E u², [n].
        mean: E φ(u), [n].
        second: E φ(u)², [n].
        value: the series of φ(√q z); None where there is a closed form.
        slope: that of φ'.
    """

    variance: np.ndarray
    mean: np.ndarray
    second: np.ndarray
    value: Shifted | None = None
    slope: Shifted | None = None

    def part(self, where: slice) -> "Rows":
        """Some of the rows."""
        value, slope = (None if side is None else side.part(where) for side in (self.value, self.slope))
        return Rows(self.variance[where], self.mean[where], self.second[where], value, slope)


class Dual:
    """An activation with its expectations; works in float64, within `jax.enable_x64`."""

    def __init__(self, activation: str | Callable):
        function = activation_function(activation)
        named = {ACTIVATIONS[name]: name for name in _CLOSED}
        self.name = activation if isinstance(activation, str) else getattr(activation, "__name__", repr(activation))
        self.closed = named.get(function)
        self.phi = functools.partial(_values, function, self.name)
        self.slope = functools.partial(_slopes, function, self.name)

    def rows(self, variance: np.ndarray) -> Rows:
        """The rows of these variances."""
        if self.closed is not None:
            _, mean, second = _CLOSED[self.closed]
            return Rows(variance, mean(variance), second(variance))
        nothing, root = np.zeros((variance.size, 1)), np.sqrt(variance)
        value, slope = (shifted(f, nothing, root, np.ones(1), _EXACT) for f in (self.phi, self.slope))
        first = value.expansion
        return Rows(variance, first.coefficients[:, 0, 0], first.second, value, slope)

    def pairs(self, one: Rows, two: Rows, covariance: Float[np.ndarray, "n m"]) -> "Pairs":
        """The expectations for all pairs."""
        if one.value is None or one.slope is None or two.value is None or two.slope is None:
            value, slope = _CLOSED[str(self.closed)][0](one.variance, two.variance, covariance)
            nothing = np.zeros_like(value)
            return Pairs(value, slope, nothing, nothing)
        rho = correlation(one.variance, two.variance, covariance)
        value, error = pairs(self.phi, one.value, two.value, rho)
        slope, slope_error = pairs(self.slope, one.slope, two.slope, rho)
        return Pairs(value, slope, error, slope_error)


class Pairs(NamedTuple):
    """As `DualActivation`, in NumPy."""

    value: np.ndarray
    slope: np.ndarray
    error: np.ndarray
    slope_error: np.ndarray


def warn_of(dual: Dual, found: Pairs, one: Rows, two: Rows, tolerance: float) -> None:
    """Warns where an error is above the tolerance, in units of the root mean squares."""
    for name, error, left, right in [
        ("E[φ(u) φ(v)]", found.error, one.value, two.value),
        ("E[φ'(u) φ'(v)]", found.slope_error, one.slope, two.slope),
    ]:
        if left is not None and right is not None:
            seconds = left.expansion.second, right.expansion.second
            warn_above(f"{name} of {dual.name}", error, seconds, tolerance)


def warn_above(name: str, error: np.ndarray, seconds: tuple[np.ndarray, np.ndarray], tolerance: float) -> None:
    """Warns of an error above the tolerance times the root of the second moments."""
    scale = np.sqrt(np.outer(*seconds))
    worst = float(np.max(np.where(scale > 0, error / np.where(scale > 0, scale, 1.0), 0.0)))
    if not worst <= tolerance:
        warnings.warn(
            f"{name} is known to {worst:.1e} of its size, tolerance={tolerance:g}. The activation has a kink, or the "
            "variances are so large that it looks like one: scale the inputs to variances near 1, use a smooth "
            "activation, or pass a larger tolerance.",
            QuadratureWarning,
            stacklevel=4,
        )


# The activation and its derivative as functions of NumPy arrays -------------------------------------------------------


def _values(function: Callable, name: str, x: np.ndarray) -> np.ndarray:
    return _finite(name, "", x, np.asarray(_evaluate(function, jnp.asarray(x)), np.float64))


def _slopes(function: Callable, name: str, x: np.ndarray) -> np.ndarray:
    return _finite(name, "the derivative of ", x, np.asarray(_differentiate(function, jnp.asarray(x)), np.float64))


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(function: Callable, x: Array) -> Array:
    return function(x)


@functools.partial(jax.jit, static_argnums=0)
def _differentiate(function: Callable, x: Array) -> Array:
    # Backwards: some activations have a rule of their own in that direction alone.
    value, pull = jax.vjp(function, x)
    return pull(jnp.ones_like(value))[0]


def _finite(name: str, what: str, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    if values.shape != x.shape:
        raise ValueError(f"activation {name} must act entry by entry; it made shape {values.shape} of {x.shape}.")
    if not np.isfinite(values).all():
        at = x[~np.isfinite(values)].ravel()[0]
        raise ValueError(
            f"{what}activation {name} is {values[~np.isfinite(values)].ravel()[0]} at {at:.4g}; it must be finite on "
            "the whole line, for Gaussian pre-activations come everywhere."
        )
    return values


# Closed forms ---------------------------------------------------------------------------------------------------------


# In NumPy: a few operations on each pair, which need no compilation for each shape.
def correlation(q1: np.ndarray, q2: np.ndarray, covariance: np.ndarray) -> Float[np.ndarray, "n m"]:
    """ρ, 0 where a variance is, and ±1 where it is so up to rounding."""
    root = np.sqrt(q1)[:, None] * np.sqrt(q2)
    rho = np.where(root > 0, covariance / np.where(root > 0, root, 1.0), 0.0)
    return np.where(np.abs(rho) > 1 - _SAME, np.sign(rho), rho)


def _relu(q1, q2, covariance):
    """Arc-cosine kernels of order 1 and 0; the derivative at 0 is 0, as everywhere in the library."""
    rho, root = correlation(q1, q2, covariance), np.sqrt(q1)[:, None] * np.sqrt(q2)
    slope = np.where(root > 0, (np.pi - np.arccos(rho)) / (2 * np.pi), 0.0)
    return root * (np.sqrt((1 - rho) * (1 + rho)) / (2 * np.pi) + rho * slope), slope


def _erf(q1, q2, covariance):
    """The arcsine kernel."""
    room = (1 + 2 * q1)[:, None] * (1 + 2 * q2)
    return 2 / np.pi * np.arcsin(2 * covariance / np.sqrt(room)), 4 / np.pi / np.sqrt(room - 4 * covariance**2)


def _linear(q1, q2, covariance):
    del q1, q2
    return covariance, np.ones_like(covariance)


# Pairs, E φ(√q z), E φ(√q z)².
_CLOSED: dict[str, tuple[Callable, Callable, Callable]] = {
    "relu": (_relu, lambda q: np.sqrt(q / (2 * np.pi)), lambda q: q / 2),
    "erf": (_erf, np.zeros_like, lambda q: 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q))),
    "linear": (_linear, np.zeros_like, lambda q: q),
}
