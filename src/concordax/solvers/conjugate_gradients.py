"""Preconditioned conjugate gradients (Hestenes & Stiefel 1952) on A x = b, with what a step wants carried along.

Each product A v is made of one with W and one with Wᵀ; what appears between the two is the image of v on the other
side. Summed like the iterates themselves, these companions are δ and W δ: nothing is left to do at the end, and a
solver need not keep x where it wants δ alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class CGState(NamedTuple):
    """Where the iteration stands.

    Attributes:
        carried: sums of the companions.
        residual: s = b − A x.
        conditioned: M⁻¹ s.
        search: the direction v.
        slope: sᵀM⁻¹s.
        size: of the last move along v; before the first one, 1.
        ratio: the slope by that before it; at the start, by 1.
        iterations: moves made; −1 before M⁻¹ s is there.
        done: whether the iterate is good enough.
        measured: what the solver found out about it.
    """

    carried: Any
    residual: Array
    conditioned: Array
    search: Array
    slope: Float[Array, ""]
    size: Float[Array, ""]
    ratio: Float[Array, ""]
    iterations: Int[Array, ""]
    done: Bool[Array, ""]
    measured: Any


def conjugate_gradients(
    product: Callable[[Array], tuple[Array, Any]],
    precondition: Callable[[Array], Array],
    carried: Any,
    residual: Array,
    measure: Callable[[CGState], tuple[Bool[Array, ""], Any]],
    max_iterations: int,
    *,
    measured: Any = (),
) -> CGState:
    """Iterates until an iterate is good enough, or for `max_iterations`.

    The program holds product, preconditioner and measure once each, for to compile them takes longer than to run them:
    M⁻¹ s of the start is a first round of the loop, without a move.

    Args:
        product: v to A v and its companions, of the structure of `carried`.
        precondition: v to M⁻¹ v.
        carried: what is carried at the start.
        residual: b − A x there.
        measure: a state to whether it is good enough, and what is to be kept for the next; asked once an iterate.
        max_iterations: the budget.
        measured: what is kept before the first.

    Returns:
        The last state; each iteration has added to `carried` the companions of its move.
    """
    zero, one = jnp.zeros((), residual.dtype), jnp.ones((), residual.dtype)
    nothing = jnp.zeros_like(residual)
    none = -jnp.ones((), int)
    before = CGState(carried, residual, nothing, nothing, one, one, zero, none, jnp.zeros((), bool), measured)

    def go_on(state: CGState):
        # A slope that is not positive is one of rounding, or of a preconditioner that is not definite.
        return ~state.done & (state.iterations < max_iterations) & (state.slope > 0)

    def advance(state: CGState) -> CGState:
        moved = _moved(product, state)
        conditioned = precondition(moved.residual)
        slope = jnp.vdot(moved.residual, conditioned)
        ratio = slope / state.slope
        after = moved._replace(
            conditioned=conditioned, search=conditioned + ratio * state.search, slope=slope, ratio=ratio
        )
        done, measured = measure(after)
        return after._replace(done=done, measured=measured)

    return jax.lax.while_loop(go_on, advance, before)


def _moved(product: Callable, state: CGState) -> CGState:
    """The state after a move along the search direction, or, where there is none yet, as it is."""

    def move(moving):
        _, state = moving
        image, companions = product(state.search)
        size = state.slope / jnp.vdot(state.search, image)
        carried = jax.tree.map(lambda sum, move: sum + size * move, state.carried, companions)
        return jnp.zeros((), bool), state._replace(
            carried=carried, residual=state.residual - size * image, size=size
        )

    # A loop of at most one round: a cond would copy what is carried, 400,000 numbers for the pictures of a mini-batch.
    _, moved = jax.lax.while_loop(lambda moving: moving[0], move, (state.iterations >= 0, state))
    return moved._replace(iterations=state.iterations + 1)
