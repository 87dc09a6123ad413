"""The exact Gram of a dense network for any diagonal D, by pairs of examples.

    K[ia, jb] = Σ_layers Σ_o G[i,a,o] G[j,b,o] Σ_d A[i,d] A[j,d] D[o,d]

The inner sum knows of no outputs: one matrix product of all pairs (A_i ∘ A_j) with Dᵀ, n²/2 × d_in × d_out, where a
product of materialised rows is k² times as much. On a mini-batch of 16 rows, 784 → 512 → 10, it takes 5 ms for 430.

Each example i is paired with itself and the n/2 after it, in a circle: every pair comes up once (at a distance of n/2
twice), and all examples have as many partners, so that the second sum is one product an example,
[partners·k, d_out] × [d_out, k]. As products of pairs, k × d_out × k, it takes twice as long.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..linalg import sum_of
from .factors import LayerFactors

# Operations of a matrix product in the time of one number from memory.
PASS = 30.0
# Share of a full product that one triangle takes, times the two operations of a multiplication and an addition.
TRIANGLE = 1.25
# Numbers that the products of a chunk of pairs may hold: 2 MB in float64, what a core's cache does.
_ELEMENTS = 2**18
# The pairs are constants of the program: half a megabyte at as many rows.
_MOST_ROWS = 256


def pair_operations(rows: int, outputs: int, layers: Sequence[tuple[int, int]]) -> float:
    """Operations of `pair_gram`, in those of a matrix product; `layers` are (d_out, d_in)."""
    # Products with k columns run at half the speed.
    products = sum(2.0 * d_out * (d_in + 2 * outputs**2) for d_out, d_in in layers)
    numbers = sum(d_in + (outputs + 1) * d_out for d_out, d_in in layers)
    return rows * _partners(rows) * (products + PASS * numbers)


def pair_numbers(rows: int, outputs: int, layers: Sequence[tuple[int, int]]) -> int:
    """Numbers that `pair_gram` works on at its peak: a chunk, an example's products, and the blocks beside K."""
    partners = _partners(rows)
    chunk = _examples(rows, layers) * partners * max(sum(layer) for layer in layers)
    products = 2 * partners * outputs * max(d_out for d_out, _ in layers)
    return chunk + products + rows * partners * outputs**2


def pairs_pay(rows: int, outputs: int, layers: Sequence[tuple[int, int]]) -> bool:
    """Whether pairs are cheaper than five eighths of a product of the materialised rows, and few."""
    parameters = sum(math.prod(layer) for layer in layers)
    dense = TRIANGLE * (rows * outputs) ** 2 * parameters
    return rows <= _MOST_ROWS and pair_operations(rows, outputs, layers) < dense


def pair_gram(layers: Sequence[LayerFactors], inverses: Sequence[Array]) -> Float[Array, "nk nk"]:
    """Σ_layers J D Jᵀ.

    Args:
        layers: the factors of each layer.
        inverses: D of each layer, [d_out, d_in].

    Returns:
        [n·k, n·k], example first.
    """
    n, k, _ = layers[0].backward.shape
    partners = jnp.asarray((np.arange(n)[:, None] + np.arange(_partners(n))) % n)
    length = _examples(n, [layer.matrix_shape for layer in layers])
    # Examples at the end are 0 once more, and are not looked at.
    chunks = jnp.asarray(np.pad(np.arange(n), (0, -n % length)).reshape(-1, length))

    def blocks(i) -> Float[Array, "c m k k"]:
        pairs = zip(layers, inverses, strict=True)
        return sum_of([_layer_blocks(layer, inverse, i, partners[i]) for layer, inverse in pairs])

    return _assembled(jax.lax.map(blocks, chunks).reshape(-1, partners.shape[1], k, k), n)


def _partners(rows: int) -> int:
    """Examples that each is paired with, itself among them."""
    return rows // 2 + 1


def _examples(rows: int, layers: Sequence[tuple[int, int]]) -> int:
    """Examples of a chunk."""
    return max(1, min(rows, _ELEMENTS // (_partners(rows) * max(sum(layer) for layer in layers))))


def _layer_blocks(
    layer: LayerFactors, inverse: Float[Array, "o d"], i: Int[Array, " c"], j: Int[Array, "c m"]
) -> Float[Array, "c m k k"]:
    """For each example of i and each of its partners in j the k × k entries [b of j, a of i] of the layer's Gram."""
    (c, m), (_, k, d_out) = j.shape, layer.backward.shape
    products = layer.forward[i][:, None] * layer.forward[j]
    inner = (products.reshape(c * m, -1) @ inverse.T).reshape(c, m, 1, d_out)

    def against_partners(example):
        weights, own, partners = example
        return (weights * layer.backward[partners]).reshape(m * k, d_out) @ own.T

    return jax.lax.map(against_partners, (inner, layer.backward[i], j)).reshape(c, m, k, k)


def _assembled(blocks: Float[Array, "c m k k"], n: int) -> Float[Array, "nk nk"]:
    """K from the blocks of each example with the m that follow it in the circle."""
    _, m, k, _ = blocks.shape
    first, second = np.indices((n, n))
    distance = (second - first) % n
    ahead = distance < m
    # Where j is not among those that follow i, i is among those that follow j.
    found = blocks[np.where(ahead, first, second), np.where(ahead, distance, -distance % n)]
    entries = jnp.where(ahead[:, :, None, None], jnp.swapaxes(found, 2, 3), found)
    return jnp.swapaxes(entries, 1, 2).reshape(n * k, n * k)
