"""Regularizers that are a sum of one scalar function: g(x) = Σ μ φ(x/μ), given by φ, φ' and 1/φ''."""

import math
from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg import long_sum
from ..metrics import DiagonalMetric
from ..self_concordance import SelfConcordance
from .base import AbstractRegularizer, checked


class AbstractSeparable(AbstractRegularizer):
    """g = Σ μ φ(x/μ), ∇g = φ'(x/μ), H⁻¹ = μ/φ''(x/μ) on the diagonal; M of φ scales by μ^{ν/2−2}."""

    smoothing: eqx.AbstractVar[float]

    @abstractmethod
    def kernel(self, t: Float[Array, " p"]) -> Float[Array, " p"]:
        """φ(t), to full relative accuracy near 0."""

    @abstractmethod
    def slope(self, t: Float[Array, " p"]) -> Float[Array, " p"]:
        """φ'(t)."""

    @abstractmethod
    def inverse_curvature(self, t: Float[Array, " p"]) -> Float[Array, " p"]:
        """1/φ''(t), finite everywhere."""

    @abstractmethod
    def kernel_constants(self) -> tuple[SelfConcordance, ...]:
        """(M, ν) of φ."""

    def value(self, x):
        """μ Σ φ(x/μ)."""
        return self.smoothing * long_sum(self.kernel, self._scaled(x))

    def gradient(self, x):
        """φ'(x/μ)."""
        return self.slope(self._scaled(x))

    def metric(self, x):
        """H⁻¹ = μ/φ''(x/μ) on the diagonal."""
        return DiagonalMetric(self.smoothing * self.inverse_curvature(self._scaled(x)))

    def damping_metric(self, x):
        """The larger of φ''(x/μ)/μ and φ''(0)/μ: for a smooth ℓ1 norm always the second."""
        here, zero = (self.inverse_curvature(t) for t in (self._scaled(x), jnp.zeros_like(x)))
        return DiagonalMetric(self.smoothing * jnp.minimum(here, zero))

    def _scaled(self, x):
        """x/μ, with one division for all parameters."""
        return x * (1 / self.smoothing)

    def constants(self):
        """Those of φ, each times μ^{ν/2−2}."""
        return tuple(c.smoothed(self.smoothing) for c in self.kernel_constants())

    def concordance(self, direction):
        """M₂ max|δ|: of a sum over coordinates the largest counts, not their norm."""
        constant = self.constant_at(2.0)
        return None if constant is None else constant * jnp.max(jnp.abs(direction))


class OstrovskiiBach(AbstractSeparable):
    """A smooth ℓ1 norm with constants at ν = 3: φ = ½(u − log(1 + u/2)), u = √(1+4t²) − 1.

    With q = √(1+4t²): φ' = 2t/(q+1), φ'' = 2/(q(q+1)). The published ½(q − 1 + log((q − 1)/(2t²))) is the same by
    (q − 1)/(2t²) = 2/(q + 1), which needs no series at 0. (M, ν) = (1.591, 2) and (2√2, 3).

    Args:
        smoothing: μ > 0, in units of the parameters.

    Raises:
        ValueError: if the smoothing is not a positive finite number.

    Source: Ostrovskii & Bach, Electronic Journal of Statistics 15, 2021; arXiv 2309.01781.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(jnp.isclose(OstrovskiiBach(1e-4).value(jnp.array([2.0, -3.0])), 5.0, atol=2e-3))
        True
    """

    smoothing: float

    def __init__(self, smoothing: float):
        self.smoothing = checked("OstrovskiiBach", "smoothing", smoothing)

    def kernel(self, t):
        """½(u − log(1 + u/2)), u = 4t²/(q + 1); near 0, where u and its half cancel to the half, no digit is lost."""
        u = 4 * t * (t / (self._root(t) + 1))
        return 0.5 * (u - jnp.log1p(0.5 * u))

    def slope(self, t):
        """2t/(q + 1)."""
        return 2 * t / (self._root(t) + 1)

    def inverse_curvature(self, t):
        """q(q + 1)/2."""
        root = self._root(t)
        return 0.5 * root * (root + 1)

    @staticmethod
    def _root(t):
        largest = 0.25 * float(jnp.finfo(t.dtype).max) ** 0.5
        return jnp.sqrt(1 + 4 * jnp.clip(t, -largest, largest) ** 2)

    def kernel_constants(self):
        """(1.591, 2) and (2√2, 3)."""
        return (SelfConcordance(_OSTROVSKII_BACH_AT_2, 2.0), SelfConcordance(2 * math.sqrt(2), 3.0))

    def published_constants(self):
        """(2√2, 3)."""
        return SelfConcordance(2 * math.sqrt(2), 3.0).smoothed(self.smoothing)


class LogCosh(AbstractSeparable):
    """A smooth ℓ1 norm with exponential tails: φ = log cosh t, φ' = tanh t, φ'' = 1/cosh² t, (M, ν) = (2, 2).

    Beyond some ten μ the curvature is gone: a small part of `L2` beside it keeps the metric well scaled.

    Args:
        smoothing: μ > 0, in units of the parameters.

    Raises:
        ValueError: if the smoothing is not a positive finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(jnp.isclose(LogCosh(1e-3).value(jnp.array([2.0, -3.0])), 5.0, atol=2e-3))
        True
    """

    smoothing: float

    def __init__(self, smoothing: float):
        self.smoothing = checked("LogCosh", "smoothing", smoothing)

    def kernel(self, t):
        """½ log(1 + sinh² t) near 0, |t| + log(1 + e^{−2|t|}) − log 2 elsewhere."""
        size = jnp.abs(t)
        near = 0.5 * jnp.log1p(jnp.sinh(jnp.minimum(size, 1.0)) ** 2)
        return jnp.where(size < 1, near, size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2))

    def slope(self, t):
        """Tanh t."""
        return jnp.tanh(t)

    def inverse_curvature(self, t):
        """cosh² t, cut where its square would overflow."""
        largest = 0.25 * math.log(float(jnp.finfo(t.dtype).max))
        return jnp.cosh(jnp.clip(t, -largest, largest)) ** 2

    def kernel_constants(self):
        """(2, 2)."""
        return (SelfConcordance(2.0, 2.0),)


