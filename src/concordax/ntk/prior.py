"""The inverse curvature d(w) = 1/h''(w) that a regularizer has at a weight, in the mean over the laws of the start."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..metrics import DiagonalMetric, ScalarMetric
from ..models import MLP, TwoLayer
from ..regularizers import AbstractRegularizer
from .hermite import panels

# Beyond, the density of N(0, 1) is no number any more.
_FARTHEST = 37.5
# Panels are halved so many times at most, until means change by less.
_HALVINGS, _CHANGE = 6, 1e-10
# Halvings more where a layer's inputs need them. The change of an expectation that needs none, and what a series around
# each node may leave out: for many weights and nodes, where ten digits would be eight times the work.
_MORE, CHANGE = 3, 1e-9
# Numbers of the vectors at a time on which a metric is evaluated.
_CHUNK = 2**21
# Share of the largest node at which a node is left out.
_NEGLIGIBLE = 1e-18


class Leaf(NamedTuple):
    """Weights or biases of one layer: where they stand in the flat parameters."""

    name: str
    start: int
    size: int


@dataclasses.dataclass(frozen=True)
class Law:
    """Nodes t and weights ω = density · d(t), so that Σ ω g(t) = E[d(w) g(w)].

    Attributes:
        nodes: t, [T].
        weights: ω, [T].
        inverse_curvature: d.
        constant: d, where it does not vary.
        coarser: the law with half the nodes.
        finer: makes the law with twice the nodes, for a g that needs them.
    """

    nodes: np.ndarray
    weights: np.ndarray
    inverse_curvature: Callable[[np.ndarray], np.ndarray]
    constant: float | None = None
    coarser: "Law | None" = None
    finer: Callable[[], "Law"] | None = None

    @property
    def mean(self) -> float:
        """E d(w)."""
        return float(np.sum(self.weights)) if self.constant is None else self.constant


def leaves_of(model: TwoLayer | MLP) -> list[dict[str, Leaf]]:
    """For each layer where its `weight` and its `bias`, if it has one, stand."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    layers, at = [], 0
    for number, layer in enumerate(shapes):
        found = {}
        for name, leaf in (("weight", layer.weight), ("bias", layer.bias)):
            if leaf is not None:
                found[name] = Leaf(f"{name} of layer {number}", at, leaf.size)
                at += leaf.size
        layers.append(found)
    return layers


