"""What the tests run over, and slow references in plain NumPy that share no code with the library.

The references work in `np.longdouble` where a comparison to 1e-8 needs digits to spare. Parameters are lists of
(weight [d_out, d_in], bias [d_out] or None); flat, they are layer after layer the weight row by row, then the bias.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import concordax as cx
from regularizer_cases import REFERENCE_REGULARIZERS as REFERENCE_REGULARIZERS
from regularizer_cases import REGULARIZERS as REGULARIZERS
from regularizer_cases import pseudo_huber as reference_pseudo_huber  # noqa: F401
from regularizer_cases import separable as reference_separable  # noqa: F401

# Losses ---------------------------------------------------------------------------------------------------------------


def softmax(o):
    weights = np.exp(o - o.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(o):
    return np.where(o >= 0, 1 / (1 + np.exp(-np.abs(o))), np.exp(-np.abs(o)) / (1 + np.exp(-np.abs(o))))


def _log_softmax(o):
    shifted = o - o.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _diagonal(d):
    return d[..., None] * np.eye(d.shape[-1])


class ReferenceLoss(NamedTuple):
    """Value [n], gradient [n, c], Hessian [n, c, c] and a factor (S [n, c, c], r [n, c]) of the rows' losses."""

    value: Callable
    gradient: Callable
    hessian: Callable
    factor: Callable


def _squared_factor(o, y):
    return _diagonal(np.ones_like(o)), o - y


def _softmax_factor(o, y):
    p = softmax(o)
    return _diagonal(np.sqrt(p)) - p[:, :, None] * np.sqrt(p)[:, None, :], (p - y) / np.sqrt(p)


def _binary_factor(o, y):
    p = sigmoid(o)
    root = np.sqrt(p * (1 - p))
    return _diagonal(root), (p - y) / root


def _softmax_hessian(o, y):
    del y
    p = softmax(o)
    return _diagonal(p) - p[:, :, None] * p[:, None, :]


def _huber_factor(o, y):
    curvature, pull = 1 / (1 + (o - y) ** 2 / HUBER**2) ** 1.5, (o - y) / np.sqrt(1 + (o - y) ** 2 / HUBER**2)
    return _diagonal(np.sqrt(curvature)), pull / np.sqrt(curvature)


def _poisson_value(o, y):
    return (np.exp(o) - y * o + np.where(y > 0, y * np.log(np.where(y > 0, y, 1)), 0) - y).sum(axis=-1)


def _quantile_parts(o, y):
    """Gradient and curvature of ½ (√(δ² + z²) − δ) + (q − ½) z, z = y − o."""
    stretch = np.hypot(WIDTH, y - o)
    return -0.5 * (y - o) / stretch - (QUANTILE - 0.5), 0.5 * WIDTH**2 / stretch**3


def _quantile_factor(o, y):
    gradient, curvature = _quantile_parts(o, y)
    return _diagonal(np.sqrt(curvature)), gradient / np.sqrt(curvature)


def _distance(o, y):
    """√(1 + ‖z‖²) of a row, one function of all its outputs; z = o − y."""
    return np.sqrt(1 + ((o - y) ** 2).sum(axis=-1, keepdims=True))


def _distance_hessian(o, y):
    s, z = _distance(o, y)[..., None], o - y
    return np.eye(o.shape[1]) / s - z[:, :, None] * z[:, None, :] / s**3


def _distance_factor(o, y):
    # Eigenvalues 1/s³ along z and 1/s across it; along z the root of the Hessian is what divides the gradient z/s.
    s, z = _distance(o, y), o - y
    along = z[:, :, None] * z[:, None, :] / (z**2).sum(axis=1)[:, None, None]
    s = s[..., None]
    return (np.eye(o.shape[1]) - along) / np.sqrt(s) + along / np.sqrt(s) ** 3, z * np.sqrt(s[..., 0])


def smooth_distance(o, y):
    return jnp.sqrt(1 + jnp.sum((o - y) ** 2))


def _blocks(parts):
    """Block diagonal matrices [n, Σ, Σ] of matrices [n, c, c]."""
    n, size = len(parts[0]), sum(part.shape[1] for part in parts)
    whole, at = np.zeros((n, size, size), parts[0].dtype), 0
    for part in parts:
        end = at + part.shape[1]
        whole[:, at:end, at:end] = part
        at = end
    return whole


