"""Regularizers made of others: weighted sums, and one for each block of parameters."""

import functools
from itertools import accumulate
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from ..metrics import GroupMetric, added, side_by_side
from ..self_concordance import SelfConcordance
from .base import AbstractRegularizer, checked, total


def _constants_of(parts: tuple[AbstractRegularizer, ...], constant_at) -> tuple[SelfConcordance, ...]:
    orders = sorted({c.order for part in parts for c in part.constants()})
    found = [(constant_at(order), order) for order in orders]
    return tuple(SelfConcordance(constant, order) for constant, order in found if constant is not None)


def _largest(values: list) -> Any:
    """The largest of κ's, or None where one of them is unknown."""
    known = [value for value in values if value is not None]
    return functools.reduce(jnp.maximum, known) if len(known) == len(values) else None


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
    weights: tuple[float, ...] = eqx.field(static=True)

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
        return total([weight * term.value(x) for term, weight in self._parts()])

    def gradient(self, x):
        """Σ β ∇g."""
        return total([weight * term.gradient(x) for term, weight in self._parts()])

    def metric(self, x):
        """Σ β ∇²g, inverted in its structure."""
        metrics = tuple(term.metric(x).scaled(weight) for term, weight in self._parts())
        if sum(isinstance(metric, GroupMetric) for metric in metrics) > 1:
            raise ValueError(
                "`Sum(...)` takes one term with groups: the inverse of two overlapping ones has no structure. Use one "
                "with all groups in it, or `PerParameter` where they are of different parameters."
            )
        return added(metrics, x.size)

    def constants(self):
        """Those at every order that all terms have."""
        return _constants_of(self.terms, self.constant_at)

    def constant_at(self, order):
        """max_i β_i^{1−ν/2} M_i for 2 ≤ ν ≤ 3; None outside, or where a term has none."""
        pairs = [(term.constant_at(order), weight) for term, weight in self._parts()]
        known = [SelfConcordance(m, order).scaled(weight).constant for m, weight in pairs if m is not None]
        return max(known) if 2 <= order <= 3 and len(known) == len(pairs) else None

    def concordance(self, direction):
        """The largest of the terms', free of weights."""
        return _largest([term.concordance(direction) for term in self.terms])


class PerParameter(AbstractRegularizer):
    """A regularizer, and with it a strength, for each block of parameters: g = Σ_b g_b(x_b).

    Args:
        params: the parameters, or anything with their shapes.
        regularizers: a pytree with the outer structure of `params` whose leaves are regularizers, each for all that
            stands below it, as `(0.1 * cx.L2(), cx.PseudoHuber(1.0))` for a network of two layers. Its strengths are
            relative to the one of the run.

    Raises:
        ValueError: where the structures do not fit.

    Example:
        >>> import concordax as cx, jax, jax.numpy as jnp
        >>> params = {"a": jnp.ones(2), "b": jnp.ones(3)}
        >>> both = PerParameter(params, {"a": 10.0 * cx.L2(), "b": cx.L2()})
        >>> float(both.value(jnp.ones(5)))
        11.5
    """

    blocks: tuple[AbstractRegularizer, ...]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, params: PyTree, regularizers: PyTree):
        found: list[tuple[AbstractRegularizer, int]] = []

        def add(regularizer, below):
            if not isinstance(regularizer, AbstractRegularizer):
                raise ValueError(f"`PerParameter(...)`: {regularizer!r} is no regularizer; use cx.L2(), say.")
            found.append((regularizer, jax.eval_shape(lambda at: ravel_pytree(at)[0], below).size))

        try:
            jax.tree.map(add, regularizers, params, is_leaf=lambda part: isinstance(part, AbstractRegularizer))
        except (ValueError, TypeError) as error:
            raise ValueError(
                "`PerParameter(params, regularizers)`: regularizers must have the outer structure of the parameters, a "
                f"regularizer for each block. {error}"
            ) from None
        self.blocks, self.sizes = tuple(part for part, _ in found), tuple(size for _, size in found)

    def _parts(self, x):
        if x.size != sum(self.sizes):
            raise ValueError(
                f"`PerParameter` was built for {sum(self.sizes)} parameters; the model has {x.size}. Build it from the "
                "same parameters."
            )
        ends = accumulate(self.sizes)
        return [(b, x[end - n : end]) for b, n, end in zip(self.blocks, self.sizes, ends, strict=True)]

    def value(self, x):
        """Σ g_b."""
        return total([block.value(part) for block, part in self._parts(x)])

    def gradient(self, x):
        """The gradients one after the other."""
        return jnp.concatenate([block.gradient(part) for block, part in self._parts(x)])

    def metric(self, x):
        """The Hessians along the diagonal."""
        return side_by_side(tuple(block.metric(part) for block, part in self._parts(x)), self.sizes)

    def constants(self):
        """Those at every order that all blocks have."""
        return _constants_of(self.blocks, self.constant_at)

    def constant_at(self, order):
        """The largest of the blocks'."""
        known = [m for m in (block.constant_at(order) for block in self.blocks) if m is not None]
        return max(known) if len(known) == len(self.blocks) else None

    def concordance(self, direction):
        """The largest of the blocks'."""
        return _largest([block.concordance(part) for block, part in self._parts(direction)])
