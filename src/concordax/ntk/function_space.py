"""The path of training in function space: what a network's outputs are after any number of steps, without taking them.

Exact for a model linear in its parameters, the limit of wide networks in NTK scaling. In closed form for squared error,
with no penalty's gradient or that of L2, by `paths`; under another penalty the linearised model is trained.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from .._checks import check_data
from ..losses import SquaredError
from ..metrics import AbstractMetric
from ..regularizers import L2, AbstractRegularizer
from .convex import follow
from .finite_width import empirical
from .paths import AbstractPath

_NAME = "predict_training"


class TrainingPath(NamedTuple):
    """What `predict_training` returns, in float64.

    Attributes:
        steps: [s], as asked for.
        train_outputs: [s, n, c].
        test_outputs: [s, m, c], or None without test inputs.
        loss: [s], the mean squared error ½‖o − y‖² with its weights, as in `history["loss"]` of `train`.
    """

    steps: Float[np.ndarray, " s"]
    train_outputs: Float[np.ndarray, "s n c"]
    test_outputs: Float[np.ndarray, "s m c"] | None
    loss: Float[np.ndarray, " s"]


def predict_training(
    model: Callable,
    params: PyTree,
    data: tuple[Any, Any],
    *,
    path: Any,
    steps: Iterable[float | int],
    strength: float = 0.0,
    regularizer: AbstractRegularizer | None = None,
    metric: Any = None,
    weights=None,
    test_inputs=None,
) -> TrainingPath:
    """The outputs of the linearised model along a run of training under squared error.

    Without a regularizer, with K = WH⁻¹Wᵀ, W = √(w/Σw) J a row and r the residual so scaled,

        r_k = (I − αK(K + (τ+λ)I)⁻¹)^k r_0,   (I − ηK)^k r_0,   exp(−KT) r_0

    for Gauss-Newton, gradient descent and gradient flow, other rows through their kernel with these. With L2 its
    gradient τθ is part of the path, in closed form too. Under another regularizer, whose Hessian moves, the linearised
    model is trained step by step, and the limit is a minimum of its convex objective. One eigendecomposition of K
    [nc, nc] serves all steps. Computed in float64, whatever the type of the parameters.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        params: where training starts and the model is linearised.
        data: (inputs, targets), n rows each.
        path: the rule: `GaussNewtonPath`, `GradientDescentPath` or `GradientFlow`.
        steps: numbers of steps, or times of the flow; `math.inf` is the limit.
        strength: τ ≥ 0, as in `train`; without a regularizer it is but a part of the shift of Gauss-Newton.
        regularizer: whose gradient takes part, and whose Hessian is the metric of Gauss-Newton; None for neither.
        metric: H where no regularizer is given; None for the identity.
        weights: [n] from 0 up, one by default.
        test_inputs: m more rows to predict.

    Returns:
        A `TrainingPath`.

    Raises:
        ValueError, TypeError: for data or options out of range, and for a path that diverges beyond all numbers.

    Source: Jacot, Gabriel & Hongler, NeurIPS 2018, and Lee et al., NeurIPS 2019, for the flow; arXiv 2404.14875 for the
    steps.

    Example:
        >>> import concordax as cx, jax, math
        >>> from concordax import ntk
        >>> x = jax.numpy.linspace(-1, 1, 20)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(500,))
        >>> parts = (model, model.init(jax.random.key(0)), (x, x**2))
        >>> run = ntk.predict_training(*parts, path=ntk.GradientFlow(), steps=[0, 10, math.inf], test_inputs=x[:5])
        >>> bool(run.loss[0] > 10 * run.loss[1] > 100 * run.loss[2]), run.test_outputs.shape
        (True, (3, 5, 1))
    """
    times = np.atleast_1d(np.asarray([float(step) for step in steps]))
    _check(data, path, times, strength, regularizer, metric, weights)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        params, inputs, test = (_wide(tree) for tree in (params, data[0], test_inputs))
        targets, weights = _rows(model, params, inputs, data[1], weights)
        rows = inputs if test is None else _stacked(inputs, test)
        if regularizer is None or isinstance(regularizer, L2):
            outputs = _in_closed_form(
                model, params, inputs, rows, targets, weights,
                path=path, times=times, strength=strength, penalized=regularizer is not None, metric=metric,
            )  # fmt: skip
        else:
            outputs = follow(
                model, regularizer, params, inputs, rows, targets, weights, path=path, times=times, strength=strength
            )
    train, rest = outputs[:, : len(targets)], outputs[:, len(targets) :]
    loss = 0.5 * np.sum((train - targets) ** 2, axis=2) @ weights / weights.sum()
    return TrainingPath(times, train, None if test_inputs is None else rest, loss)


def _in_closed_form(
    model, params, inputs, rows, targets, weights, *, path: AbstractPath, times, strength, penalized, metric
) -> np.ndarray:
    """Outputs [s, n + m, c]; see `paths` for the formulas."""
    start, image = (np.asarray(part, np.float64) for part in _outputs_and_image(model, params, rows))
    shape, scale = start.shape, np.repeat(np.sqrt(weights / weights.sum()), start.shape[1])
    kernel = np.asarray(empirical(model, params, rows, inputs, metric=metric), np.float64)
    # V H⁻¹ Wᵀ for all rows; of the training rows scaled, K.
    cross = kernel.reshape(start.size, len(scale)) * scale
    values, vectors = np.linalg.eigh(scale[:, None] * cross[: len(scale)])
    # Below rounding an eigenvalue is that of a repeated row, or of a row more than parameters: nothing moves there.
    kept = values > len(values) * np.finfo(float).eps * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    decay = strength if penalized else 0.0
    response = path.response(values, times, strength, decay)
    if not all(np.isfinite(part).all() for part in response):
        largest = path.largest_stable(float(values[-1]), strength, decay)
        raise ValueError(
            f"`{_NAME}(path={path!r})` diverges beyond all numbers within steps {times.tolist()}: its step must be "
            f"below {largest:.4g}, as the largest eigenvalue of the kernel is {values[-1]:.4g}."
        )
    half = cross @ vectors
    # Of the training rows Ku = λu, so that what few digits a small λ has cancel in λ P_k(λ).
    present = np.flatnonzero(scale)
    half[present] = vectors[present] * values / scale[present, None]
    residual = scale * (start[: len(targets)] - targets).ravel()
    moved = (response.moved * (vectors.T @ residual)) @ half.T
    if penalized:
        held = scale * image[: len(targets)].ravel()
        moved += decay * response.at_zero[:, None] * image.ravel() + (response.across * (vectors.T @ held)) @ half.T
    return (start.ravel() - moved).reshape(-1, *shape)


@eqx.filter_jit
def _outputs_and_image(model, params, rows):
    """f(θ₀) and Jθ₀."""
    return jax.jvp(lambda at: model(at, rows), (params,), (params,))


def _check(data: tuple[Any, Any], path, times, strength, regularizer, metric, weights) -> None:
    """Raises what `predict_training` says."""
    check_data(*data, weights)
    if not isinstance(path, AbstractPath):
        raise TypeError(f"`{_NAME}(path={path!r})`: must be `GaussNewtonPath(...)`, `GradientDescentPath(...)` or "
                        "`GradientFlow()`.")  # fmt: skip
    if not len(times):
        raise ValueError(f"`{_NAME}(steps=[])`: ask for one number of steps or more.")
    path.check_times(times)
    if not (np.isfinite(strength) and strength >= 0):
        raise ValueError(f"`{_NAME}(strength={strength!r})`: must be a finite number from 0 up.")
    if regularizer is not None and metric is not None:
        raise ValueError(f"`{_NAME}(metric=...)` with a regularizer, which brings its own: pass one of the two.")
    if regularizer is not None and strength == 0:
        raise ValueError(f"`{_NAME}(strength=0.0)` with a regularizer has no effect: pass a positive strength.")
    if metric is not None and not isinstance(metric, AbstractMetric):
        raise TypeError(f"`{_NAME}(metric={metric!r})`: must be a metric, as `regularizer.metric(flat)` gives; a "
                        "regularizer whose gradient is to take part is regularizer=...")  # fmt: skip
    path.check(_NAME, strength, penalized=regularizer is not None)


def _rows(model, params, inputs, targets, weights) -> tuple[np.ndarray, np.ndarray]:
    """Targets [n, c] and weights [n]."""
    rows = jax.tree.leaves(inputs)[0].shape[0]
    outputs = jax.eval_shape(model, params, inputs).shape
    targets = np.asarray(SquaredError().encode(_wide(targets), outputs[1]), np.float64)
    weights = np.ones(rows) if weights is None else np.asarray(weights, np.float64)
    if len(targets) != rows or weights.shape != (rows,):
        raise ValueError(
            f"inputs have {rows} rows, targets {len(targets)} and weights the shape {weights.shape}; they must have "
            "the same number."
        )
    return targets, weights


def _wide(tree):
    """Real numbers as float64, anything else as it is."""
    cast = lambda leaf: leaf.astype(np.float64) if np.asarray(leaf).dtype.kind == "f" else leaf
    return jax.tree.map(lambda leaf: jnp.asarray(cast(np.asarray(leaf))), tree)


def _stacked(inputs, test):
    return jax.tree.map(lambda one, two: jnp.concatenate([one, two]), inputs, test)