class Curvature:
    """d of a regularizer whose Hessian is diagonal, leaf by leaf; 1 without one.

    Evaluated by the regularizer's own metric on vectors in the flat layout of the model, as many values of w at a time
    as the leaf has entries.
    """

    def __init__(self, regularizer: AbstractRegularizer | None, model: TwoLayer | MLP):
        self._regularizer, self.leaves = regularizer, leaves_of(model)
        self._functions: dict[Leaf, Callable[[np.ndarray], np.ndarray]] = {}
        self._size = sum(leaf.size for layer in self.leaves for leaf in layer.values())
        if regularizer is not None:
            self._evaluate = jax.jit(jax.vmap(self._metric_inverse))
            for layer in self.leaves:
                for leaf in layer.values():
                    self._check_equal(leaf)

    def _metric_inverse(self, flat):
        metric = self._regularizer.metric(flat)  # pyright: ignore[reportOptionalMemberAccess]
        if not isinstance(metric, ScalarMetric | DiagonalMetric):
            raise TypeError(
                f"`ntk.infinite_width(regularizer={self._regularizer!r})`: its Hessian must be diagonal. Groups tie "
                "weights to each other, with norms that grow with the width: use cx.PseudoHuber or `ntk.empirical`."
            )
        return metric.diagonal(self._size)

    def _check_equal(self, leaf: Leaf) -> None:
        """All entries of a leaf must have one d: nothing else is the same at every width."""
        for value in (0.0, 0.7, -1.3):
            found = np.asarray(self._evaluate(jnp.full((1, self._size), value)))[0, leaf.start : leaf.start + leaf.size]
            if np.ptp(found) > 1e-9 * np.abs(found).max():
                raise ValueError(
                    f"`ntk.infinite_width(regularizer={self._regularizer!r})`: its curvature differs within the "
                    f"{leaf.name}, from {1 / found.max():g} to {1 / found.min():g} at {value:g}; as the width grows it "
                    "has a limit only where all weights of a layer have the same, and all biases."
                )

    def __call__(self, leaf: Leaf, t: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """d(t)."""
        if self._regularizer is None:
            return np.ones_like(t)
        vectors = max(1, min(-(-t.size // leaf.size), _CHUNK // self._size))
        out = np.empty_like(t)
        for start in range(0, t.size, vectors * leaf.size):
            part = t[start : start + vectors * leaf.size]
            flat = np.zeros((vectors, self._size))
            filled = np.pad(part, (0, vectors * leaf.size - part.size)).reshape(vectors, leaf.size)
            flat[:, leaf.start : leaf.start + leaf.size] = filled
            found = np.asarray(self._evaluate(jnp.asarray(flat)))[:, leaf.start : leaf.start + leaf.size]
            out[start : start + part.size] = found.ravel()[: part.size]
        return out

    def _of(self, leaf: Leaf) -> Callable[[np.ndarray], np.ndarray]:
        """d of a leaf, always the same object: what is made from it is kept."""
        return self._functions.setdefault(leaf, functools.partial(self, leaf))

    def normal(self, leaf: Leaf) -> Law:
        """Under N(0, 1)."""
        density = lambda t: np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
        return self._law(leaf, -_FARTHEST, _FARTHEST, density, 2.5)

    def uniform(self, leaf: Leaf) -> Law:
        """Under U(0, 1)."""
        return self._law(leaf, 0.0, 1.0, np.ones_like, 0.5)

    def at_zero(self, leaf: Leaf) -> float:
        """d(0), of a bias that starts there."""
        return self._finite(leaf, float(self(leaf, np.zeros(1))[0]))

    def _law(self, leaf: Leaf, low: float, high: float, density: Callable, width: float) -> Law:
        """Panels that meet in 0, halved until the means of d, d t² and d cos 3t are known."""
        law, means = self._panels(leaf, low, high, density, width)
        if law.constant is not None:
            return law
        # Kept is the law that a halving did not change, not the one that showed it.
        steps = [(law, means)]
        while len(steps) <= _HALVINGS:
            steps.append(self._panels(leaf, low, high, density, width / 2 ** len(steps)))
            if np.all(np.abs(steps[-1][1] - steps[-2][1]) <= _CHANGE * steps[-1][1][:2].max()):
                break
        width /= 2 ** (len(steps) - 2)

        def finer(law: Law, width: float) -> Law:
            found = self._panels(leaf, low, high, density, width)[0]
            return dataclasses.replace(found, coarser=law, finer=functools.cache(lambda: finer(found, width / 2)))

        law = dataclasses.replace(steps[-2][0], coarser=steps[max(0, len(steps) - 3)][0])
        return dataclasses.replace(law, finer=functools.cache(lambda: finer(law, width / 2)))

    def _panels(self, leaf: Leaf, low: float, high: float, density: Callable, width: float) -> tuple[Law, np.ndarray]:
        """A law without the nodes that do not count, and the means by which its halving is judged."""
        t, w = panels(low, high, width)
        d = self(leaf, t)
        if np.ptp(d) <= 1e-13 * np.abs(d).max():
            constant = self._finite(leaf, float(d[0]))
            return Law(np.zeros(1), d[:1], lambda t: np.full_like(t, constant), constant), d[:1]
        weights = w * density(t) * d
        self._finite(leaf, float(np.sum(weights)))
        means = np.array([np.sum(weights * g) for g in (1.0, t**2, np.cos(3 * t))])
        kept = weights > _NEGLIGIBLE * weights.max()
        return Law(t[kept], weights[kept], self._of(leaf)), means

    def _finite(self, leaf: Leaf, mean: float) -> float:
        if not (np.isfinite(mean) and mean > 0):
            raise ValueError(
                f"`ntk.infinite_width(regularizer={self._regularizer!r})`: the mean of the inverse curvature over the "
                f"{leaf.name} at the start is {mean}; it must be finite. Use a larger smoothing, or add a multiple of "
                "cx.L2()."
            )
        return mean


def refined(
    law: Law, expectations: Callable[[Law], list[np.ndarray]]
) -> tuple[Law, list[np.ndarray], list[np.ndarray]]:
    """The law with so many nodes that expectations of each row are known; what they were before, and what they are."""
    before, found = expectations(law.coarser or law), expectations(law)
    for _ in range(_MORE):
        if law.finer is None or all(np.all(np.abs(x - y) <= CHANGE * y) for x, y in zip(before, found, strict=True)):
            break
        law = law.finer()
        before, found = found, expectations(law)
    return law, before, found