def _mixed(part: str, o, y):
    """A part of the squared error of the first output and `MIXED` times the cross-entropy of the others."""
    (a, b), root = (getattr(REFERENCE_LOSSES[name], part) for name in ("squared", "softmax")), np.sqrt(MIXED)
    first, rest = a(o[:, :1], y[:, :1]), b(o[:, 1:], y[:, 1:])
    if part == "factor":
        return _blocks([first[0], root * rest[0]]), np.concatenate([first[1], root * rest[1]], axis=1)
    if part == "value":
        return first + MIXED * rest
    return _blocks([first, MIXED * rest]) if part == "hessian" else np.concatenate([first, MIXED * rest], axis=1)


HUBER, QUANTILE, WIDTH, MIXED = 1.5, 0.8, 0.7, 0.5
REFERENCE_LOSSES = {
    "pseudo-huber": ReferenceLoss(
        value=lambda o, y: (HUBER * np.hypot(HUBER, np.asarray(o - y, np.longdouble)) - HUBER**2).sum(axis=-1),
        gradient=lambda o, y: (o - y) / np.sqrt(1 + (o - y) ** 2 / HUBER**2),
        hessian=lambda o, y: _diagonal((1 + (o - y) ** 2 / HUBER**2) ** -1.5),
        factor=_huber_factor,
    ),
    "squared": ReferenceLoss(
        value=lambda o, y: 0.5 * ((o - y) ** 2).sum(axis=-1),
        gradient=lambda o, y: o - y,
        hessian=lambda o, y: _diagonal(np.ones_like(o - y)),
        factor=_squared_factor,
    ),
    "softmax": ReferenceLoss(
        value=lambda o, y: -(y * _log_softmax(o)).sum(axis=-1),
        gradient=lambda o, y: softmax(o) - y,
        hessian=_softmax_hessian,
        factor=_softmax_factor,
    ),
    "binary": ReferenceLoss(
        value=lambda o, y: (np.maximum(o, 0) + np.log1p(np.exp(-np.abs(o))) - y * o).sum(axis=-1),
        gradient=lambda o, y: sigmoid(o) - y,
        hessian=lambda o, y: _diagonal(sigmoid(o) * sigmoid(-o) + 0 * y),
        factor=_binary_factor,
    ),
    "poisson": ReferenceLoss(
        value=_poisson_value,
        gradient=lambda o, y: np.exp(o) - y,
        hessian=lambda o, y: _diagonal(np.exp(o) + 0 * y),
        factor=lambda o, y: (_diagonal(np.exp(o / 2)), (np.exp(o) - y) / np.exp(o / 2)),
    ),
    "quantile": ReferenceLoss(
        value=lambda o, y: (0.5 * (np.hypot(WIDTH, y - o) - WIDTH) + (QUANTILE - 0.5) * (y - o)).sum(axis=-1),
        gradient=lambda o, y: _quantile_parts(o, y)[0],
        hessian=lambda o, y: _diagonal(_quantile_parts(o, y)[1]),
        factor=_quantile_factor,
    ),
    "custom": ReferenceLoss(
        value=lambda o, y: _distance(o, y)[:, 0],
        gradient=lambda o, y: (o - y) / _distance(o, y),
        hessian=_distance_hessian,
        factor=_distance_factor,
    ),
    "per output": ReferenceLoss(*(partial(_mixed, part) for part in ReferenceLoss._fields)),
}

LOSSES = {
    "squared": cx.SquaredError(),
    "pseudo-huber": cx.PseudoHuberLoss(HUBER),
    "softmax": cx.SoftmaxCrossEntropy(),
    "binary": cx.BinaryCrossEntropy(),
    "poisson": cx.PoissonDeviance(),
    "quantile": cx.QuantileLoss(QUANTILE, smoothing=WIDTH),
    # The third derivative along s is at most 1.5 ‖s‖ times the second: a pseudo-Huber function along any line.
    "custom": cx.CustomLoss(smooth_distance, constant=1.5),
    "per output": cx.PerOutput((cx.SquaredError(), 1), (cx.SoftmaxCrossEntropy(), 2, MIXED)),
}


def draw_targets(loss: str, rng: np.random.Generator, rows: int, outputs: int) -> np.ndarray:
    """Targets [rows, outputs]: normal, one-hot, zeros and ones, or counts. All classes occur, and counts of 0."""
    if loss in ("squared", "pseudo-huber", "quantile", "custom"):
        targets = rng.normal(size=(rows, outputs))
    elif loss == "softmax":
        targets = np.eye(outputs)[rng.permutation(np.arange(rows) % outputs)]
    elif loss == "poisson":
        targets = rng.permuted((np.arange(rows) % 6)[:, None] * np.ones(outputs), axis=0)
    elif loss == "per output":
        targets = np.hstack([draw_targets("squared", rng, rows, 1), draw_targets("softmax", rng, rows, outputs - 1)])
    else:
        targets = rng.permuted((np.arange(rows) % 2)[:, None] * np.ones(outputs), axis=0)
    if rows > 1 and (loss != "softmax" or outputs > 1):
        assert np.all(targets.max(axis=0) > targets.min(axis=0)), "every target column must vary"
    return targets


