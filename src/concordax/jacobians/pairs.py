"""The exact Gram of a dense network for any diagonal D, by pairs of examples.

    K[ia, jb] = Σ_layers Σ_o G[i,a,o] G[j,b,o] Σ_d A[i,d] A[j,d] D[o,d]

The inner sum knows of no outputs: one matrix product of all pairs (A_i ∘ A_j) with Dᵀ, n²/2 × d_in × d_out, where a
product of materialised rows is k² times as much. On a mini-batch of 16 rows, 784 → 512 → 10, it takes 5 ms for 430.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .factors import LayerFactors, sum_of

# Operations of a matrix product in the time of one number from memory.
PASS = 30.0
# Share of a full product that one triangle takes, times the two operations of a multiplication and an addition.
TRIANGLE = 1.25
# Numbers that a chunk of pairs may hold: 8 MB in float64.
_ELEMENTS = 2**20
# The pairs are constants of the program: half a megabyte at as many rows.
_MOST_ROWS = 256


def pair_operations(rows: int, outputs: int, layers: Sequence[tuple[int, int]]) -> float:
    """Operations of `pair_gram`, in those of a matrix product; `layers` are (d_out, d_in)."""
    pairs = rows * (rows + 1) / 2
    products = sum(2.0 * d_out * (d_in + outputs**2) for d_out, d_in in layers)
    return pairs * (products + PASS * sum(_numbers(outputs, layers)))


def pair_numbers(rows: int, outputs: int, layers: Sequence[tuple[int, int]]) -> int:
    """Numbers that `pair_gram` works on at its peak: a chunk, and its operands copied for each pair."""
    widest = max(_numbers(outputs, layers))
    return 2 * widest * min(rows * (rows + 1) // 2, max(1, _ELEMENTS // widest))


def pairs_pay(rows: int, outputs: int, layers: Sequence[tuple[int, int]]) -> bool:
    """Whether pairs are cheaper than five eighths of a product of the materialised rows, and few."""
    parameters = sum(math.prod(layer) for layer in layers)
    dense = TRIANGLE * (rows * outputs) ** 2 * parameters
    return rows <= _MOST_ROWS and pair_operations(rows, outputs, layers) < dense


def pair_gram(layers: Sequence[LayerFactors], inverses: Sequence[Array]) -> Float[Array, "nk nk"]:
    """The upper triangle of Σ_layers J D Jᵀ; what stands below is not to be read.

    Args:
        layers: the factors of each layer.
        inverses: D of each layer, [d_out, d_in].

    Returns:
        [n·k, n·k], example first.
    """
    n, k, _ = layers[0].backward.shape
    first, second = np.triu_indices(n)
    length = max(1, min(len(first), _ELEMENTS // max(_numbers(k, [layer.matrix_shape for layer in layers]))))
    missing = -len(first) % length
    # Pairs at the end are (0, 0) once more, and are not looked at.
    chunks = tuple(jnp.asarray(np.pad(index, (0, missing)).reshape(-1, length)) for index in (first, second))

    def blocks(pair) -> Float[Array, "m k k"]:
        i, j = pair
        return sum_of([_layer_blocks(layer, inverse, i, j) for layer, inverse in zip(layers, inverses, strict=True)])

    values = jax.lax.map(blocks, chunks).reshape(-1, k, k)
    place = np.zeros((n, n), int)
    place[first, second] = np.arange(len(first))
    return jnp.swapaxes(values[place], 1, 2).reshape(n * k, n * k)


def _numbers(outputs: int, layers: Sequence[tuple[int, int]]) -> list[int]:
    """Numbers of one pair in each layer."""
    return [d_in + (outputs + 2) * d_out for d_out, d_in in layers]


def _layer_blocks(layer: LayerFactors, inverse, i: Array, j: Array) -> Float[Array, "m k k"]:
    inner = (layer.forward[i] * layer.forward[j]) @ inverse.T
    return jnp.einsum("mao,mbo->mab", layer.backward[i] * inner[:, None, :], layer.backward[j])
