"""Groups of parameters: which belong together, as data that a compiled program can be built around."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .models import Layers

# The norm, in units of the median, that a group which a first fit left out counts as: out it stays.
_LEAST = 1e-3


class Groups:
    """Disjoint groups of parameters, each with a weight; a parameter in no group stands alone.

    A value: equal groups are equal and hash alike, so that programs compiled for one serve the other.

    Args:
        labels: a pytree like the parameters (or a flat vector [p]) of whole numbers: parameters with the same number
            from 0 up are a group, those with a negative one stand alone.
        weights: ω > 0, one a group in the order of the numbers, or None for ones; `weighted()` gives √size.

    Raises:
        ValueError: for labels that are no whole numbers, no group at all, or weights that do not fit.

    Example:
        >>> groups = Groups([0, 0, 1, -1])
        >>> groups.count, groups.size
        (2, 4)
        >>> groups == Groups(np.array([0, 0, 3, -7]))
        True
    """

    def __init__(self, labels: PyTree[Any], weights: Any = None):
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(labels)]
        if not leaves or any(leaf.dtype.kind not in "iu" for leaf in leaves):
            raise ValueError(
                "`Groups(labels=...)` needs a whole number for each parameter, its group's from 0 up, or -1 where it "
                f"stands alone; got {[str(leaf.dtype) for leaf in leaves] or 'nothing'}."
            )
        flat = np.concatenate([leaf.ravel() for leaf in leaves])
        kept, numbers = np.unique(flat[flat >= 0], return_inverse=True)
        if not kept.size:
            raise ValueError("`Groups(labels=...)`: every label is negative: there is no group. Number some from 0 up.")
        self._labels = np.full(flat.shape, -1, np.int32)
        self._labels[flat >= 0] = numbers
        self._labels.flags.writeable = False
        self.weights = tuple((np.ones(len(kept)) if weights is None else np.asarray(weights, float)).ravel().tolist())
        if len(self.weights) != len(kept) or not all(0 < w < np.inf for w in self.weights):
            raise ValueError(
                f"`Groups(weights=...)` needs a positive finite number for each of the {len(kept)} groups; got "
                f"{len(self.weights)} numbers, from {min(self.weights, default=0):g}."
            )
        self._key = (self._labels.tobytes(), self.weights)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Groups) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Groups({self.count} groups among {self.size} parameters)"

    @property
    def labels(self) -> np.ndarray:
        """[p] numbers 0 to count − 1, or −1 where a parameter stands alone."""
        return self._labels

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.weights)

    @property
    def size(self) -> int:
        """Number of parameters, in groups or alone."""
        return len(self._labels)

    @property
    def sizes(self) -> np.ndarray:
        """[count] parameters of each group."""
        return np.bincount(self._labels[self._labels >= 0], minlength=self.count)

    @property
    def alone(self) -> np.ndarray:
        """[p] True where a parameter is in no group."""
        return self._labels < 0

    def weighted(self) -> "Groups":
        """The same groups with ω = √size, so that large and small ones are left out at the same noise.

        Source: Yuan & Lin, JRSS B 68, 2006.
        """
        return Groups(self._labels, np.sqrt(self.sizes))

    def adaptive(self, params: PyTree, power: float = 1.0) -> "Groups":
        """The same groups with ω divided by (‖x_g‖/median)^power, from parameters of a first fit.

        A penalty strong enough to leave out all noise also draws the groups that stay towards zero. With these weights
        a second fit hardly touches the large ones, and leaves out what the first one kept small.

        Args:
            params: the parameters of a first fit, with the shapes that the groups were made for.
            power: how much more small groups are penalised than large ones.

        Raises:
            ValueError: for parameters of another size, all zero, or not finite, or a power that is not positive.

        Source: Zou, JASA 101, 2006; for networks Dinh & Ho, NeurIPS 2020.

        Example:
            >>> Groups([0, 0, 1, 2]).adaptive(np.array([3.0, 4.0, 0.5, 50.0])).weights
            (1.0, 10.0, 0.1)
        """
        flat = np.concatenate([np.asarray(leaf, float).ravel() for leaf in jax.tree.leaves(params)])
        if flat.size != self.size:
            raise ValueError(
                f"`Groups.adaptive(params)`: the groups are of {self.size} parameters, these are {flat.size}."
            )
        if not (power > 0 and np.isfinite(power)):
            raise ValueError(f"`Groups.adaptive(power={power!r})`: must be a positive finite number; 1 is usual.")
        inside = self._labels >= 0
        norms = np.sqrt(np.bincount(self._labels[inside], flat[inside] ** 2, self.count))
        if not np.isfinite(norms).all() or not norms.any():
            raise ValueError("`Groups.adaptive(params)`: every group is zero, or one is not finite: use another fit.")
        share = norms / np.median(norms[norms > 0])
        return Groups(self._labels, np.asarray(self.weights) / np.maximum(share, _LEAST) ** power)

    def total(self, x: Float[Array, "*n p"]) -> Float[Array, "*n g"]:
        """Sums over each group."""
        # Parameters that stand alone are summed into one group more, which is dropped.
        labels = np.where(self.alone, self.count, self._labels)
        sums = jax.ops.segment_sum(jnp.moveaxis(x, -1, 0), labels, num_segments=self.count + 1)
        return jnp.moveaxis(sums[:-1], 0, -1)

    def spread(self, values: Float[Array, "*n g"], alone: float = 0.0) -> Float[Array, "*n p"]:
        """The value of its group for each parameter, `alone` for one that stands alone."""
        rest = jnp.full((*values.shape[:-1], 1), alone, values.dtype)
        return jnp.concatenate([values, rest], axis=-1)[..., self._labels]

    @staticmethod
    def inputs(params: Layers) -> "Groups":
        """A group for each input of the network: its column of the first layer. All else stands alone.

        Example:
            >>> import concordax as cx, jax
            >>> params = cx.MLP(inputs=3, widths=(5,)).init(jax.random.key(0))
            >>> Groups.inputs(params)
            Groups(3 groups among 26 parameters)
        """
        return Groups.columns(params, 0)

    @staticmethod
    def rows(params: Layers, layer: int = 0) -> "Groups":
        """A group for each row of a layer's weight, without the bias: what one unit reads."""
        return _of_one_layer(params, layer, axis=0)

    @staticmethod
    def columns(params: Layers, layer: int = 0) -> "Groups":
        """A group for each column of a layer's weight: all that reads one of its inputs."""
        return _of_one_layer(params, layer, axis=1)

    @staticmethod
    def neurons(params: Layers) -> "Groups":
        """A group for each hidden unit: the weights it reads, its bias, and the weights that read it.

        A weight between two hidden layers belongs to the unit that reads it; of the unit below, the column is left out
        then, since groups are disjoint. The last layer's columns belong to the last hidden units.
        """
        if len(params) < 2:
            raise ValueError("`Groups.neurons(params)`: the network has one layer, and so no hidden units.")
        labels, first = [], 0
        for index, (weight, bias) in enumerate(params):
            rows, columns = weight.shape
            if index < len(params) - 1:
                own = first + np.arange(rows)
                labels.append((own[:, None] + np.zeros((rows, columns), int), None if bias is None else own))
                first += rows
            else:
                below = first - columns + np.arange(columns)
                labels.append((below + np.zeros((rows, columns), int), _alone(bias)))
        return Groups(tuple(labels))


def _alone(bias: Any) -> np.ndarray | None:
    return None if bias is None else np.full(bias.shape, -1)


def _of_one_layer(params: Layers, layer: int, axis: int) -> Groups:
    """A group for each index along an axis of one layer's weight; all else stands alone."""
    if not isinstance(layer, int) or not -len(params) <= layer < len(params):
        raise ValueError(f"`Groups...(layer={layer!r})`: the network has {len(params)} layers, 0 to {len(params) - 1}.")
    labels = [(np.full(weight.shape, -1), _alone(bias)) for weight, bias in params]
    weight, bias = labels[layer]
    labels[layer] = (np.indices(weight.shape)[axis], bias)
    return Groups(tuple(labels))


@functools.lru_cache(maxsize=64)
def joined(parts: "tuple[Groups | int, ...]") -> Groups:
    """Groups of blocks of parameters one after the other; a number is a block of that many that stand alone."""
    labels, weights = [], []
    for part in parts:
        if isinstance(part, int):
            labels.append(np.full(part, -1))
        else:
            labels.append(np.where(part.alone, -1, part.labels + len(weights)))
            weights.extend(part.weights)
    return Groups(np.concatenate(labels), weights)
