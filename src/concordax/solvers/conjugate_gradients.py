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
    """What is carried, the residual s = b − A x, M⁻¹ s, the search direction v, sᵀM⁻¹s, and the iterations done."""

    carried: Any
    residual: Array
    conditioned: Array
    search: Array
    slope: Float[Array, ""]
    iterations: Int[Array, ""]


def start(carried: Any, residual: Array, precondition: Callable[[Array], Array]) -> CGState:
    """The state at any x, given its residual and what is carried there."""
    conditioned = precondition(residual)
    slope = jnp.vdot(residual, conditioned)
    return CGState(carried, residual, conditioned, conditioned, slope, jnp.zeros((), int))


def conjugate_gradients(
    product: Callable[[Array], tuple[Array, Any]],
    precondition: Callable[[Array], Array],
    first: CGState,
    done: Callable[[CGState], Bool[Array, ""]],
    max_iterations: int,
) -> CGState:
    """Iterates from `first` until `done` or for `max_iterations`.

    Args:
        product: v to A v and its companions, of the structure of `first.carried`.
        precondition: v to M⁻¹ v.
        first: where to start.
        done: whether a state is good enough; asked before each iteration.
        max_iterations: the budget.

    Returns:
        The last state; each iteration has added to `carried` the companions of its move.
    """

    def go_on(state: CGState):
        return ~done(state) & may_go_on(state, max_iterations)

    return jax.lax.while_loop(go_on, lambda state: iterate(product, precondition, state)[0], first)


def may_go_on(state: CGState, max_iterations: int) -> Bool[Array, ""]:
    """Whether another iteration is within the budget and leads anywhere."""
    # A slope that is not positive is one of rounding, or of a preconditioner that is not definite.
    return (state.iterations < max_iterations) & (state.slope > 0)


def iterate(product: Callable, precondition: Callable, state: CGState) -> tuple[CGState, Float[Array, ""]]:
    """One iteration, and the size of its step; the quotient of the slopes is the other coefficient."""
    image, companions = product(state.search)
    size = state.slope / jnp.vdot(state.search, image)
    residual = state.residual - size * image
    conditioned = precondition(residual)
    slope = jnp.vdot(residual, conditioned)
    after = CGState(
        carried=jax.tree.map(lambda sum, move: sum + size * move, state.carried, companions),
        residual=residual,
        conditioned=conditioned,
        search=conditioned + slope / state.slope * state.search,
        slope=slope,
        iterations=state.iterations + 1,
    )
    return after, size
