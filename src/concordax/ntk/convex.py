"""The path of the linearised model under any regularizer: its convex objective, step by step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..evaluate import kkt_residual
from ..losses import SquaredError
from ..regularizers import AbstractRegularizer
from ..solvers import Auto
from ..steps import FixedStep
from ..system import Problem, make_batch
from ..training import train
from .paths import AbstractPath, GaussNewtonPath, GradientDescentPath
from .tangent import linearized

_Parts = tuple[Callable, SquaredError, AbstractRegularizer]
# Steps to a minimum of a convex problem at most, and how far from one it may end, in units of the first gradient.
_MAX_STEPS, _GRADIENT_LEFT = 1000, 1e-8


def follow(
    model, regularizer, params, inputs, rows, targets, weights, *, path: AbstractPath, times: np.ndarray, strength
) -> np.ndarray:
    """Outputs [s, n + m, c] of the linearised model on all rows at the times.

    Gauss-Newton by `train` with a fixed step, gradient descent by its own loop; the limit of either is the minimum.

    Raises:
        TypeError: for a rule that has no steps.
        ValueError: where a step fails or the minimum is not found.
    """
    linear = linearized(model, params)
    parts: _Parts = (linear, SquaredError(), regularizer)
    data: dict[str, Any] = {
        "data": (inputs, targets),
        "weights": weights,
        "strength": float(strength),
        "solver": Auto().direct,
    }
    if isinstance(path, GaussNewtonPath):
        rule = FixedStep(path.step_size)
        advance = partial(_gauss_newton, parts, step=rule, damping=path.damping, **data)
    elif isinstance(path, GradientDescentPath):
        problem = Problem(*parts, ravel_pytree(params)[1])
        batch = make_batch(parts[1], inputs, targets, weights, targets.shape[1], jnp.float64)
        rate, tau = jnp.asarray(path.rate), jnp.asarray(float(strength))
        advance = lambda at, count: _descended(problem, at, batch, tau, rate, jnp.asarray(count))
    else:
        raise TypeError(
            f"`predict_training(path={path!r}, regularizer={regularizer!r})`: gradient flow has a closed form with "
            "L2() or no regularizer alone; use `GradientDescentPath(rate)` with a small rate."
        )
    found, at, done = {}, params, 0
    for time in np.unique(times):
        if np.isinf(time):
            at = _minimum(parts, at, **data)
        elif time > done:
            at, done = advance(at, int(time) - done), int(time)
        found[time] = np.asarray(_outputs(linear, at, rows), np.float64)
        if not np.isfinite(found[time]).all():
            raise ValueError(f"`predict_training(path={path!r})` diverges within {time:.0f} steps: shorten its step.")
    return np.stack([found[time] for time in times])


def _gauss_newton(parts: _Parts, at, count: int, *, data: tuple[Any, Any], **options):
    result = train(*parts, at, data, max_steps=count, tolerance=0.0, **options)
    if not result.status.succeeded:
        raise ValueError(f"`predict_training(regularizer={parts[2]!r})`: {result.status.message}")
    return result.params


@eqx.filter_jit
def _descended(problem: Problem, at, batch, strength, rate, count):
    gradient = jax.grad(lambda flat: problem.objective(flat, batch, strength)[0])
    flat, unravel = ravel_pytree(at)
    return unravel(jax.lax.fori_loop(0, count, lambda _, flat: flat - rate * gradient(flat), flat))


def _minimum(parts: _Parts, at, *, data: tuple[Any, Any], strength, weights, solver):
    """The minimum by trust-region steps, each exact on a quadratic model of a convex function."""
    options = {"strength": strength, "weights": weights}
    first = float(kkt_residual(*parts, at, *data, **options))
    result = train(*parts, at, data, solver=solver, max_steps=_MAX_STEPS, tolerance=1e-15, **options)
    left = float(kkt_residual(*parts, result.params, *data, **options))
    if not left <= _GRADIENT_LEFT * first:
        raise ValueError(
            f"`predict_training(steps=[... inf])`: no minimum within {_MAX_STEPS} steps; the gradient fell from "
            f"{first:.3g} to {left:.3g}. A larger smoothing of the regularizer or a larger strength is easier."
        )
    return result.params


@eqx.filter_jit
def _outputs(linear, at, rows):
    return linear(at, rows)
