"""Which Jacobian a model gets: its layers' factors where it hands them out, else the array; or products alone."""

from collections.abc import Callable

from jaxtyping import Array, Float

from ..models import LayeredModel
from .base import AbstractJacobian
from .dense import dense_jacobian
from .implicit import implicit_jacobian
from .layered import layered_jacobian


def linearize(
    model: Callable, unravel: Callable, flat: Float[Array, " p"], inputs, *, matrix_free: bool = False
) -> tuple[Float[Array, "n c"], AbstractJacobian]:
    """Outputs [n, c] and Jacobian [n, c, p] at the flat parameters.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        unravel: flat parameters [p] to the pytree the model takes.
        flat: parameters [p].
        inputs: a pytree whose leaves have n rows.
        matrix_free: whether products with J and Jᵀ are all that is wanted of it.

    Returns:
        The outputs and the Jacobian.
    """
    if matrix_free:
        return implicit_jacobian(model, unravel, flat, inputs)
    if isinstance(model, LayeredModel):
        return layered_jacobian(model, unravel(flat), inputs)
    return dense_jacobian(model, unravel, flat, inputs)
