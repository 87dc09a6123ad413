"""The smaller dense network that computes the same: hidden units and inputs that cannot matter are taken out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .models import MLP, DenseLayer, Layers, TwoLayer, activation_function
from .sparse import zero_limit


# Compared by identity, and so fit to be a function that `jax.jit` takes.
@dataclass(frozen=True, eq=False)
class Compacted:
    """A smaller network and where its parts stood in the larger one; called on the larger one's inputs.

    Attributes:
        model: the smaller network, of the same kind; takes the columns `inputs`.
        params: its parameters.
        inputs: indices of the inputs that are kept, ascending.
        units: for each hidden layer the indices of the units that are kept, ascending.
        larger: the larger network.
    """

    model: TwoLayer | MLP
    params: Layers
    inputs: Int[np.ndarray, " kept"]
    units: tuple[np.ndarray, ...]
    larger: TwoLayer | MLP

    def __call__(self, inputs: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Outputs [n, outputs] for rows of all d inputs, those that are not read among them."""
        if inputs.ndim != 2 or inputs.shape[1] != self.larger.inputs:
            # An index beyond the last column would be moved there without a word.
            raise ValueError(
                f"inputs must have shape [n, {self.larger.inputs}], as the larger network's; got {inputs.shape}."
            )
        return self.model(self.params, inputs[:, self.inputs])

    def expanded(self) -> Layers:
        """Parameters of the larger network that computes the same: zero for every unit and input that is not kept."""
        model = self.larger
        hidden = (model.width,) if isinstance(model, TwoLayer) else model.widths
        sizes = (model.inputs, *hidden, model.outputs)
        kept = (self.inputs, *self.units, np.arange(model.outputs))
        layers = []
        for index, (weight, bias) in enumerate(self.params):
            ratio = self.model.scales[index] / model.scales[index]
            columns, rows = kept[index : index + 2]
            place = jnp.zeros((sizes[index + 1], sizes[index]), weight.dtype).at[np.ix_(rows, columns)]
            level = None if bias is None else jnp.zeros(sizes[index + 1], bias.dtype).at[rows].set(bias)
            layers.append(DenseLayer(place.set(ratio * weight), level))
        return tuple(layers)


