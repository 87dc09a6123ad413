"""What a regularizer is: a generalised self-concordant g with value, gradient, Hessian as a metric, constants (M, ν).

Sums are part of it, `0.1 * PseudoHuber(1.0) + L2()`. None knows the strength τ, which multiplies once, in `system.py`;
a weight within a sum is part of g.
"""

import functools
import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..linalg import sum_of
from ..metrics import AbstractMetric, GroupMetric, added
from ..self_concordance import SelfConcordance


class AbstractRegularizer(eqx.Module):
    """A convex function g of the flat parameters with a positive definite Hessian.

    Regularizers add up, and take weights: `0.1 * PseudoHuber(1.0) + L2()` is a `Sum`.

    A field that holds a float is an argument of the programs that `train` compiles, and there an array: all its values
    share one program. What Python has to look at is a static field, `eqx.field(static=True)`.
    """

    @abstractmethod
    def value(self, x: Float[Array, " p"]) -> Float[Array, ""]:
        """g(x)."""

    @abstractmethod
    def gradient(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """∇g(x)."""

    @abstractmethod
    def metric(self, x: Float[Array, " p"]) -> AbstractMetric:
        """∇²g(x)."""

    def damping_metric(self, x: Float[Array, " p"]) -> AbstractMetric | None:
        """D of a damped step, (WᵀW + τH + λD) δ = −(Wᵀr + τg): H without its flat tails; None for H itself.

        Where H is next to nothing, λH holds nothing. D ≥ H, so that a larger λ never lengthens a step.
        """
        del x
        return None

    @abstractmethod
    def constants(self) -> tuple[SelfConcordance, ...]:
        """Every (M, ν) known to hold, the tightest for its ν, smoothing included."""

    def constant_at(self, order: float) -> float | Float[Array, ""] | None:
        """M at the order ν, or None where none is known."""
        return {c.order: c.constant for c in self.constants()}.get(order)

    def concordance(self, direction: Float[Array, " p"]) -> Float[Array, ""] | None:
        """κ with |D³g(x)[δ, u, u]| ≤ κ D²g(x)[u, u] for every x and u: M₂‖δ‖₂, or less; None without an M₂.

        M₂ is the constant at ν = 2, where the inequality knows no other norm of δ.
        """
        constant = self.constant_at(2.0)
        return None if constant is None else constant * jnp.linalg.norm(direction)

    def published_constants(self) -> SelfConcordance:
        """The pair that the authors' code uses, smoothing included; for the published mode only."""
        return self.constants()[0]

    def __add__(self, other: "AbstractRegularizer") -> "Sum":
        return Sum(self, other) if isinstance(other, AbstractRegularizer) else NotImplemented

    def __rmul__(self, weight: float) -> "Sum":
        return Sum(self, weights=(weight,)) if isinstance(weight, int | float) else NotImplemented


def checked(call: str, argument: str, value: float) -> float:
    """The value as a float; raises ValueError unless it is positive and finite."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"`{call}({argument}={value!r})`: the {argument} must be a positive finite number.")
    return float(value)


def constants_of(parts: tuple[AbstractRegularizer, ...], constant_at) -> tuple[SelfConcordance, ...]:
    """(M, ν) by `constant_at` at every order that one of the parts knows."""
    orders = sorted({c.order for part in parts for c in part.constants()})
    found = [(constant_at(order), order) for order in orders]
    return tuple(SelfConcordance(constant, order) for constant, order in found if constant is not None)


def damping_metrics(parts: list[tuple[AbstractRegularizer, Array]]) -> list[AbstractMetric]:
    """D of each (g, x), ∇²g where it has none; nothing where none of them has one."""
    found = [(part.damping_metric(x), part, x) for part, x in parts]
    if all(metric is None for metric, _, _ in found):
        return []
    return [part.metric(x) if metric is None else metric for metric, part, x in found]


def largest(values: list) -> Any:
    """The largest of κ's or M's, a float if they are floats, or None where one of them is unknown."""
    if any(value is None for value in values):
        return None
    return max(values) if all(isinstance(value, float) for value in values) else functools.reduce(jnp.maximum, values)


def as_arguments(parts: PyTree) -> PyTree:
    """The same with its floats as arrays, weakly typed as they are: a program compiled for one value serves all."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, parts)


class Sum(AbstractRegularizer):
    """g = Σ β_i g_i, with weights β_i > 0; the sums and multiples of regularizers make it, `L2() + 0.1 * LogCosh(1.0)`.

    M = max_i β_i^{1−ν/2} M_i for 2 ≤ ν ≤ 3, where all terms have one; at ν = 2 weights change nothing.

    Args:
        terms: the g_i; sums among them are taken apart. One term alone may have groups.
        weights: the β_i, ones by default.

    Raises:
        ValueError: for no term, weights that do not fit, or two terms with groups.
        TypeError: for a term that is no regularizer.

    Source: Sun & Tran-Dinh, Math. Program. 178, 2019, Proposition 1.

    Example:
        >>> import concordax as cx, jax.numpy as jnp
        >>> both = cx.L2() + 0.5 * cx.PseudoHuber(2.0)
        >>> x = jnp.array([1.0, -2.0])
        >>> bool(jnp.isclose(both.value(x), cx.L2().value(x) + 0.5 * cx.PseudoHuber(2.0).value(x)))
        True
        >>> both.constant_at(2.0)
        0.75
    """

    terms: tuple[AbstractRegularizer, ...]
    weights: tuple[float, ...]

    def __init__(self, *terms, weights: tuple[float, ...] | None = None):
        weights = (1.0,) * len(terms) if weights is None else tuple(weights)
        if not terms or len(weights) != len(terms):
            raise ValueError(f"`Sum(...)` needs a term and a weight for each term; got {len(terms)}, {weights!r}.")
        flat: list[tuple[AbstractRegularizer, float]] = []
        for term, given in zip(terms, weights, strict=True):
            if not isinstance(term, AbstractRegularizer):
                raise TypeError(f"`Sum({term!r})`: terms must be regularizers, as cx.L2().")
            weight = checked("Sum", "weight", given)
            inner = zip(term.terms, term.weights, strict=True) if isinstance(term, Sum) else [(term, 1.0)]
            flat += [(part, weight * share) for part, share in inner]
        self.terms, self.weights = tuple(part for part, _ in flat), tuple(share for _, share in flat)

    def _parts(self):
        return zip(self.terms, self.weights, strict=True)

    def value(self, x):
        """Σ β g."""
        return sum_of([weight * term.value(x) for term, weight in self._parts()])

    def gradient(self, x):
        """Σ β ∇g."""
        return sum_of([weight * term.gradient(x) for term, weight in self._parts()])

    def metric(self, x):
        """Σ β ∇²g, inverted in its structure."""
        metrics = tuple(term.metric(x).scaled(weight) for term, weight in self._parts())
        if sum(isinstance(metric, GroupMetric) for metric in metrics) > 1:
            raise ValueError(
                "`Sum(...)` takes one term with groups: the inverse of two overlapping ones has no structure. Use one "
                "with all groups in it, or `PerParameter` where they are of different parameters."
            )
        return added(metrics, x.size)

    def damping_metric(self, x):
        """Σ β D, with ∇²g of the terms that have no D; None where no term has one."""
        metrics = damping_metrics([(term, x) for term in self.terms])
        weighted = zip(metrics, self.weights, strict=True)
        return added(tuple(metric.scaled(weight) for metric, weight in weighted), x.size) if metrics else None

    def constants(self):
        """Those at every order that all terms have."""
        return constants_of(self.terms, self.constant_at)

    def constant_at(self, order):
        """max_i β_i^{1−ν/2} M_i for 2 ≤ ν ≤ 3; None outside, or where a term has none."""
        pairs = [(term.constant_at(order), weight) for term, weight in self._parts()]
        known = [None if m is None else SelfConcordance(m, order).scaled(weight).constant for m, weight in pairs]
        return largest(known) if 2 <= order <= 3 else None

    def concordance(self, direction):
        """The largest of the terms', free of weights."""
        return largest([term.concordance(direction) for term in self.terms])
