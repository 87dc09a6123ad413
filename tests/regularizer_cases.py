"""The regularizers that the tests run over, and slow references in plain NumPy that share no code with the library.

Groups and blocks are laid out for the 45 parameters of the networks in `helpers.PROBLEMS`, an MLP 3-6-3: weights 6 × 3,
biases 6, weights 3 × 6, biases 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import concordax as cx


class ReferenceRegularizer(NamedTuple):
    """Value, gradient [p] and Hessian [p, p]."""

    value: Callable
    gradient: Callable
    hessian: Callable

    def diagonal(self, x):
        """The Hessian's diagonal [p]: all of it, of a sum over coordinates."""
        return np.diagonal(self.hessian(x))


def separable(value: Callable, gradient: Callable, second: Callable) -> ReferenceRegularizer:
    """A sum of one scalar function, by its value and its first two derivatives."""
    return ReferenceRegularizer(
        lambda x: value(np.asarray(x, np.longdouble)).sum(), gradient, lambda x: np.diag(second(x))
    )


def pseudo_huber(mu: float) -> ReferenceRegularizer:
    return separable(
        lambda x: np.sqrt(mu**2 + x**2) - mu,
        lambda x: x / np.sqrt(mu**2 + x**2),
        lambda x: mu**2 / (mu**2 + x**2) ** 1.5,
    )


def ostrovskii_bach(mu: float) -> ReferenceRegularizer:
    """The value as its authors write it."""

    def root(x):
        return np.sqrt(1 + 4 * (x / mu) ** 2)

    def value(x):
        t = np.where(x == 0, 1, x / mu)
        q = np.sqrt(1 + 4 * t**2)
        return np.where(x == 0, 0, mu * 0.5 * (q - 1 + np.log((q - 1) / (2 * t**2))))

    # Integrated once, the published second derivative (q − 1)/(2 q t²) is 2/(q(q + 1)).
    return separable(value, lambda x: 2 * x / mu / (root(x) + 1), lambda x: 2 / (mu * root(x) * (root(x) + 1)))


def log_cosh(mu: float) -> ReferenceRegularizer:
    return separable(
        lambda x: mu * np.log(np.cosh(x / mu)), lambda x: np.tanh(x / mu), lambda x: 1 / (mu * np.cosh(x / mu) ** 2)
    )


def entropy(mu: float) -> ReferenceRegularizer:
    return separable(
        lambda x: x * np.log(x / mu + np.sqrt(1 + (x / mu) ** 2)) - np.sqrt(mu**2 + x**2) + mu,
        lambda x: np.log(x / mu + np.sqrt(1 + (x / mu) ** 2)),
        lambda x: 1 / np.sqrt(mu**2 + x**2),
    )


def box(low: float, high: float, mu: float) -> ReferenceRegularizer:
    return separable(
        lambda x: mu * np.exp((low - x) / mu) + mu * np.exp((x - high) / mu),
        lambda x: -np.exp((low - x) / mu) + np.exp((x - high) / mu),
        lambda x: (np.exp((low - x) / mu) + np.exp((x - high) / mu)) / mu,
    )


def linear_box(low: float, mu: float) -> ReferenceRegularizer:
    return separable(
        lambda x: mu * np.log(1 + np.exp((low - x) / mu)),
        lambda x: -1 / (1 + np.exp((x - low) / mu)),
        lambda x: 1 / (4 * mu * np.cosh((x - low) / (2 * mu)) ** 2),
    )


def group(mu: float, labels, weights=None) -> ReferenceRegularizer:
    """Σ ω (√(μ² + ‖x_g‖²) − μ), group after group; a negative label is a group of its own."""
    labels = np.asarray(labels)
    members = [np.flatnonzero(labels == g) for g in range(labels.max() + 1)]
    weights = [*(np.ones(len(members)) if weights is None else weights), *np.ones((labels < 0).sum())]
    members += [np.array([i]) for i in np.flatnonzero(labels < 0)]

    def each(x):
        x = np.asarray(x)
        for index, weight in zip(members, weights, strict=True):
            yield index, weight, x[index], np.sqrt(mu**2 + (x[index] ** 2).sum())

    def gradient(x):
        out = np.zeros_like(x)
        for index, weight, part, s in each(x):
            out[index] = weight * part / s
        return out

    def hessian(x):
        out = np.zeros((len(x), len(x)), np.asarray(x).dtype)
        for index, weight, part, s in each(x):
            out[np.ix_(index, index)] = weight * (np.eye(len(part)) / s - np.outer(part, part) / s**3)
        return out

    def value(x):
        return sum(weight * (s - mu) for _, weight, _, s in each(np.asarray(x, np.longdouble)))

    return ReferenceRegularizer(value, gradient, hessian)


