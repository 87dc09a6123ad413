"""The losses that the tests run over, slow references in plain NumPy that share no code with them, and targets."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import concordax as cx


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
