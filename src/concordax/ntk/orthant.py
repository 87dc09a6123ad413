"""E[d(w) 1{u > 0} 1{v > 0}] with w ~ N(0, 1) in both of u = r w + u° and v = r' w + v°: the derivative of relu.

A step has no short Hermite series. But with a = r/s, b = r'/s', s² and s'² the variances of u° and v°, ρ their
correlation, the derivative by ρ of P(u > 0, v > 0 | w) is a Gaussian density (Plackett), whose mean over w is

    (1/2π) √κ G(κ)/√(1 − ρ²),   κ = (1 − ρ²)/(1 − ρ² + a² + b² − 2abρ),   G(κ) = E d(√κ z)

and with ρ = sin θ one smooth integral over θ is left: E[d(w) Φ(aw) Φ(bw)] + (1/2π) ∫_0^{asin ρ} √κ G(κ) dθ.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .hermite import rule
from .prior import Law, refined

# Nodes over θ, and half of them for the error.
_ANGLES = 64
# In radians, the narrowest rise of the integrand that the nodes are laid out for.
_NARROWEST = 1e-6
# Degrees of the interpolation of G in √κ, until it is known to so much of its largest value.
_DEGREES, _EXACT = (32, 64, 128, 256), 1e-10


def orthant_mean(
    law: Law,
    loads: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]],
    scales: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]],
    rho: Float[np.ndarray, "n m"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"], tuple[np.ndarray, np.ndarray]]:
    """The expectation for all pairs, a bound of its error, and of each row E[d(w) 1{u > 0}]."""
    law, changes = _fine_enough(law, loads, scales)
    ratios = [_ratio(load, scale) for load, scale in zip(loads, scales, strict=True)]
    left, right = (_normal(ratio, law.nodes) for ratio in ratios)
    coefficients, inexact = _interpolated(law.inverse_curvature)
    # Rows that are sure once w is known have no correlation left: rho is 0 there.
    a, b = (np.where(np.isfinite(ratio), ratio, 0.0) for ratio in ratios)
    value, error = _summed(left * law.weights, right, coefficients, a, b, rho, *changes)
    return np.asarray(value), np.asarray(error) + inexact / 4, (left @ law.weights, right @ law.weights)


@jax.jit
def _summed(left, right, coefficients, a, b, rho, change1, change2) -> tuple[Array, Array]:
    """(E[d Φ(aw) Φ(bw)] + the integral, what it changed with half the nodes and what the sums over w did)."""
    rules = (np.polynomial.legendre.leggauss(count) for count in (_ANGLES, _ANGLES // 2))
    whole, half = (_swept(coefficients, a, b, rho, *each) for each in rules)
    return left @ right.T + whole, jnp.abs(whole - half) + change1[:, None] + change2


def _ratio(load: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """r/s, ±∞ where s = 0; NaN where both are, a row that is 0."""
    sure = np.where(load == 0, np.nan, np.copysign(np.inf, load))
    return np.where(scale > 0, load / np.where(scale > 0, scale, 1.0), sure)


_ndtr = jax.jit(jax.scipy.special.ndtr)


def _normal(ratio: np.ndarray, nodes: np.ndarray) -> Float[np.ndarray, "n t"]:
    """Φ(a t); 0 for a row that is 0, as the derivative of relu in 0 is."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.asarray(_ndtr(jnp.asarray(ratio[:, None] * nodes))))


def _fine_enough(law: Law, loads, scales) -> tuple[Law, list[np.ndarray]]:
    """The law with so many nodes that E d Φ(aw) is known for each row, and by how much it is not."""
    seconds = lambda law: [_normal(_ratio(*side), law.nodes) @ law.weights for side in zip(loads, scales, strict=True)]
    law, before, found = refined(law, seconds)
    return law, [np.abs(x - y) for x, y in zip(before, found, strict=True)]


@functools.lru_cache(maxsize=16)
def _interpolated(d: Callable) -> tuple[np.ndarray, float]:
    """Chebyshev coefficients of G over √κ in [0, 1], and what they miss between their nodes."""
    z, w = rule(1)
    mean = lambda root: d(np.outer(root, z).ravel()).reshape(len(root), -1) @ w
    between = np.linspace(0, 1, 41)[1:] ** 2 * 0.99
    expected, coefficients, missed = mean(between), np.zeros(1), np.inf
    for degree in _DEGREES:
        nodes = (np.cos(np.pi * (np.arange(degree) + 0.5) / degree) + 1) / 2
        coefficients = np.polynomial.chebyshev.chebfit(2 * nodes - 1, mean(nodes), degree - 1)
        missed = float(np.abs(np.polynomial.chebyshev.chebval(2 * between - 1, coefficients) - expected).max())
        if missed <= _EXACT * np.abs(expected).max():
            break
    return coefficients, missed


def _swept(coefficients, a, b, rho, nodes, weights) -> Float[Array, "n m"]:
    """(1/2π) ∫_0^{asin ρ} √κ G(κ) dθ.

    For ρ < 0 it is minus that of |ρ| and −b. Over ψ = π/2 − θ, where κ = 0 at ψ = 0 unless a = b: it rises over a width
    of ε = |a − b|/√(1 + ab), and ψ = ε sinh s makes that the unit of s.
    """
    a, b, size = a[:, None], jnp.where(rho < 0, -b, b), jnp.abs(rho)
    square, product = (a - b) ** 2, a * b
    unit = jnp.clip(jnp.sqrt(square / (1 + jnp.maximum(product, 0.0))), _NARROWEST, 1.0)
    low = jnp.arcsinh(jnp.arctan2(jnp.sqrt((1 - size) * (1 + size)), size) / unit)
    half = (jnp.arcsinh(jnp.pi / 2 / unit) - low) / 2

    def add(total, node):
        x, w = node
        s = low + half * (x + 1)
        angle = unit * jnp.sinh(s)
        room = jnp.sin(angle) ** 2
        # a² + b² − 2ab cos ψ without its cancellation.
        root = jnp.sqrt(room / (room + square + 4 * product * jnp.sin(angle / 2) ** 2))
        return total + w * unit * jnp.cosh(s) * root * _chebyshev(coefficients, 2 * root - 1), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(rho), (jnp.asarray(nodes), jnp.asarray(weights)))
    return jnp.sign(rho) * total * half / (2 * jnp.pi)


def _chebyshev(coefficients: Float[Array, " k"], x: Array) -> Array:
    """Σ c_k T_k(x) by Clenshaw's recurrence."""

    def add(carry, coefficient):
        first, second = carry
        return (coefficient + 2 * x * first - second, first), None

    (first, second), _ = jax.lax.scan(add, (jnp.zeros_like(x), jnp.zeros_like(x)), coefficients[:0:-1])
    return coefficients[0] + x * first - second
