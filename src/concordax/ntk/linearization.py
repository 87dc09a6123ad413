"""After a run: whether the network was still the linear model that its kernel at the start describes."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..jacobians import linearize
from ..metrics import ScalarMetric


class Linearization(NamedTuple):
    """How well f(θ₀) + J(θ₀)(θ − θ₀) describes f(θ) on some inputs, and whether the description broke down.

    Attributes:
        error: ‖f(θ) − f(θ₀) − J₀(θ − θ₀)‖ / ‖f(θ) − f(θ₀)‖; 0 where nothing moved.
        kernel_drift: ‖K − K₀‖_F / ‖K₀‖_F, K = J Jᵀ.
        tolerance: the error that was allowed.
        broke: whether `error` is above it.
    """

    error: float
    kernel_drift: float
    tolerance: float
    broke: bool


def linearization(model: Callable, start: PyTree, end: PyTree, inputs, *, tolerance: float = 0.1) -> Linearization:
    """Compares the change of a network's outputs with what its Jacobian at the start says of it.

    Nothing but the two sets of parameters and some rows is needed: no targets, no solution of the linear problem. Rows
    that the run has not seen tell more than those it was made to meet.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        start: parameters before the run.
        end: parameters after it.
        inputs: n rows.
        tolerance: the relative error of the outputs' change above which the linear model counts as broken.

    Returns:
        A `Linearization`.

    Raises:
        ValueError: for a tolerance that is not positive, or parameters that do not fit together.

    Example:
        >>> import concordax as cx, jax
        >>> model, x = cx.MLP(inputs=1, widths=(4,)), jax.numpy.ones((2, 1))
        >>> start = model.init(jax.random.key(0))
        >>> linearization(model, start, start, x).broke
        False
        >>> far = jax.tree.map(lambda leaf: leaf + 10.0, start)
        >>> linearization(model, start, far, x).broke
        True
    """
    if not tolerance > 0:
        raise ValueError(f"`linearization(tolerance={tolerance!r})`: must be a positive number; 0.1 is ten percent.")
    if jax.tree.structure(start) != jax.tree.structure(end):
        raise ValueError("`linearization(start, end)`: they must be parameters of one model; their structures differ.")
    error, drift = map(float, _compare(model, start, end, jax.tree.map(jnp.asarray, inputs)))
    # Parameters that are not finite are as far from linear as can be.
    return Linearization(error, drift, float(tolerance), not error <= tolerance)


@eqx.filter_jit
def _compare(model: Callable, start: PyTree, end: PyTree, inputs) -> tuple[Float[Array, ""], Float[Array, ""]]:
    with jax.default_matmul_precision("highest"):
        first, unravel = ravel_pytree(start)
        last = ravel_pytree(end)[0]
        identity = ScalarMetric(jnp.ones((), first.dtype))
        before, jacobian = linearize(model, unravel, first, inputs)
        after, turned = linearize(model, unravel, last, inputs)
        change = after - before
        error = _ratio(change - jacobian.mv(last - first), change)
        kernel, now = (_whole(each.gram(identity)) for each in (jacobian, turned))
        return error, _ratio(now - kernel, kernel)


def _whole(upper: Float[Array, "m m"]) -> Float[Array, "m m"]:
    return jnp.triu(upper) + jnp.triu(upper, 1).T


def _ratio(part: Array, whole: Array) -> Float[Array, ""]:
    size = jnp.linalg.norm(whole)
    return jnp.where(size == 0, jnp.where(jnp.any(part != 0), jnp.inf, 0.0), jnp.linalg.norm(part) / size)
