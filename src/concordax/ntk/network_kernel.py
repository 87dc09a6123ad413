"""The tangent kernel of a network as a function of tables, in NumPy and float64, in blocks of few shapes."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ..models import MLP, Layers, TwoLayer
from .finite_width import empirical, empirical_diagonal
from .limit import infinite_width

# Rows of a block at most, and at least: tables of nearly the same size share compiled programs.
_LARGEST, _SMALLEST = 512, 32


class NetworkKernel:
    """k(x, x') = J(x) J(x')ᵀ of a network at its start, or its limit in infinite width where `params` is None.

    Args:
        model: a network of one output.
        params: its parameters, as NumPy arrays so that the kernel pickles.
    """

    def __init__(self, model: MLP | TwoLayer, params: Layers | None):
        self.model, self.params = model, params

    def __call__(self, x1: np.ndarray, x2: np.ndarray | None = None) -> np.ndarray:
        """K [n1, n2]; of `x1` with itself the lower triangle of blocks and its mirror image."""
        of_block, other = self._of_block(), x1 if x2 is None else x2
        result = np.empty((len(x1), len(other)))
        for rows, one in _blocks(x1):
            for columns, two in _blocks(other):
                if x2 is None and columns.start > rows.start:
                    break
                block = np.asarray(of_block(one, two))[: len(rows), : len(columns)]
                result[rows.start : rows.stop, columns.start : columns.stop] = block
                if x2 is None:
                    result[columns.start : columns.stop, rows.start : rows.stop] = block.T
        return result

    def diagonal(self, x: np.ndarray) -> np.ndarray:
        """k(x, x) [n]."""
        if self.params is None:
            return diagonal_of(self._of_block(), x)
        params = self._params()
        diagonal = lambda block: np.asarray(empirical_diagonal(self.model, params, jnp.asarray(block)))
        return np.concatenate([diagonal(block)[: len(rows)] for rows, block in _blocks(x)])

    def _params(self) -> Layers:
        return jax.tree.map(jnp.asarray, self.params)

    def _of_block(self) -> Callable:
        if self.params is None:
            kernels = infinite_width(self.model)
            return lambda one, two: kernels(jnp.asarray(one), jnp.asarray(two)).ntk
        params = self._params()
        return lambda one, two: empirical(self.model, params, jnp.asarray(one), jnp.asarray(two))


def diagonal_of(kernel: Callable, x: np.ndarray) -> np.ndarray:
    """k(x, x) [n] of any kernel, from blocks on the diagonal."""
    parts = [
        np.diagonal(np.asarray(kernel(block, block)))[: len(rows)] for rows, block in _blocks(x, largest=_SMALLEST)
    ]
    return np.concatenate(parts)


def _blocks(x: np.ndarray, largest: int | None = None) -> Iterator[tuple[range, np.ndarray]]:
    """The rows in blocks of one size, a power of two, the last filled up with copies of its first row."""
    size = min(_LARGEST if largest is None else largest, max(_SMALLEST, 1 << max(len(x) - 1, 0).bit_length()))
    for start in range(0, len(x), size):
        rows = range(start, min(start + size, len(x)))
        block = x[rows.start : rows.stop]
        yield rows, np.concatenate([block, np.repeat(block[:1], size - len(block), axis=0)])