def weighted(*terms: tuple[float, ReferenceRegularizer]) -> ReferenceRegularizer:
    return ReferenceRegularizer(
        lambda x: sum(w * term.value(x) for w, term in terms),
        lambda x: sum(w * term.gradient(x) for w, term in terms),
        lambda x: sum(w * term.hessian(x) for w, term in terms),
    )


def blocks(*parts: tuple[int, ReferenceRegularizer]) -> ReferenceRegularizer:
    """References of pieces of the vector, one after the other."""

    def cut(x):
        ends = np.cumsum([n for n, _ in parts])
        return [(part, x[end - n : end]) for (n, part), end in zip(parts, ends, strict=True)]

    def hessian(x):
        out, at = np.zeros((len(x), len(x)), np.asarray(x).dtype), 0
        for part, piece in cut(x):
            out[at : at + len(piece), at : at + len(piece)] = part.hessian(piece)
            at += len(piece)
        return out

    return ReferenceRegularizer(
        lambda x: sum(part.value(piece) for part, piece in cut(x)),
        lambda x: np.concatenate([part.gradient(piece) for part, piece in cut(x)]),
        hessian,
    )


SIZE = 45
_L2 = separable(lambda x: 0.5 * x**2, lambda x: x, np.ones_like)
_PARAMS = (
    cx.DenseLayer(jnp.zeros((6, 3)), jnp.zeros(6)),
    cx.DenseLayer(jnp.zeros((3, 6)), jnp.zeros(3)),
)
# The columns of the first layer; units with bias and what reads them; anything.
_INPUTS = np.concatenate([np.arange(18) % 3, np.full(27, -1)])
_NEURONS = np.concatenate([np.repeat(np.arange(6), 3), np.arange(6), np.tile(np.arange(6), 3), np.full(3, -1)])
_SCATTERED = np.random.default_rng(0).integers(-1, 5, SIZE)
_WEIGHTS = (0.5, 2.0, 1.0, 3.0, 0.1)

REFERENCE_REGULARIZERS = {
    "l2": _L2,
    "pseudo-huber 0.3": pseudo_huber(0.3),
    "pseudo-huber 5": pseudo_huber(5.0),
    "ostrovskii-bach": ostrovskii_bach(0.5),
    "log cosh": log_cosh(1.5),
    "entropy": entropy(0.7),
    "elastic": weighted((1.0, pseudo_huber(0.3)), (0.2, _L2)),
    "box": box(-2.0, 1.0, 0.8),
    "one wall": weighted((1.0, linear_box(-0.5, 1.0)), (0.05, _L2)),
    "groups: inputs": group(0.4, _INPUTS),
    "groups: neurons": group(0.05, _NEURONS),
    "groups: any, weighted": group(1.0, _SCATTERED, _WEIGHTS),
    "sparse groups": weighted((0.3, group(0.1, _INPUTS)), (2.0, pseudo_huber(0.5)), (0.01, _L2)),
    "per parameter": blocks((24, weighted((0.1, _L2))), (18, pseudo_huber(0.3)), (3, weighted((4.0, log_cosh(2.0))))),
    "groups and others": blocks((24, group(0.4, _INPUTS[:24])), (21, _L2)),
}
REGULARIZERS = {
    "l2": cx.L2(),
    "pseudo-huber 0.3": cx.PseudoHuber(0.3),
    "pseudo-huber 5": cx.PseudoHuber(5.0),
    "ostrovskii-bach": cx.OstrovskiiBach(0.5),
    "log cosh": cx.LogCosh(1.5),
    "entropy": cx.HyperbolicEntropy(0.7),
    "elastic": cx.Elastic(0.3, 0.2),
    "box": cx.SmoothBox(-2.0, 1.0, 0.8),
    "one wall": cx.SmoothBox(-0.5, None, 1.0, linear=True) + 0.05 * cx.L2(),
    "groups: inputs": cx.GroupPseudoHuber(0.4, cx.Groups.inputs(_PARAMS)),
    "groups: neurons": cx.GroupPseudoHuber(0.05, cx.Groups.neurons(_PARAMS)),
    "groups: any, weighted": cx.GroupPseudoHuber(1.0, cx.Groups(_SCATTERED, _WEIGHTS)),
    "sparse groups": 0.3 * cx.GroupPseudoHuber(0.1, cx.Groups.inputs(_PARAMS))
    + 2.0 * cx.PseudoHuber(0.5)
    + 0.01 * cx.L2(),
    "per parameter": cx.PerParameter(
        _PARAMS, (0.1 * cx.L2(), cx.DenseLayer(cx.PseudoHuber(0.3), 4.0 * cx.LogCosh(2.0)))
    ),
    "groups and others": cx.PerParameter(
        _PARAMS, (cx.GroupPseudoHuber(0.4, cx.Groups.columns((_PARAMS[0],))), cx.L2())
    ),
}