class _Layer(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray | None
    scale: float


def compact(model: Callable, params: Layers, *, tolerance: float = 0.0) -> Compacted:
    """The equal, smaller network without the hidden units and inputs that cannot matter.

    A hidden unit goes when all its outgoing weights are zero, and when all its incoming ones are: its activation is
    then the constant φ(b_j), and s V_{·j} φ(b_j) joins the next layer's bias. Where that layer has no bias the unit
    goes only if this product is zero. An input goes when no unit that is left reads it. Each removal may free the next,
    in any depth. Weights are multiplied by √(d_new/d_old), so that outputs stay as they are under the scale 1/√d.

    A hidden layer of which nothing is left keeps one unit of zero weights, and the network its first input: the result
    is then the constant that the network was.

    Args:
        model: a `TwoLayer` or `MLP`.
        params: its parameters.
        tolerance: entries of |θ_i| ≤ tolerance·max|θ| are set to zero first, in [0, 1). 0 keeps the outputs up to
            rounding; with a larger one they change by what was set to zero.

    Returns:
        The smaller network, which may be called on the inputs of the larger one, or trained on.

    Raises:
        TypeError: for another model: its parts have no known meaning.
        ValueError: for a tolerance out of range or parameters that are not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> import concordax as cx
        >>> model = cx.TwoLayer(inputs=3, width=2, activation="tanh")
        >>> weights = jnp.array([[1.0, 0.0, 2.0], [0.0, 4.0, 3.0]]), jnp.array([[1.0, 0.0]])
        >>> params = tuple(cx.DenseLayer(weight, None) for weight in weights)
        >>> small = cx.compact(model, params)
        >>> small.model.width, small.inputs.tolist()
        (1, [0, 2])
        >>> x = jnp.array([[0.3, 9.0, -0.1]])
        >>> bool(jnp.allclose(small(x), model(params, x)))
        True
    """
    if not isinstance(model, TwoLayer | MLP):
        raise TypeError(f"`compact(model={type(model).__name__})`: must be a TwoLayer or MLP.")
    limit = zero_limit("compact", params, tolerance)
    layers = [
        _Layer(_cleaned(layer.weight, limit), None if layer.bias is None else _cleaned(layer.bias, limit), scale)
        for layer, scale in zip(params, model.scales, strict=True)
    ]
    dtype = params[0].weight.dtype
    function = activation_function(model.activation)
    # φ in the network's own precision, so that the constants are those that the network computes.
    phi = lambda values: np.asarray(function(jnp.asarray(values, dtype)), np.float64)
    units: list[np.ndarray] = [np.arange(len(layer.weight)) for layer in layers[:-1]]
    for below in range(len(units)):
        layers[below], layers[below + 1], units[below] = _without_constants(
            layers[below], layers[below + 1], units[below], phi
        )
    for below in reversed(range(len(units))):
        read = np.asarray(layers[below + 1].weight.any(axis=0))
        layers[below], layers[below + 1], units[below] = _keep(read, layers[below], layers[below + 1], units[below])
    inputs = np.flatnonzero(layers[0].weight.any(axis=0))
    inputs = inputs if inputs.size else np.arange(1)
    layers[0] = layers[0]._replace(weight=layers[0].weight[:, inputs])
    smaller = _resized(model, len(inputs), [len(each) for each in units])
    cast = lambda array: jnp.asarray(array, dtype)
    new = tuple(
        DenseLayer(cast(layer.weight * (layer.scale / scale)), None if layer.bias is None else cast(layer.bias))
        for layer, scale in zip(layers, smaller.scales, strict=True)
    )
    return Compacted(smaller, new, inputs, tuple(units), model)


def _cleaned(values: Array, limit: float) -> np.ndarray:
    # float64 for the folding of float32 networks too: their constants are summed, and rounded once at the end.
    array = np.asarray(values, np.float64)
    return np.where(np.abs(array) <= limit, 0.0, array)


def _without_constants(layer: _Layer, above: _Layer, units: np.ndarray, phi: Callable[[np.ndarray], np.ndarray]):
    """Folds the units of `layer` without incoming weights into the bias of the layer above, where that can be."""
    constant = np.asarray(~layer.weight.any(axis=1))
    if not constant.any():
        return layer, above, units
    level = phi(np.zeros(len(units)) if layer.bias is None else layer.bias)
    pushes = above.scale * above.weight * np.where(constant, level, 0.0)
    if above.bias is None:
        constant &= ~pushes.any(axis=0)
    else:
        above = above._replace(bias=above.bias + pushes.sum(axis=1))
    above = above._replace(weight=np.where(constant, 0.0, above.weight))
    return _keep(~constant, layer, above, units)


def _keep(kept: np.ndarray, layer: _Layer, above: _Layer, units: np.ndarray):
    """The layer with the units that `kept` marks, or with one of zero weights, and the columns above that read them."""
    if kept.any():
        bias = None if layer.bias is None else layer.bias[kept]
        return (
            layer._replace(weight=layer.weight[kept], bias=bias),
            above._replace(weight=above.weight[:, kept]),
            units[kept],
        )
    first = np.zeros_like(layer.weight[:1])
    bias = None if layer.bias is None else np.zeros(1)
    return layer._replace(weight=first, bias=bias), above._replace(weight=np.zeros_like(above.weight[:, :1])), units[:1]


def _resized(model: TwoLayer | MLP, inputs: int, widths: list[int]) -> TwoLayer | MLP:
    if isinstance(model, TwoLayer):
        return TwoLayer(inputs, widths[0], model.outputs, activation=model.activation, bias=model.bias)
    return MLP(inputs, tuple(widths), model.outputs, activation=model.activation)
