"""E[f(u) f(v)] of Gaussian pairs (u, v), for all pairs of rows from one expansion a row.

With u = m₁ + s₁ z₁, v = m₂ + s₂ z₂ and z of correlation ρ, f(m + s z) = Σ a_k h_k(z) in normalized Hermite polynomials
gives E[f(u) f(v)] = Σ_k a_k b_k ρ^k (Mehler). A pair then costs some additions, where a tensor grid costs thousands of
evaluations of f; and what the terms from K on can hold is known: at most |ρ|^K √(T₁ T₂), T = E f² − Σ_{k<K} a_k², by
Cauchy and Schwarz, whether f is smooth or has a kink. That is the error that is stated, with the quadrature's of a_k.

Integrals over z are Gauss-Legendre panels that meet in 0, not Gauss-Hermite: where f has a pole at a distance of δ from
the real line, as tanh(s z) has at π/(2s), they need some 1/δ nodes and Gauss-Hermite 1/δ², and a kink of f in 0 does no
harm.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Integrands are cut at |z| = RANGE: Hermite functions are below 1, so what is left out is f times e^{−RANGE²/4}, 4e-19.
RANGE = 13.0
_NODES = 10
# Terms at each level; a level has twice the nodes of the one before, 10 a unit of z at first. Oscillations of h_k have
# wave numbers up to √k, and ten nodes resolve a wave number of 20.
_TERMS = (64, 256, 512, 1536)
# Numbers at a time, of values of f and of coefficients in all.
_CHUNK, _MOST = 2**21, 2**26
# Terms between two passes over a pair's numbers.
_UNROLL = 8


class QuadratureWarning(UserWarning):
    """An expectation is known less exactly than was asked for."""


def panels(low: float, high: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre rules side by side."""
    count = max(1, round((high - low) / width))
    x, w = np.polynomial.legendre.leggauss(_NODES)
    edges = np.linspace(low, high, count + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (x + 1)).ravel(), (half * w).ravel()


