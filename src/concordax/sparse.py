"""How sparse parameters are: entries that are zero or hold next to nothing, idle hidden units, inputs nobody reads."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from .models import LayeredModel


class LayerSparsity(NamedTuple):
    """One layer, its bias included in the first three.

    Attributes:
        parameters: entries.
        zeros: entries that count as zero.
        holding: largest entries that together hold the share of the layer's own ℓ1 norm.
        units: rows of the weight.
        idle_units: of a hidden layer, units whose incoming or outgoing weights are all zero; 0 of the last layer.
    """

    parameters: int
    zeros: int
    holding: int
    units: int
    idle_units: int


class Sparsity(NamedTuple):
    """What `sparsity` counts. `layers` is empty, and what is said of units and inputs None, without layers.

    Attributes:
        parameters: entries in all.
        zeros: entries that count as zero.
        holding: largest entries that together hold the share of ‖θ‖₁.
        layers: the same for each layer.
        units: hidden units.
        idle_units: those whose incoming or outgoing weights are all zero.
        inputs: inputs of the network.
        idle_inputs: indices of those that no unit reads.
    """

    parameters: int
    zeros: int
    holding: int
    layers: tuple[LayerSparsity, ...]
    units: int | None
    idle_units: int | None
    inputs: int | None
    idle_inputs: tuple[int, ...] | None

    @property
    def nonzeros(self) -> int:
        """Entries that do not count as zero."""
        return self.parameters - self.zeros

    @property
    def active_units(self) -> int | None:
        """Hidden units with incoming and outgoing weights."""
        return None if self.units is None or self.idle_units is None else self.units - self.idle_units

    @property
    def active_inputs(self) -> int | None:
        """Inputs that some unit reads."""
        return None if self.inputs is None or self.idle_inputs is None else self.inputs - len(self.idle_inputs)


def sparsity(model: Callable, params: PyTree, *, share: float = 0.999, tolerance: float = 0.0) -> Sparsity:
    """Counts what is zero in parameters, and how few of them hold nearly all.

    `holding` is the smallest k with Σ of the k largest |θ_i| ≥ share·‖θ‖₁: it also tells smooth penalties apart, whose
    entries shrink without ever being zero. An entry is zero when |θ_i| ≤ tolerance·max|θ|.

    Args:
        model: whose parameters they are; units and inputs are counted for a `LayeredModel`.
        params: the parameters.
        share: of the ℓ1 norm, in (0, 1].
        tolerance: in units of the largest |θ_i|, in [0, 1); 0 counts exact zeros alone.

    Returns:
        The counts.

    Raises:
        ValueError: for a number out of range, or parameters that are not finite or none.

    Source: arXiv 2404.14875 counts what holds 99.9 % of ‖θ‖₁.

    Example:
        >>> import jax.numpy as jnp
        >>> import concordax as cx
        >>> model = cx.TwoLayer(inputs=3, width=2)
        >>> weights = jnp.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]), jnp.array([[0.0, 1.0]])
        >>> counts = cx.sparsity(model, tuple(cx.DenseLayer(weight, None) for weight in weights))
        >>> counts.zeros, counts.holding, counts.idle_units, counts.idle_inputs
        (4, 4, 1, (1,))
    """
    if not (math.isfinite(share) and 0 < share <= 1):
        raise ValueError(f"`sparsity(share={share!r})`: must be in (0, 1]; 0.999 counts what holds 99.9 % of the norm.")
    limit = zero_limit("sparsity", params, tolerance)
    flat = _flat(params)
    layers, idle_inputs = (), None
    if isinstance(model, LayeredModel):
        weights = [np.abs(np.asarray(layer.weight, np.float64)) > limit for layer in params]
        idle = [int(np.sum(~(one.any(axis=1) & next_one.any(axis=0)))) for one, next_one in pairwise(weights)]
        layers = tuple(
            _layer(_flat(layer), limit, share, len(weight), count)
            for layer, weight, count in zip(params, weights, [*idle, 0], strict=True)
        )
        idle_inputs = tuple(np.flatnonzero(~weights[0].any(axis=0)).tolist())
    return Sparsity(
        parameters=flat.size,
        zeros=int(np.sum(np.abs(flat) <= limit)),
        holding=_holding(flat, share),
        layers=layers,
        units=sum(layer.units for layer in layers[:-1]) if layers else None,
        idle_units=sum(layer.idle_units for layer in layers) if layers else None,
        inputs=params[0].weight.shape[1] if layers else None,
        idle_inputs=idle_inputs,
    )


def zero_limit(caller: str, params: PyTree, tolerance: float) -> float:
    """The largest magnitude that counts as zero; raises ValueError for what `sparsity` says."""
    arrays = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    if not (math.isfinite(tolerance) and 0 <= tolerance < 1):
        raise ValueError(
            f"`{caller}(tolerance={tolerance!r})`: must be in [0, 1), in units of the largest weight; 0 is exact."
        )
    if not any(array.size for array in arrays):
        raise ValueError(f"`{caller}`: the parameters are empty; there is nothing to count.")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"`{caller}`: the parameters are not all finite; `explain(result)` says why a run ended so.")
    return tolerance * max(float(np.abs(array).max(initial=0.0)) for array in arrays)


def _flat(params: PyTree) -> np.ndarray:
    # float64 for the sums: the last of a million float32 entries would not move a float32 sum any more.
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(params)])


def _layer(flat: np.ndarray, limit: float, share: float, units: int, idle: int) -> LayerSparsity:
    return LayerSparsity(flat.size, int(np.sum(np.abs(flat) <= limit)), _holding(flat, share), units, idle)


def _holding(flat: np.ndarray, share: float) -> int:
    sums = np.cumsum(np.sort(np.abs(flat))[::-1])
    # The last sum, not the norm summed in another order: a share of 1 must be reached.
    return int(np.searchsorted(sums, share * sums[-1])) + 1 if sums[-1] > 0 else 0
