"""How a model bends along a direction."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PyTree

from .base import cut_in_chunks

# Rows of a chunk. What two nested passes hold of all rows at once was the largest part of a step's memory: at N = 1000
# it went beyond the size up to which malloc keeps what is freed, and new pages took a third of the step.
_ROWS = 256


def second_derivative(
    outputs_at: Callable[[Array, PyTree], Array],
    flat: Float[Array, " p"],
    inputs: PyTree,
    direction: Float[Array, " p"],
) -> tuple[Float[Array, "n c"], Float[Array, "n c"]]:
    """f(θ; x) and d²f(θ + sδ; x)/ds² at s = 0 a row: a forward pass inside a forward pass, over chunks of rows.

    About two and a half times the price of one pass.

    Args:
        outputs_at: f, of θ and some rows.
        flat: θ.
        inputs: x, a pytree whose leaves have n rows.
        direction: δ.

    Example:
        >>> import jax.numpy as jnp
        >>> value, second = second_derivative(lambda at, x: x * at**2, jnp.ones(1), jnp.ones((1, 1)), 3 * jnp.ones(1))
        >>> float(value[0, 0]), float(second[0, 0])
        (1.0, 18.0)
    """

    def of_rows(rows):
        def velocity(at: Array) -> tuple[Array, Array]:
            outputs, slope = jax.jvp(lambda at: outputs_at(at, rows), (at,), (direction,))
            return slope, outputs

        _, second, outputs = jax.jvp(velocity, (flat,), (direction,), has_aux=True)
        return outputs, second

    count = jax.tree.leaves(inputs)[0].shape[0]
    chunks = -(-count // _ROWS)
    if chunks < 2:
        return of_rows(inputs)
    rows = -(-count // chunks)

    # Filled up with the last row: of zeros a model may not be defined.
    parts = jax.lax.map(of_rows, cut_in_chunks(inputs, count, chunks, rows, mode="edge"))
    outputs, second = (part.reshape(-1, part.shape[-1])[:count] for part in parts)
    return outputs, second
