"""One classifier on mini-batches: what the experiments on digits, letters and manuscripts measure."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import concordax as cx

from . import datasets, methods, traced
from .students import SHARE

SQUARED, SOFTMAX = "squared error", "softmax cross-entropy"
# Rows of one evaluation: the hidden layer of all 60,000 at once would take a gigabyte.
_ROWS = 5000
NOTES = (
    *methods.NOTES,
    "The network is the paper's, outer weights U(0, 1), without bias. Squared error: half the squared distance from "
    "the class as a unit row, a mean over the rows. Accuracy: the largest output is the class.",
    f"zeros: parameters less the fewest that hold {SHARE:.1%} of the sum of absolute values.",
    "sign_kept: the share of hidden units x training rows whose pre-activation has the sign it had at the start. "
    "sign_kept_with_zeros: plus the zeros that the inner weights have gained, a share of units x rows, as the authors' "
    "code counts them.",
    "Pixels are divided by 255 (digits: 16), columns of letter scaled to [-1, 1] as in LIBSVM's copy; pendigits and "
    "avila are taken as they come, as the authors do. With `standardized` all columns are.",
)


@dataclass(frozen=True)
class Classifiers:
    """What the classifiers of one experiment share.

    Args:
        datasets: names, see `datasets.load`.
        width: hidden units.
        epochs: of mini-batches.
        full_steps: of gradient descent and L-BFGS, on all rows. Adam and momentum have the mini-batches of `epochs`.
        points: of a curve.
        scale: the numerator of `PublishedStep`.
        strength: τ, where a cell does not say otherwise.
        rates: those that gradient descent tries.
        batch_rates: those that momentum tries.
        adam_rates: those that Adam tries.
    """

    datasets: tuple[str, ...]
    width: int = 512
    epochs: int = 1
    full_steps: int = 100
    points: int = 12
    scale: float = 1.0
    strength: float = 1e-4
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    batch_rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    adam_rates: tuple[float, ...] = (1e-3, 1e-2, 1e-1)


@functools.lru_cache(maxsize=2)
def scaled(name: str, data_dir: Path | None, *, standardized: bool = False) -> datasets.DataSet:
    """A data set with its inputs in the units of the experiments."""
    data = datasets.load(name, data_dir)
    x = data.X_train
    if standardized:
        spread = x.std(axis=0)
        shift, size = x.mean(axis=0), np.where(spread > 0, spread, 1.0)
    elif name == "letter":
        low, high = x.min(axis=0), x.max(axis=0)
        shift, size = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
    else:
        shift, size = 0.0, {"digits": 16.0, "mnist": 255.0, "fashion-mnist": 255.0}.get(name, 1.0)
    inputs = {"X_train": (x - shift) / size, "X_test": (data.X_test - shift) / size}
    return datasets.DataSet(**{**vars(data), **inputs})


def measure(config: Classifiers, cell: Mapping[str, Any], *, data_dir: Path | None) -> dict[str, Any]:
    """One classifier's course on a data set.

    Args:
        config: what all share.
        cell: `dataset`, `mode`, `batch_size`, `seed`, and where they differ from the default `strength`, `smoothing`
            (√width), `activation` (relu), `loss` (squared error) and `standardized`.
        data_dir: see `datasets.load`.

    Returns:
        As `train_on`.
    """
    data = scaled(cell["dataset"], data_dir, standardized=cell.get("standardized", False))
    eye = np.eye(len(data.labels))
    return train_on(config, cell, (data.X_train, eye[data.y_train]), (data.X_test, eye[data.y_test]))


def train_on(config: Classifiers, cell: Mapping[str, Any], rows: tuple[Any, Any], test: tuple[Any, Any]):
    """The course of a classifier on rows (inputs [n, d], probabilities of the classes [n, c]).

    Returns:
        Curve and end as `traced.run` has them; with `parameters`, `zeros`, `sign_kept` and `sign_kept_with_zeros`.
    """
    inputs, targets = (jnp.asarray(part) for part in rows)
    model = cx.TwoLayer(inputs.shape[1], config.width, targets.shape[1], activation=cell.get("activation", "relu"))
    start_key, order_key = jax.random.split(jax.random.key(cell["seed"]))
    params = jax.jit(model.init)(start_key)
    smoothing = cell.get("smoothing", math.sqrt(config.width))
    softmax = cell.get("loss", SQUARED) == SOFTMAX
    loss = cx.SoftmaxCrossEntropy() if softmax else cx.SquaredError()
    mode, batch_size = cell["mode"], cell["batch_size"]
    whole = mode in (methods.GRADIENT_DESCENT, methods.LBFGS)
    steps = config.full_steps if whole else config.epochs * -(-len(inputs) // batch_size)
    judged = [tuple(jnp.asarray(part) for part in pair) for pair in (rows, test)]

    def train(**options: Any) -> traced.Course:
        batches = {} if whole else {"batch_size": batch_size, "key": order_key}
        return traced.run(
            (model, loss, cx.PseudoHuber(smoothing), params), (inputs, targets),
            lambda at: _judged(model, loss, at, judged), steps=steps, points=config.points, **batches, **options,
        )  # fmt: skip

    rates = {methods.ADAM: config.adam_rates, methods.MOMENTUM: config.batch_rates}.get(mode, config.rates)
    strength = cell.get("strength", config.strength)
    course = traced.best_of(mode, rates, train, strength=strength, scale=config.scale)
    counted = cx.sparsity(model, course.params, share=SHARE)
    return {
        **course.numbers,
        "epochs": config.full_steps if whole else config.epochs,
        "parameters": counted.parameters,
        "zeros": counted.parameters - counted.holding,
        **_signs(params, course.params, inputs, cx.sparsity(model, params, share=SHARE), counted),
    }


@eqx.filter_jit
def _sums(model, loss, params, inputs: Float[Array, "n d"], targets: Float[Array, "n c"]):
    """The sum of the losses, and how many rows are classified right."""
    outputs = model(params, inputs)
    return jnp.sum(loss.value(outputs, targets)), jnp.sum(jnp.argmax(outputs, axis=1) == jnp.argmax(targets, axis=1))


def _judged(model, loss, params, judged) -> dict[str, float]:
    numbers = {}
    for name, (inputs, targets) in zip(("train", "test"), judged, strict=True):
        parts = [
            jax.device_get(_sums(model, loss, params, inputs[start : start + _ROWS], targets[start : start + _ROWS]))
            for start in range(0, len(inputs), _ROWS)
        ]
        total, right = np.sum(np.asarray(parts, float), axis=0) / len(inputs)
        numbers |= {f"{name}_loss": float(total), f"{name}_accuracy": float(right)}
    return numbers


def _signs(start, end, inputs, before: cx.Sparsity, after: cx.Sparsity) -> dict[str, float]:
    """How far the activation pattern of the start is kept: the T-I measure of the authors' code."""
    kept = [
        float(jnp.mean(jnp.sign(part @ start[0].weight.T) == jnp.sign(part @ end[0].weight.T))) * len(part)
        for part in (inputs[at : at + _ROWS] for at in range(0, len(inputs), _ROWS))
    ]
    share = sum(kept) / len(inputs)
    zeros = [counted.layers[0].parameters - counted.layers[0].holding for counted in (before, after)]
    gained = max(0, zeros[1] - zeros[0]) / (len(inputs) * start[0].weight.shape[0])
    return {"sign_kept": share, "sign_kept_with_zeros": share + gained}
