"""The kernels of a dense network as its width grows: of its outputs at the start, and of its Gauss-Newton step.

With c⁰ = x̃·x̃' of the first layer's inputs, a bias being one more of them, and in each hidden layer F = E[φ(u) φ(v)],
S = E[φ'(u) φ'(v)] of the pair of variances and covariance c:

    T¹ = Σ_j x̃_j x̃'_j E[d(w_j) φ'(u) φ'(v)]                       w_j also sits in u and v: conditioned on
    T^{l+1} = T^l S + E[d(w)] F^l S + E[d(b) φ'(u) φ'(v)]          one weight among infinitely many does not
    Θ = T^L + E[d(w)] F^L + d(0)

and c^{l+1} = F^l + 1. d = 1/h'' is 1 without a regularizer, and T¹ is then c S. See docs/ntk.md.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..linalg import symmetric
from ..models import MLP, TwoLayer
from ..regularizers import AbstractRegularizer
from .activations import Dual, Rows, correlation, warn_above, warn_of
from .checks import check_result, check_rows, check_same_features, starts
from .hermite import Function, Shifted, pairs, second_moment, shifted
from .orthant import orthant_mean
from .prior import CHANGE, Curvature, Law, refined

# Rows of a tile of the kernel: some twenty arrays of its size are at work.
_TILE = 1024


class Kernels(NamedTuple):
    """Two kernels of one output, [n1, n2].

    Attributes:
        nngp: the covariance of the outputs over starts.
        ntk: the limit of J H⁻¹ Jᵀ.
    """

    nngp: Array
    ntk: Array


def infinite_width(model: Callable, *, regularizer=None, tolerance: float = 1e-6) -> "InfiniteWidth":
    """The kernels to which those of a network at its start tend as its hidden layers grow.

    `kernel(x1, x2)` has two parts: `nngp`, the covariance of an output over starts, and `ntk`, the limit of what
    `ntk.empirical(model, params, x1, x2, metric=regularizer)` computes, weights and biases alike. `ntk` with the
    regularizer is the kernel of a Gauss-Newton step; without one it is the neural tangent kernel. Inputs and activation
    count, widths do not.

    `MLP`: outputs are independent Gaussian processes with the same kernels. Without hidden layers there is no width to
    grow; the kernels are then means over starts.

    `TwoLayer` draws its outer weights from U(0, 1), whose mean is ½. Its output is therefore
    (√width/2) E φ(w·x), the same for every start and growing with the width, and around it a Gaussian process with the
    covariance ⅓ E[φφ'] − ¼ E[φ] E[φ'], to which the covariance of the finite network is equal at every width. That is
    what `nngp` gives: the second moment has no limit. Two of its outputs are not independent:
    `kernel.between_outputs(x1, x2)` has their kernels.

    Args:
        model: a `TwoLayer` or an `MLP`, whatever its widths.
        regularizer: whose Hessian is H: one that is diagonal, with one scalar function for all weights of a layer and
            one for its biases, as separable ones, their sums and `PerParameter` have. None for H = I.
        tolerance: an expectation that is known less exactly, in units of its root mean square, is warned of with a
            `QuadratureWarning`.

    Returns:
        A function (x1, x2=None) -> `Kernels(nngp, ntk)`, each [n1, n2]. It computes in float64, whatever JAX's
        precision is, and returns arrays of JAX's.

    Raises:
        TypeError: for another model, something else than a regularizer, or one with groups.
        ValueError: for a regularizer that differs within a layer or whose inverse curvature has no mean; and, from the
            function, for rows that do not fit the model or are not finite, or an activation that is not finite.

    Source: Jacot, Gabriel & Hongler, NeurIPS 2018; Lee et al., ICLR 2018 (outputs); docs/ntk.md (with a regularizer).

    Example:
        >>> import concordax as cx, jax
        >>> kernel = infinite_width(cx.MLP(inputs=2, widths=(1,), activation="relu"))
        >>> x = jax.numpy.array([[1.0, 1.0], [1.0, -1.0]])
        >>> nngp, ntk = kernel(x)
        >>> bool(jax.numpy.allclose(nngp.diagonal(), 1.0)), bool(jax.numpy.allclose(ntk.diagonal(), 3.0))
        (True, True)
    """
    if not isinstance(model, TwoLayer | MLP):
        raise TypeError(
            f"`ntk.infinite_width(model={type(model).__name__})`: must be a cx.TwoLayer or a cx.MLP, for the limit is "
            "that of their laws of the start; `ntk.empirical` takes any model."
        )
    if not (regularizer is None or isinstance(regularizer, AbstractRegularizer)):
        raise TypeError(f"`ntk.infinite_width(regularizer={regularizer!r})`: must be None or one, as cx.L2().")
    if not tolerance > 0:
        raise ValueError(f"`ntk.infinite_width(tolerance={tolerance!r})`: must be a positive number.")
    with jax.enable_x64(True):
        laws = _laws(model, regularizer)
    return InfiniteWidth(model, regularizer, tolerance, laws)


def _again(model, regularizer, tolerance) -> "InfiniteWidth":
    return infinite_width(model, regularizer=regularizer, tolerance=tolerance)


class _Laws(NamedTuple):
    """d in the mean: over hidden weights and biases, for each hidden layer, over output weights, of an output bias."""

    weights: tuple[Law, ...]
    biases: tuple[Law | None, ...]
    fixed_bias: float
    last: float
    last_bias: float


def _laws(model: TwoLayer | MLP, regularizer: AbstractRegularizer | None) -> _Laws:
    curvature = Curvature(regularizer, model)
    *hidden, last = curvature.leaves
    weights = tuple(curvature.normal(layer["weight"]) for layer in hidden)
    if isinstance(model, TwoLayer):
        fixed = curvature.at_zero(hidden[0]["bias"]) if model.bias else 0.0
        return _Laws(weights, (None,), fixed, curvature.uniform(last["weight"]).mean, 0.0)
    biases = tuple(curvature.normal(layer["bias"]) for layer in hidden)
    last_bias = curvature.at_zero(last["bias"])
    return _Laws(weights, biases, 0.0, curvature.normal(last["weight"]).mean, last_bias)


class _Side(NamedTuple):
    """Rows: the first layer's inputs [n, k], a random bias one more column, and each hidden layer's series."""

    inputs: np.ndarray
    layers: tuple[Rows, ...]

    def part(self, where: slice) -> "_Side":
        """Some of the rows."""
        return _Side(self.inputs[where], tuple(rows.part(where) for rows in self.layers))


class _Limit(NamedTuple):
    """F^L and T^L."""

    features: np.ndarray
    tangent: np.ndarray


# Compared by identity, and so fit to be a function that `jax.jit` takes as a static argument.
@dataclasses.dataclass(frozen=True, eq=False)
class InfiniteWidth:
    """What `infinite_width` returns: a function of rows.

    Attributes:
        model: the network.
        regularizer: whose H it is.
        tolerance: above which an error is warned of.
    """

    model: TwoLayer | MLP
    regularizer: AbstractRegularizer | None
    tolerance: float
    laws: _Laws = dataclasses.field(repr=False)

    def __reduce__(self):
        # Compiled functions are among the laws: a copy makes its own.
        return _again, (self.model, self.regularizer, self.tolerance)

    def __call__(self, x1, x2=None) -> Kernels:
        """The kernels of an output with itself.

        Args:
            x1: n1 rows, [n1, inputs].
            x2: n2 rows; None for x1, and then both kernels are exactly symmetric.
        """
        return self._kernels(x1, x2, between=False)

    def between_outputs(self, x1, x2=None) -> Kernels:
        """The kernels of one output with another, zero for an `MLP`; arguments as of a call."""
        return self._kernels(x1, x2, between=True)

    def _kernels(self, x1, x2, *, between: bool) -> Kernels:
        x1, x2, same = self._checked(x1, x2)
        nngp, ntk = np.empty((2, len(x1), len(x2)))
        with jax.enable_x64(True):
            dual = Dual(self.model.activation)
            one = self._side(dual, x1)
            two = one if same else self._side(dual, x2)
            counts = min(len(x1), _TILE), min(len(x2), _TILE)
            for i in starts(len(x1), counts[0]):
                left = one.part(slice(i, i + counts[0]))
                # The tile of the last rows with themselves comes last: what overlaps it is symmetric in the end.
                for j in starts(len(x2), counts[1])[i // counts[0] if same else 0 :]:
                    found = self._tile(dual, left, two.part(slice(j, j + counts[1])), same and i == j, between)
                    for kernel, part in zip((nngp, ntk), found, strict=True):
                        if same:
                            part = symmetric(part) if i == j else part
                            kernel[j : j + counts[1], i : i + counts[0]] = part.T
                        kernel[i : i + counts[0], j : j + counts[1]] = part
        return Kernels(jnp.asarray(nngp), jnp.asarray(ntk))

    def _checked(self, x1, x2) -> tuple[np.ndarray, np.ndarray, bool]:
        call, width = "ntk.infinite_width(model)", self.model.inputs
        sides = {"x1": x1} if x2 is None else {"x1": x1, "x2": x2}
        for name, x in sides.items():
            check_rows(call, name, x)
            if np.ndim(x) != 2 or np.shape(x)[1] != width:
                raise ValueError(f"`{call}({name}=...)` must have shape [n, {width}], as the model; got {np.shape(x)}.")
        arrays = [np.asarray(x, np.float64) for x in sides.values()]
        check_same_features(call, arrays[0], arrays[-1])
        check_result(call, 2 * len(arrays[0]) * len(arrays[-1]), np.float64)
        return arrays[0], arrays[-1], x2 is None

    def _side(self, dual: Dual, x: np.ndarray) -> _Side:
        if isinstance(self.model, TwoLayer):
            return _Side(x, (dual.rows(np.sum(x**2, axis=1)),))
        x = x / np.sqrt(self.model.inputs)
        if not self.model.widths:
            return _Side(x, ())
        inputs = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        variance, layers = np.sum(inputs**2, axis=1), []
        for _ in self.model.widths:
            layers.append(dual.rows(variance))
            variance = layers[-1].second + 1
        return _Side(inputs, tuple(layers))

    def _tile(self, dual: Dual, one: _Side, two: _Side, same: bool, between: bool) -> tuple[np.ndarray, np.ndarray]:
        """Both kernels of some rows with others, or with themselves."""
        laws = self.laws
        if not one.layers:
            nngp = one.inputs @ two.inputs.T
            return (0 * nngp, 0 * nngp) if between else (nngp, laws.last * nngp + laws.last_bias)
        limit = self._hidden(dual, one, two, same)
        if not isinstance(self.model, TwoLayer):
            ntk = limit.tangent + laws.last * limit.features + laws.last_bias
            return (0 * ntk, 0 * ntk) if between else (limit.features, ntk)
        # Of v ~ U(0, 1): E v² = ⅓ for one output, (E v)² = ¼ between two, and (E v)² E φ E φ' is no variance.
        moment = 1 / 4 if between else 1 / 3
        means = np.outer(one.layers[-1].mean, two.layers[-1].mean)
        last = 0.0 if between else laws.last
        return moment * limit.features - means / 4, moment * limit.tangent + last * limit.features

    def _hidden(self, dual: Dual, one: _Side, two: _Side, same: bool) -> _Limit:
        covariance = one.inputs @ two.inputs.T
        features, tangent = covariance, np.zeros_like(covariance)
        for depth, (left, right) in enumerate(zip(one.layers, two.layers, strict=True)):
            if depth:
                covariance = features + 1
            if same:
                # Rounding apart, these are variances: a correlation of 1 is met exactly.
                np.fill_diagonal(covariance, left.variance)
            found = dual.pairs(left, right, covariance)
            warn_of(dual, found, left, right, self.tolerance)
            if depth:
                own = self.laws.weights[depth].mean * features * found.slope
                ones = [np.ones((len(rows.variance), 1)) for rows in (left, right)]
                rest = [rows.variance - 1 for rows in (left, right)]
                own = own + self._conditioned(
                    dual, depth, self.laws.biases[depth], found.slope, ones, rest, features, same
                )
            else:
                own = self._first(dual, one.inputs, two.inputs, found.slope, same) + self.laws.fixed_bias * found.slope
            features, tangent = found.value, tangent * found.slope + own
        return _Limit(features, tangent)

    def _first(self, dual: Dual, one: np.ndarray, two: np.ndarray, slope: np.ndarray, same: bool) -> np.ndarray:
        """Σ_j x̃_j x̃'_j E[d(w_j) φ'(u) φ'(v)], inputs of one d in one product where d does not vary."""
        total, d_in = np.zeros_like(slope), self.model.inputs
        parts = ((np.arange(d_in), self.laws.weights[0]), (np.arange(d_in, one.shape[1]), self.laws.biases[0]))
        for columns, law in parts:
            if law is None or not columns.size:
                continue
            if law.constant is not None:
                total += law.constant * (one[:, columns] @ two[:, columns].T) * slope
                continue
            for column in columns:
                sides = [one[:, [column]], two[:, [column]]]
                others = [np.delete(side, column, axis=1) for side in (one, two)]
                rest = [np.sum(side**2, axis=1) for side in others]
                between = others[0] @ others[1].T
                total += self._conditioned(dual, 0, law, slope, sides, rest, between, same)
        return total

    def _conditioned(
        self, dual: Dual, depth: int, law, slope: np.ndarray, loads, rest, between: np.ndarray, same: bool
    ) -> np.ndarray:
        """r r' E[d(w) φ'(r w + u°) φ'(r' w + v°)], r the loads, u° and v° of variances `rest` and that covariance.

        Given w = t the pair is Gaussian around (r t, r' t): an integral over t of what Hermite series give.
        """
        scale = loads[0] @ loads[1].T
        if law.constant is not None:
            return law.constant * scale * slope
        name = f"E[d φ'(u) φ'(v)] of {dual.name} in layer {depth}"
        scales = [np.sqrt(variance) for variance in rest]
        rho = correlation(rest[0], rest[1], between)
        if dual.closed == "relu":
            columns = loads[0][:, 0], loads[1][:, 0]
            value, error, seconds = orthant_mean(law, columns, (scales[0], scales[1]), rho)
        else:
            sides = _given(dual.slope, law, loads, scales, same)
            value, error = pairs(dual.slope, *sides, rho)
            seconds = sides[0].expansion.second, sides[1].expansion.second
        warn_above(name, error, seconds, self.tolerance)
        return scale * value


def _given(
    f: Function, law: Law, loads: list[np.ndarray], scales: list[np.ndarray], same: bool
) -> tuple[Shifted, Shifted]:
    """Series around r t for the rows of both sides, at nodes enough for E f²; what they change is in the error."""
    sides = list(zip(loads, scales, strict=True))[: 1 if same else 2]

    def seconds(law: Law) -> list[np.ndarray]:
        return [second_moment(f, load * law.nodes, scale) @ law.weights for load, scale in sides]

    law, before, found = refined(law, seconds)
    made = []
    for (load, scale), x, y in zip(sides, before, found, strict=True):
        series = shifted(f, load * law.nodes, scale, law.weights, CHANGE)
        made.append(series.less_exact(np.abs(x - y) / np.sqrt(np.maximum(y, np.finfo(float).tiny))))
    return made[0], made[-1]