# Networks -------------------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "silu": (lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1 + z * sigmoid(-z))),
}


def network(layers, inputs, scales, activation: str):
    """Outputs [n, c] and Jacobian [n, c, p] of a dense network, by the chain rule written out.

    z_l = V_l (scale_l a_l) + b_l, a_0 the inputs and a_l = activation(z_{l−1}).
    """
    act, slope = ACTIVATIONS[activation]
    hidden, features, pre = inputs, [], []
    for depth, ((weight, bias), scale) in enumerate(zip(layers, scales, strict=True)):
        features.append(scale * (act(hidden) if depth else hidden))
        hidden = features[-1] @ weight.T + (0 if bias is None else bias)
        pre.append(hidden)
    n, c = hidden.shape
    backward = np.broadcast_to(np.eye(c, dtype=hidden.dtype), (n, c, c))
    pieces = []
    for depth in range(len(layers) - 1, -1, -1):
        weight, bias = layers[depth]
        piece = (backward[..., :, None] * features[depth][:, None, None, :]).reshape(n, c, -1)
        pieces.append(piece if bias is None else np.concatenate([piece, backward], axis=2))
        if depth:
            backward = scales[depth] * (backward @ weight) * slope(pre[depth - 1])[:, None, :]
    return hidden, np.concatenate(pieces[::-1], axis=2)


def scales_of(model) -> list[float]:
    """The factors on each layer's inputs that the models document."""
    if isinstance(model, cx.TwoLayer):
        return [1.0, 1 / np.sqrt(model.width)]
    return [1 / np.sqrt(d) for d in (model.inputs, *model.widths)]


def draw_params(model, rng: np.random.Generator):
    """Parameters of `model` with every entry, biases too, drawn N(0, 1)."""
    if isinstance(model, cx.TwoLayer):
        sizes, biases = (model.inputs, model.width, model.outputs), (model.bias, False)
    else:
        sizes = (model.inputs, *model.widths, model.outputs)
        biases = (True,) * (len(sizes) - 1)
    return tuple(
        cx.DenseLayer(jnp.asarray(rng.normal(size=(o, i))), jnp.asarray(rng.normal(size=o)) if bias else None)
        for i, o, bias in zip(sizes[:-1], sizes[1:], biases, strict=True)
    )


def as_layers(params, dtype=np.float64):
    """Parameters of the library as the references take them."""
    return [(np.asarray(w, dtype), None if b is None else np.asarray(b, dtype)) for w, b in params]


def flatten(params) -> np.ndarray:
    """Parameters as one vector, in the order the module's docstring tells."""
    pieces = [np.asarray(x).ravel() for layer in params for x in layer if x is not None]
    return np.concatenate(pieces)


# Problems -------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """Data of one problem as NumPy arrays, with a model and parameters."""

    model: object
    params: tuple
    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


# Rows and outputs; the network has 24 + 7 c parameters. A row of weight 0 is among the tall problem's.
PROBLEMS = {"wide": (9, 3), "tall": (40, 3)}


def make_case(problem: str, loss: str, seed: int = 1) -> Case:
    """A problem of the table for a loss: one hidden layer, distinct weights, spread inputs and outputs."""
    rows, outputs = PROBLEMS[problem]
    rng = np.random.default_rng(seed)
    model = cx.MLP(inputs=3, widths=(6,), outputs=outputs)
    params = draw_params(model, rng)
    inputs = rng.normal(size=(rows, 3))
    weights = rng.uniform(0.3, 2.0, size=rows)
    if problem == "tall":
        weights[3] = 0.0
    case = Case(model, params, inputs, draw_targets(loss, rng, rows, outputs), weights)
    predicted, jacobian = network(as_layers(params), inputs, scales_of(model), "tanh")
    assert inputs.std(axis=0).min() > 0.4
    assert predicted.std(axis=0).min() > 0.2
    assert len(np.unique(weights)) == rows
    assert np.linalg.matrix_rank(jacobian.reshape(-1, jacobian.shape[2])) == min(rows * outputs, jacobian.shape[2])
    assert (rows * outputs < jacobian.shape[2]) == (problem == "wide")
    return case


