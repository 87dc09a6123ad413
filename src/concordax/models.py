"""Dense networks that can hand out their layers: TwoLayer with the paper's scaling, MLP in NTK scaling.

Parameters are a tuple of `DenseLayer(weight, bias)`; no loss, no optimizer here. Any other callable
(params, inputs) -> outputs works as a model too, without the price of the layer structure.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .linalg import product_transposed

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "erf": jax.scipy.special.erf,
    "linear": lambda z: z,
}


class DenseLayer(NamedTuple):
    """Weights [d_out, d_in] and bias [d_out], or None where the layer has no bias."""

    weight: Float[Array, "d_out d_in"]
    bias: Float[Array, " d_out"] | None


Layers = tuple[DenseLayer, ...]


def layer_shapes(params: Layers) -> tuple[tuple[int, int], ...]:
    """(d_out, d_in) of each layer, a bias being one more column."""
    return tuple((weight.shape[0], weight.shape[1] + (bias is not None)) for weight, bias in params)


@runtime_checkable
class LayeredModel(Protocol):
    """What a model offers to be differentiated layer by layer.

    Its flat parameters are, layer after layer, the weight [d_out, d_in] row by row and then the bias.
    """

    def tapped(self, params: Layers, inputs: Array, taps: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Outputs [n, c] with tap_l [n, d_out] added to the pre-activations of layer l, and each layer's inputs.

        A layer's inputs are [n, d_in], its scale included, with the bias scale as one more column where it has a bias.
        """
        ...


def activation_function(activation: str | Callable) -> Callable[[Array], Array]:
    """φ by its name, or as it is."""
    return ACTIVATIONS[activation] if isinstance(activation, str) else activation


def _forward(params, inputs, taps, activation, scales):
    if inputs.ndim != 2 or inputs.shape[1] != params[0].weight.shape[1]:
        raise ValueError(
            f"inputs must have shape [n, {params[0].weight.shape[1]}], as the model was built; got {inputs.shape}."
        )
    act = activation_function(activation)
    if taps is None and isinstance(activation, str):
        act = _out_of_place(act)
    hidden, seen = inputs, []
    for index, (layer, scale) in enumerate(zip(params, scales, strict=True)):
        features = scale * (act(hidden) if index else hidden)
        if layer.bias is not None:
            features = jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=1)
        hidden = product_transposed(features[:, : layer.weight.shape[1]], layer.weight)
        hidden = hidden if layer.bias is None else hidden + layer.bias[None, :]
        hidden = hidden if taps is None else hidden + taps[index]
        seen.append(features)
    return hidden, tuple(seen)


def _out_of_place(act: Callable) -> Callable:
    """An activation, number by number, that does not write over what it reads.

    Nothing else wants the numbers before an activation where outputs alone are asked for, and XLA's kernels in place
    are scalar on a CPU: they took four times as long, an eighth of a step at N = 500. Backwards, it is not in place.
    """
    return lambda hidden: act(hidden[:, ::-1])[:, ::-1]


def _check(name: str, activation: str | Callable, **sizes: int) -> None:
    for argument, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"`{name}({argument}={size!r})`: sizes are whole numbers from 1 up.")
    if isinstance(activation, str) and activation not in ACTIVATIONS:
        raise ValueError(
            f"`{name}(activation={activation!r})` is not known; use one of {', '.join(sorted(ACTIVATIONS))}, "
            "or pass a function on arrays."
        )


class TwoLayer(eqx.Module):
    """f(x) = (1/√width) Σ_j v_j φ(w_j·x): the paper's network (arXiv 2404.14875), no bias unless asked.

    Args:
        inputs: input features.
        width: hidden units.
        outputs: outputs.
        activation: a name (silu, tanh, relu, gelu, erf, linear) or a function on arrays.
        bias: whether the hidden layer has a bias, zero at the start.

    Raises:
        ValueError: for a size below 1 or an unknown activation.

    Example:
        >>> import jax
        >>> model = TwoLayer(inputs=3, width=8, outputs=2)
        >>> params = model.init(jax.random.key(0))
        >>> model(params, jax.numpy.ones((5, 3))).shape
        (5, 2)
    """

    inputs: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    activation: str | Callable = eqx.field(static=True)
    bias: bool = eqx.field(static=True)

    def __init__(self, inputs: int, width: int, outputs: int = 1, *, activation: str | Callable = "silu", bias=False):
        _check("TwoLayer", activation, inputs=inputs, width=width, outputs=outputs)
        self.inputs, self.width, self.outputs = inputs, width, outputs
        self.activation, self.bias = activation, bool(bias)

    def init(self, key: PRNGKeyArray) -> Layers:
        """Inner weights N(0, 1), outer weights U(0, 1), as the paper draws them."""
        inner, outer = jax.random.split(key)
        hidden = jax.random.normal(inner, (self.width, self.inputs))
        bias = jnp.zeros(self.width) if self.bias else None
        return (
            DenseLayer(hidden, bias),
            DenseLayer(jax.random.uniform(outer, (self.outputs, self.width)), None),
        )

    @property
    def scales(self) -> tuple[float, ...]:
        """What each layer's inputs are multiplied by, the bias not."""
        return (1.0, self.width**-0.5)

    def __call__(self, params: Layers, inputs: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Outputs [n, outputs]."""
        return self.tapped(params, inputs, None)[0]

    def tapped(self, params, inputs, taps):
        """See `LayeredModel`."""
        return _forward(params, inputs, taps, self.activation, self.scales)


class MLP(eqx.Module):
    """A network of any depth in NTK scaling: z = V a/√d_in + b, every parameter of order one.

    Args:
        inputs: input features.
        widths: hidden units of each hidden layer; empty for a linear model.
        outputs: outputs.
        activation: a name (silu, tanh, relu, gelu, erf, linear) or a function on arrays.

    Raises:
        ValueError: for a size below 1 or an unknown activation.

    Example:
        >>> import jax
        >>> model = MLP(inputs=3, widths=(8, 8), outputs=1)
        >>> model(model.init(jax.random.key(0)), jax.numpy.ones((5, 3))).shape
        (5, 1)
    """

    inputs: int = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    activation: str | Callable = eqx.field(static=True)

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int = 1, *, activation: str | Callable = "tanh"):
        widths = tuple(widths)
        _check("MLP", activation, inputs=inputs, outputs=outputs, **{f"widths[{i}]": w for i, w in enumerate(widths)})
        self.inputs, self.widths, self.outputs, self.activation = inputs, widths, outputs, activation

    def init(self, key: PRNGKeyArray) -> Layers:
        """Weights and hidden biases N(0, 1), output biases zero: the start then does not favour any level."""
        sizes = (self.inputs, *self.widths, self.outputs)
        layers = []
        for depth, (d_in, d_out) in enumerate(pairwise(sizes)):
            key, weight_key, bias_key = jax.random.split(key, 3)
            last = depth == len(self.widths)
            bias = jnp.zeros(d_out) if last else jax.random.normal(bias_key, (d_out,))
            layers.append(DenseLayer(jax.random.normal(weight_key, (d_out, d_in)), bias))
        return tuple(layers)

    @property
    def scales(self) -> tuple[float, ...]:
        """What each layer's inputs are multiplied by, the bias not."""
        return tuple(size**-0.5 for size in (self.inputs, *self.widths))

    def __call__(self, params: Layers, inputs: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Outputs [n, outputs]."""
        return self.tapped(params, inputs, None)[0]

    def tapped(self, params, inputs, taps):
        """See `LayeredModel`."""
        return _forward(params, inputs, taps, self.activation, self.scales)
