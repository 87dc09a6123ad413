"""After a run: whether the network was still the linear model that its kernel at the start describes."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..jacobians import AbstractJacobian, linearize
from ..linalg import factorize, symmetric
from ..metrics import AbstractMetric, ScalarMetric


class Linearization(NamedTuple):
    """How well f(θ₀) + J₀(θ − θ₀) describes f(θ) on some inputs, and whether the description broke down.

    Attributes:
        error: ‖e‖ / ‖f(θ) − f(θ₀)‖, e = f(θ) − f(θ₀) − J₀(θ − θ₀); 0 where nothing moved.
        left: what a linear model made to fit the training rows again would leave of it; None without training rows.
        kernel_drift: ‖K − K₀‖_F / ‖K₀‖_F, K = J H⁻¹ Jᵀ.
        tolerance: what was allowed.
        broke: whether `left`, or `error` where that is None, is above it.
    """

    error: float
    left: float | None
    kernel_drift: float
    tolerance: float
    broke: bool


def linearization(
    model: Callable,
    start: PyTree,
    end: PyTree,
    inputs,
    *,
    trained_on=None,
    strength: float = 0.0,
    metric: AbstractMetric | None = None,
    tolerance: float = 0.1,
) -> Linearization:
    """Compares the change of a network's outputs with what its Jacobian at the start says of it.

    The linear model at the parameters θ may be off by e, and yet the linear model trained to the end near the network:
    it would have met the same targets, and so taken back e(X) on the training rows X, and
    k(x, X)(k(X, X) + nτ)⁻¹ e(X) elsewhere. `left` is e(x) less that, on rows x that should not be those of X. No
    targets and no solution of the linear problem are needed.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        start: parameters before the run.
        end: parameters after it.
        inputs: rows to compare on; with `trained_on`, others than those.
        trained_on: the training rows, n of them; None compares by `error` alone, which is more easily above the
            tolerance.
        strength: τ of the run.
        metric: H of the regularizer at the start; the identity by default, that of `L2`.
        tolerance: the relative difference above which the linear model counts as broken.

    Returns:
        A `Linearization`.

    Raises:
        ValueError: for a tolerance or strength out of range, or parameters that do not fit together.

    Source: docs/certificates.md.

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
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"`linearization(strength={strength!r})`: must be a finite number from 0 up.")
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(params)] for params in (start, end)]
    if jax.tree.structure(start) != jax.tree.structure(end) or shapes[0] != shapes[1]:
        raise ValueError(f"`linearization(start, end)`: must be parameters of one model; their shapes are {shapes}.")
    metric = ScalarMetric(jnp.ones(())) if metric is None else metric
    found = _compare(model, start, end, inputs, trained_on, jnp.asarray(strength), metric)
    error, left, drift = (None if part is None else float(part) for part in found)
    judged = error if left is None else left
    # What is not finite is as far from linear as can be.
    return Linearization(error, left, drift, float(tolerance), not judged <= tolerance)  # pyright: ignore


class _Line(NamedTuple):
    """The outputs' change on some rows, what the linear model misses of it, and the Jacobians before and after."""

    change: Float[Array, "n c"]
    missed: Float[Array, "n c"]
    before: AbstractJacobian
    after: AbstractJacobian


def _line(model: Callable, start: PyTree, end: PyTree, inputs) -> _Line:
    (first, unravel), (last, _) = ravel_pytree(start), ravel_pytree(end)
    inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(first.dtype), inputs)
    outputs, jacobian = linearize(model, unravel, first, inputs)
    now, turned = linearize(model, unravel, last, inputs)
    return _Line(now - outputs, now - outputs - jacobian.mv(last - first), jacobian, turned)


@eqx.filter_jit
def _compare(model, start, end, inputs, trained_on, strength, metric):
    with jax.default_matmul_precision("highest"):
        line = _line(model, start, end, inputs)
        kernel, now = (symmetric(each.gram(metric)) for each in (line.before, line.after))
        error, drift = _ratio(line.missed, line.change), _ratio(now - kernel, kernel)
        if trained_on is None:
            return error, None, drift
        fitted = _line(model, start, end, trained_on)
        factor = factorize(fitted.before.gram(metric), len(fitted.missed) * strength)
        taken_back = line.before.cross_gram(fitted.before, metric) @ factor.solve(fitted.missed.reshape(-1))
        return error, _ratio(line.missed - taken_back.reshape(line.missed.shape), line.change), drift


def _ratio(part: Array, whole: Array) -> Float[Array, ""]:
    size = jnp.linalg.norm(whole)
    return jnp.where(size == 0, jnp.where(jnp.any(part != 0), jnp.inf, 0.0), jnp.linalg.norm(part) / size)
