"""Which Jacobian a model gets: its layers' factors where it hands them out, else the dense array."""

from collections.abc import Callable

from jaxtyping import Array, Float

from ..models import LayeredModel
from .base import AbstractJacobian
from .dense import dense_jacobian
from .layered import layered_jacobian


def linearize(
    model: Callable, unravel: Callable, flat: Float[Array, " p"], inputs
) -> tuple[Float[Array, "n c"], AbstractJacobian]:
    """Outputs [n, c] and Jacobian [n, c, p] at the flat parameters.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        unravel: flat parameters [p] to the pytree the model takes.
        flat: parameters [p].
        inputs: a pytree whose leaves have n rows.

    Returns:
        The outputs and the Jacobian.
    """
    if isinstance(model, LayeredModel):
        return layered_jacobian(model, unravel(flat), inputs)
    return dense_jacobian(model, unravel, flat, inputs)
