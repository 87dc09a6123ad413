"""What the tests run over, and slow references in plain NumPy that share no code with the library.

The references work in `np.longdouble` where a comparison to 1e-8 needs digits to spare. Parameters are lists of
(weight [d_out, d_in], bias [d_out] or None); flat, they are layer after layer the weight row by row, then the bias.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import concordax as cx
from regularizer_cases import REFERENCE_REGULARIZERS as REFERENCE_REGULARIZERS
from regularizer_cases import REGULARIZERS as REGULARIZERS

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


HUBER = 1.5
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
}

LOSSES = {
    "squared": cx.SquaredError(),
    "pseudo-huber": cx.PseudoHuberLoss(HUBER),
    "softmax": cx.SoftmaxCrossEntropy(),
    "binary": cx.BinaryCrossEntropy(),
}


def draw_targets(loss: str, rng: np.random.Generator, rows: int, outputs: int) -> np.ndarray:
    """Targets [rows, outputs]: normal, one-hot, or zeros and ones. All classes occur."""
    if loss in ("squared", "pseudo-huber"):
        targets = rng.normal(size=(rows, outputs))
    elif loss == "softmax":
        targets = np.eye(outputs)[rng.permutation(np.arange(rows) % outputs)]
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