@functools.cache
def rule(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for E over N(0, 1), symmetric about 0."""
    z, w = panels(-RANGE, RANGE, 0.5**level)
    return z, w * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@functools.cache
def _basis(level: int) -> np.ndarray:
    """h_k(z) times the weights [nodes, terms]."""
    z, w = rule(level)
    return (hermite(z, _TERMS[level]) * w).T


def hermite(z: np.ndarray, terms: int, start: np.ndarray | float = 1.0) -> np.ndarray:
    """`start` times the normalized Hermite polynomials h_0 … at z, [terms, *z]."""
    out = np.empty((terms, *z.shape))
    out[0] = start
    if terms > 1:
        out[1] = z * start
    for k in range(1, terms - 1):
        out[k + 1] = (z * out[k] - np.sqrt(k) * out[k - 1]) / np.sqrt(k + 1)
    return out


class Expansion(NamedTuple):
    """f(m + s z) of some rows as Hermite series, in the mean over T shifts m with weights ω.

    Attributes:
        coefficients: √ω_t a_k, [n, T, K].
        held: Σ_t ω_t a_k², [n, K].
        beyond: Σ_t ω_t Σ_{k≥K} a_k², [n].
        error: √Σ_t ω_t ‖δa‖², what the quadrature may have changed, [n].
        second: Σ_t ω_t E f², [n].
        terms: those that count.
        level: of the nodes.
        short: whether terms beyond K count too.
    """

    coefficients: np.ndarray
    held: np.ndarray
    beyond: np.ndarray
    error: np.ndarray
    second: np.ndarray
    terms: int
    level: int
    short: bool

    def tail(self, terms: int) -> np.ndarray:
        """Σ_t ω_t of all a_k² from that term on, [n]."""
        return self.beyond + np.sum(self.held[:, terms:], axis=1)


Function = Callable[[np.ndarray], np.ndarray]
"""A function of one number, entry by entry."""


def expand(
    f: Function,
    mean: Float[np.ndarray, "n t"],
    scale: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " t"],
    exact: float,
) -> Expansion:
    """The series of f(m + s z) for each row and shift, with twice the nodes until they change no more.

    Args:
        f: the function.
        mean: m.
        scale: s.
        weights: ω.
        exact: what is small enough of E f² to be left out, and of its root to be changed.

    Returns:
        The series, as far as it goes.
    """
    n, shifts = mean.shape
    mixed = lambda x: np.tensordot(x, weights, (1, 0))
    level, (a, second, _) = 0, _at_level(f, mean, scale, 0)
    while True:
        level, before, known = level + 1, (a, second), a.shape[2]
        a, second, edge = _at_level(f, mean, scale, level)
        # In the mean over the shifts: where f is next to nothing it need not be known to as many of its own digits.
        change = np.sqrt(mixed(np.sum((a[..., :known] - before[0]) ** 2, axis=2) + edge))
        held, size = mixed(a**2), mixed(second)
        tail = np.maximum(size - np.sum(held, axis=1), 0.0) + mixed(np.abs(second - before[1]))
        enough = np.all(change <= exact * np.sqrt(size)) and np.all(tail <= exact * size)
        if enough or level + 1 == len(_TERMS) or n * shifts * _TERMS[level + 1] > _MOST:
            break
    # Whole steps of the series, from which on there is next to nothing.
    left = np.cumsum(held[:, ::-1], axis=1)[:, ::-1]
    counting = np.flatnonzero(np.any(left > 0.1 * exact * size[:, None], axis=0))
    terms = -(-(int(counting[-1]) + 1 if counting.size else 1) // _UNROLL) * _UNROLL
    return Expansion(a * np.sqrt(weights)[:, None], held, tail, change, size, terms, level, not enough)


def second_moment(f: Function, mean: Float[np.ndarray, "n t"], scale: Float[np.ndarray, " n"]) -> np.ndarray:
    """E f(m + s z)², [n, T]."""
    z, w = rule(0)
    count = max(1, _CHUNK // (mean.shape[1] * z.size))
    parts = (slice(start, start + count) for start in range(0, len(mean), count))
    return np.concatenate([f(mean[part, :, None] + scale[part, None, None] * z) ** 2 @ w for part in parts])


def _at_level(f, mean, scale, level):
    """(a [n, T, K], E f² [n, T], f² at the ends of the range [n, T])."""
    z, w = rule(level)
    basis, (n, shifts) = _basis(level), mean.shape
    a, second, edge = np.empty((n, shifts, basis.shape[1])), np.empty((n, shifts)), np.empty((n, shifts))
    count = max(1, _CHUNK // (shifts * z.size))
    for start in range(0, n, count):
        part = slice(start, start + count)
        values = f(mean[part, :, None] + scale[part, None, None] * z)
        a[part], second[part] = values @ basis, values**2 @ w
        # The density there, over one unit: what grows too fast for the range shows here.
        edge[part] = (values[..., 0] ** 2 + values[..., -1] ** 2) * np.exp(-(RANGE**2) / 2)
    return a, second, edge


# Pairs ----------------------------------------------------------------------------------------------------------------


def pairs(
    f: Function, one: "Shifted", two: "Shifted", rho: Float[np.ndarray, "n m"]
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Σ_t ω_t E[f(u) f(v)] for all pairs, and a bound of its error.

    Where the series is short, what is missing at ρ = ±1 is known from the values themselves, and ρ^K and ρ^{K+1} times
    its even and odd part stand for it in between.
    """
    a, b = (side.expansion for side in (one, two))
    # What counts on one side, as far as the other has it.
    terms = min(max(a.terms, b.terms), a.held.shape[1], b.held.shape[1])
    left, right = (side.coefficients[..., :terms] for side in (a, b))
    value = np.asarray(_series(jnp.asarray(left), jnp.asarray(right), jnp.asarray(rho)))
    last = np.abs(rho) ** terms
    bound = last * np.sqrt(np.outer(a.tail(terms), b.tail(terms)))
    if a.short or b.short:
        even, odd = _missing(f, one, two, left, right)
        value, bound = value + last * (even + rho * odd), np.where(np.abs(rho) == 1, 0.0, bound)
    return value, bound + np.outer(a.error, np.sqrt(b.second)) + np.outer(np.sqrt(a.second), b.error)


class Shifted(NamedTuple):
    """Rows of m + s z with their expansion."""

    mean: Float[np.ndarray, "n t"]
    scale: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " t"]
    expansion: Expansion

    def part(self, where: slice) -> "Shifted":
        """Some of the rows."""
        series = self.expansion
        some = series._replace(
            coefficients=series.coefficients[where],
            held=series.held[where],
            beyond=series.beyond[where],
            error=series.error[where],
            second=series.second[where],
        )
        return Shifted(self.mean[where], self.scale[where], self.weights, some)

    def less_exact(self, error: Float[np.ndarray, " n"]) -> "Shifted":
        """The same with an error more."""
        return self._replace(expansion=self.expansion._replace(error=self.expansion.error + error))