# Linear algebra -------------------------------------------------------------------------------------------------------


def least_squares(matrix, rhs):
    """The x that minimises ‖matrix x − rhs‖, by Householder QR in the dtype given; NumPy's own has no long double."""
    r, b = np.array(matrix), np.array(rhs)
    columns = r.shape[1]
    for j in range(columns):
        v = r[j:, j].copy()
        v[0] += np.copysign(np.sqrt((v**2).sum()), v[0])
        v /= np.sqrt((v**2).sum())
        r[j:, j:] -= 2 * np.outer(v, v @ r[j:, j:])
        b[j:] -= 2 * v * (v @ b[j:])
    x = np.zeros(columns, r.dtype)
    for j in range(columns - 1, -1, -1):
        x[j] = (b[j] - r[j, j + 1 :] @ x[j + 1 :]) / r[j, j]
    return x


def cholesky(matrix):
    """Lower triangular C with C Cᵀ the matrix, in the dtype given."""
    lower = np.zeros_like(matrix)
    for j in range(len(matrix)):
        lower[j, j] = np.sqrt(matrix[j, j] - (lower[j, :j] ** 2).sum())
        lower[j + 1 :, j] = (matrix[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    return lower


def forward_solve(lower, rhs):
    """C⁻¹ rhs."""
    x = np.zeros_like(rhs)
    for j in range(len(rhs)):
        x[j] = (rhs[j] - lower[j, :j] @ x[:j]) / lower[j, j]
    return x


class ReferenceSystem(NamedTuple):
    """What a case and a loss give in long double: θ, W, r, and JᵀHJ and Jᵀe written with the loss's own derivatives."""

    theta: np.ndarray
    w: np.ndarray
    residual: np.ndarray
    curvature: np.ndarray
    gradient: np.ndarray


def reference_system(case: Case, loss: str) -> ReferenceSystem:
    """The parts of the linear system that know nothing of the regularizer."""
    wide = np.longdouble
    reference = REFERENCE_LOSSES[loss]
    outputs, jacobian = network(as_layers(case.params, wide), case.inputs.astype(wide), scales_of(case.model), "tanh")
    theta = flatten(case.params).astype(wide)
    share = case.weights.astype(wide) / case.weights.astype(wide).sum()
    targets = case.targets.astype(wide)
    factor, residual = reference.factor(outputs, targets)
    w = (np.sqrt(share)[:, None, None] * (np.swapaxes(factor, 1, 2) @ jacobian)).reshape(-1, len(theta))
    r = (np.sqrt(share)[:, None] * residual).ravel()
    curvature = np.einsum("i,iap,iab,ibq->pq", share, jacobian, reference.hessian(outputs, targets), jacobian)
    gradient = np.einsum("i,iap,ia->p", share, jacobian, reference.gradient(outputs, targets))
    return ReferenceSystem(theta, w, r, curvature, gradient)


def reference_directions(system: ReferenceSystem, regularizer: str, pairs) -> list[np.ndarray]:
    """δ of (Wᵀ W + t H) δ = −(Wᵀ r + τ g) for pairs (τ, λ), by QR of [W; √t Cᵀ], H = C Cᵀ, in long double.

    The condition is never squared.
    """
    penalty = REFERENCE_REGULARIZERS[regularizer]
    hessian, g = penalty.hessian(system.theta), penalty.gradient(system.theta)
    factor = cholesky(hessian)
    inner, found = forward_solve(factor, g), []
    for strength, damping in pairs:
        tau = np.longdouble(strength)
        t = tau + np.longdouble(damping)
        stacked = np.concatenate([system.w, np.sqrt(t) * factor.T])
        delta = least_squares(stacked, np.concatenate([-system.residual, -(tau / np.sqrt(t)) * inner]))
        # The same δ solves the normal equations with the loss's gradient and Hessian, which know nothing of S and r.
        left = system.curvature @ delta + t * hessian @ delta
        right = system.gradient + tau * g
        assert np.abs(left + right).max() < 1e-11 * max(1, np.abs(right).max())
        found.append(delta)
    return found


def reference_direction(case: Case, loss: str, regularizer: str, strength: float, damping: float) -> np.ndarray:
    """The δ of one pair."""
    return reference_directions(reference_system(case, loss), regularizer, [(strength, damping)])[0]


def relative_error(actual, expected) -> float:
    """‖actual − expected‖ / ‖expected‖."""
    expected = np.asarray(expected, float)
    return float(np.linalg.norm(np.asarray(actual, float) - expected) / np.linalg.norm(expected))