class HyperbolicEntropy(AbstractSeparable):
    """The entropy |t| log|t| for weights of either sign: φ = t asinh t − √(1+t²) + 1, φ'' = 1/√(1+t²).

    Between L2 (|x| ≪ μ) and the entropy (|x| ≫ μ), whose own (M, ν) = (1, 4) it takes there; (1/2, 2) and
    (√2/3^{3/4}, 3) hold everywhere. The plain entropy is defined for positive weights alone.

    Args:
        smoothing: μ > 0, in units of the parameters.

    Raises:
        ValueError: if the smoothing is not a positive finite number.

    Source: Ghai, Hazan & Singer, ALT 2020.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(jnp.isclose(HyperbolicEntropy(1.0).gradient(jnp.sinh(jnp.array([2.0])))[0], 2.0))
        True
    """

    smoothing: float

    def __init__(self, smoothing: float):
        self.smoothing = checked("HyperbolicEntropy", "smoothing", smoothing)

    def kernel(self, t):
        """T asinh t − t²/(1 + √(1+t²))."""
        return t * (jnp.arcsinh(t) - t / (1 + jnp.hypot(1.0, t)))

    def slope(self, t):
        """Asinh t."""
        return jnp.arcsinh(t)

    def inverse_curvature(self, t):
        """√(1+t²)."""
        return jnp.hypot(1.0, t)

    def kernel_constants(self):
        """(1/2, 2), (√2/3^{3/4}, 3) and (1, 4)."""
        return (SelfConcordance(0.5, 2.0), SelfConcordance(2**0.5 / 3**0.75, 3.0), SelfConcordance(1.0, 4.0))


class Elastic(AbstractSeparable):
    """The elastic net, smooth: pseudo-Huber and ridge, g = Σ μ(√(1+t²) − 1) + ½ ρ x², t = x/μ.

    The ridge gives curvature where the pseudo-Huber function has none left, and with it constants at every ν up to 3.

    Args:
        smoothing: μ > 0, in units of the parameters.
        ridge: ρ > 0.

    Raises:
        ValueError: if one of them is not a positive finite number.

    Source: Zou & Hastie, JRSS B 67, 2005, for the penalty.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(jnp.isclose(Elastic(1e-4, 2.0).value(jnp.array([3.0])), 3.0 + 9.0, atol=1e-3))
        True
    """

    # Constants of a program, not its arguments: those of self-concordance are found by numbers.
    smoothing: float = eqx.field(static=True)
    ridge: float = eqx.field(static=True)

    def __init__(self, smoothing: float, ridge: float):
        self.smoothing, self.ridge = checked("Elastic", "smoothing", smoothing), checked("Elastic", "ridge", ridge)

    @property
    def _share(self) -> float:
        """ρμ: the ridge as a part of φ."""
        return self.ridge * self.smoothing

    def kernel(self, t):
        """√(1+t²) − 1 + ½ρμt²."""
        return t * (t / (1 + jnp.hypot(1.0, t))) + 0.5 * self._share * t**2

    def slope(self, t):
        """t/√(1+t²) + ρμt."""
        return t / jnp.hypot(1.0, t) + self._share * t

    def inverse_curvature(self, t):
        """1/((1+t²)^{−3/2} + ρμ)."""
        return 1 / (jnp.hypot(1.0, t) ** -3 + self._share)

    def kernel_constants(self):
        """The suprema of |φ'''|/(φ'')^{ν/2} at ν = 2, 2.6 and 3."""
        share = self._share

        def ratio(order: float) -> Callable[[np.ndarray], np.ndarray]:
            return lambda t: 3 * t * (1 + t**2) ** -2.5 / ((1 + t**2) ** -1.5 + share) ** (order / 2)

        return tuple(SelfConcordance(_largest(ratio(order)), order) for order in (2.0, 2.6, 3.0))


def _largest(function: Callable[[np.ndarray], np.ndarray]) -> float:
    """The supremum of a function of t > 0 with one peak: a logarithmic grid, then a finer one around its best."""
    t = np.logspace(-6, 12, 2001)
    for _ in range(6):
        best = int(np.argmax(function(t)))
        t = np.geomspace(t[max(best - 1, 0)], t[min(best + 1, t.size - 1)], 201)
    # Rounding, and what lies between the last points: far below 1e-9 of it.
    return float(np.max(function(t))) * (1 + 1e-9)


def _ostrovskii_bach_ratio(t: np.ndarray) -> np.ndarray:
    """|D³φ|/D²φ = 4t(2q + 1)/(q²(q + 1)), q = √(1+4t²)."""
    root = np.sqrt(1 + 4 * t**2)
    return 4 * t * (2 * root + 1) / (root**2 * (root + 1))


_OSTROVSKII_BACH_AT_2 = _largest(_ostrovskii_bach_ratio)