def shifted(f: Function, mean, scale, weights, exact: float) -> Shifted:
    """Rows with their expansion, as exact as `expand` says."""
    return Shifted(mean, scale, weights, expand(f, mean, scale, weights, exact))


def _series(a: Float[Array, "n t k"], b: Float[Array, "m t k"], rho: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Σ_k ρ^k Σ_t a b, from the last term down."""
    return _outer_series(a[:, 0], b[:, 0], rho) if a.shape[1] == 1 else _product_series(a, b, rho)


@jax.jit
def _outer_series(a: Float[Array, "n k"], b: Float[Array, "m k"], rho):
    terms, b = a.shape[1], b.T

    # Some terms at a time: each is a few operations on numbers that would come from memory again and again.
    def add(step, total):
        start = terms - _UNROLL * (step + 1)
        one = jax.lax.dynamic_slice_in_dim(a, start, _UNROLL, axis=1)
        two = jax.lax.dynamic_slice_in_dim(b, start, _UNROLL)
        for k in reversed(range(_UNROLL)):
            total = total * rho + one[:, k, None] * two[k]
        return total

    return jax.lax.fori_loop(0, terms // _UNROLL, add, jnp.zeros_like(rho))


@jax.jit
def _product_series(a: Float[Array, "n t k"], b: Float[Array, "m t k"], rho):
    def add(total, term):
        one, two = term
        return total * rho + one @ two.T, None

    terms = tuple(jnp.moveaxis(x, 2, 0) for x in (a, b))
    return jax.lax.scan(add, jnp.zeros_like(rho), terms, reverse=True)[0]


def _missing(f: Function, one: Shifted, two: Shifted, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The even and the odd part, at ρ = 1, of the terms that the series leaves out."""
    plus, minus = _at_ends(f, one, two)
    even, odd = (_product(a[..., k::2], b[..., k::2]) for k in (0, 1))
    return (plus + minus) / 2 - even, (plus - minus) / 2 - odd


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T


def _at_ends(f: Function, one: Shifted, two: Shifted) -> tuple[np.ndarray, np.ndarray]:
    """Σ_t ω_t E[f(u) f(v)] at ρ = 1 and at ρ = −1, where one integral over z is all."""
    z, w = rule(max(one.expansion.level, two.expansion.level))
    count = max(1, _CHUNK // (z.size * max(len(one.mean), len(two.mean))))
    plus, minus = np.zeros((2, len(one.mean), len(two.mean)))
    for start in range(0, len(one.weights), count):
        part = slice(start, start + count)
        left, right = (f(s.mean[:, part, None] + s.scale[:, None, None] * z) for s in (one, two))
        left = left * w * one.weights[part, None]
        plus, minus = plus + _product(left, right), minus + _product(left, right[..., ::-1])
    return plus, minus
