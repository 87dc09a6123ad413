"""Preconditioned conjugate gradients on the dual side (Hestenes & Stiefel 1952), the direction carried along.

A u = b with A = K + tI, K = W D Wᵀ, D = H⁻¹. Each iteration takes one product with Wᵀ and one with W, and from the same
two products come δ = −D (Wᵀu + (τ/t) g) and Wδ: nothing is left to do at the end.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..system import System


class CGState(NamedTuple):
    """The direction δ, Wδ, the residual s = b − A u, M⁻¹ s, the search direction v, sᵀM⁻¹s, and the iterations done."""

    direction: Float[Array, " p"]
    image: Float[Array, "n k"]
    residual: Float[Array, "n k"]
    conditioned: Float[Array, "n k"]
    search: Float[Array, "n k"]
    slope: Float[Array, ""]
    iterations: Int[Array, ""]


def start(system: System, strength, shift, image_of_gradient, precondition: Callable[[Array], Array]) -> CGState:
    """The state at u = M⁻¹ b; its residual is s = r − t u + Wδ, since W δ = −K u − (τ/t) W D g."""
    share = strength / shift
    dual = precondition(system.residual - share * image_of_gradient)
    direction = -system.metric.solve(system.jacobian.rmv(dual) + share * system.gradient)
    image = system.jacobian.mv(direction)
    residual = system.residual - shift * dual + image
    conditioned = precondition(residual)
    slope = jnp.vdot(residual, conditioned)
    return CGState(direction, image, residual, conditioned, conditioned, slope, jnp.zeros((), int))


def conjugate_gradients(
    system: System,
    shift: Float[Array, ""],
    precondition: Callable[[Array], Array],
    first: CGState,
    done: Callable[[CGState], Bool[Array, ""]],
    max_iterations: int,
) -> CGState:
    """Iterates from `first` until `done` or for `max_iterations`.

    Args:
        system: the linearised problem.
        shift: t.
        precondition: v to M⁻¹ v.
        first: where to start.
        done: whether a state is good enough; asked before each iteration.
        max_iterations: the budget.

    Returns:
        The last state.
    """

    def go_on(state: CGState):
        # A slope that is not positive is one of rounding, or of a preconditioner that is not definite.
        return ~done(state) & (state.iterations < max_iterations) & (state.slope > 0)

    def iterate(state: CGState) -> CGState:
        parameters = system.metric.solve(system.jacobian.rmv(state.search))
        image = system.jacobian.mv(parameters)
        product = image + shift * state.search
        size = state.slope / jnp.vdot(state.search, product)
        residual = state.residual - size * product
        conditioned = precondition(residual)
        slope = jnp.vdot(residual, conditioned)
        return CGState(
            direction=state.direction - size * parameters,
            image=state.image - size * image,
            residual=residual,
            conditioned=conditioned,
            search=conditioned + slope / state.slope * state.search,
            slope=slope,
            iterations=state.iterations + 1,
        )

    return jax.lax.while_loop(go_on, iterate, first)
