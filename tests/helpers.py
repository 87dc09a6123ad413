"""What the tests run over, and slow references in plain NumPy that share no code with the library.

The references work in `np.longdouble` where a comparison to 1e-8 needs digits to spare. Parameters are lists of
(weight [d_out, d_in], bias [d_out] or None); flat, they are layer after layer the weight row by row, then the bias.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import concordax as cx
from loss_cases import LOSSES as LOSSES
from loss_cases import REFERENCE_LOSSES as REFERENCE_LOSSES
from loss_cases import draw_targets as draw_targets
from loss_cases import sigmoid as sigmoid
from loss_cases import smooth_distance as smooth_distance
from loss_cases import softmax as softmax
from regularizer_cases import REFERENCE_REGULARIZERS as REFERENCE_REGULARIZERS
from regularizer_cases import REGULARIZERS as REGULARIZERS
from regularizer_cases import pseudo_huber as reference_pseudo_huber  # noqa: F401
from regularizer_cases import separable as reference_separable  # noqa: F401

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
