"""One student that learns from a teacher on all rows: what the sweeps over strength, smoothing and networks measure."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import concordax as cx
from concordax.regularizers import AbstractRegularizer

from . import methods, traced
from .synthetic import TeacherStudent, teacher_student

# Parts of ‖θ‖₁ that the entries which count as not zero hold together.
SHARE = 0.999
# Strengths are positive; what this one adds is lost in the rounding of any loss.
_NO_STRENGTH = 1e-200
NOTES = (
    *methods.NOTES,
    traced.NOTE,
    "Losses are half the squared error, a mean over the rows. Test targets are without noise.",
    f"zeros: parameters less the fewest that hold {SHARE:.1%} of the sum of absolute values.",
)


@dataclass(frozen=True)
class Students:
    """What the students of one sweep share; the defaults are those of the paper's sweeps.

    Args:
        train_rows: training rows.
        test_rows: test rows.
        inputs: input features.
        teacher_width: the teacher's hidden units.
        width: the student's, where a cell does not say otherwise.
        strength: τ, where a cell does not say otherwise.
        scale: the numerator of `PublishedStep`.
        steps: at most.
        first_order_steps: of gradient descent, momentum and Adam for each rate, and of L-BFGS.
        points: of a curve.
        loss_floor: the training loss at which a run ends.
        rates: those that gradient descent and momentum try.
        adam_rates: those that Adam tries.
    """

    train_rows: int = 500
    test_rows: int = 1000
    inputs: int = 5
    teacher_width: int = 5
    width: int = 500
    strength: float = 1e-4
    scale: float = 0.95
    steps: int = 1600
    first_order_steps: int = 5000
    points: int = 25
    loss_floor: float = 1e-8
    rates: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0)
    adam_rates: tuple[float, ...] = (1e-3, 1e-2, 1e-1)


TINY: dict[str, Any] = {
    "train_rows": 30, "test_rows": 40, "inputs": 3, "teacher_width": 2, "width": 12, "steps": 12,
    "first_order_steps": 40, "points": 4, "rates": (1.0,), "adam_rates": (1e-2,),
}  # fmt: skip
"""Sizes for tests: a second."""

REGULARIZERS: Mapping[str, Callable[[float, Any], AbstractRegularizer]] = {
    "L2": lambda *_: cx.L2(),
    "pseudo-Huber": lambda smoothing, _: cx.PseudoHuber(smoothing),
    "Ostrovskii-Bach": lambda smoothing, _: cx.OstrovskiiBach(smoothing),
    "log cosh": lambda smoothing, _: cx.LogCosh(smoothing),
    "hyperbolic entropy": lambda smoothing, _: cx.HyperbolicEntropy(smoothing),
    "elastic net": lambda smoothing, _: cx.Elastic(smoothing, 1.0),
    "units": lambda smoothing, params: cx.GroupPseudoHuber(smoothing, cx.Groups.neurons(params)),
    "box": lambda smoothing, _: cx.SmoothBox(-2.0, 2.0, smoothing),
}


def measure(config: Students, cell: Mapping[str, Any]) -> dict[str, Any]:
    """One student's course.

    Args:
        config: what all students share.
        cell: `mode` and `seed`; where they differ from the default also `width`, `depth` (then in NTK scaling),
            `activation` (silu), `regularizer` (pseudo-Huber), `smoothing` (√width); `strength`, or τ·h''(0) as
            `curvature`; `noise` of the targets, `scale` of `PublishedStep`, `shrunk` (a factor of the start), and
            `penalized`: False leaves the regularizer out.

    Returns:
        Curve and end as `traced.run` has them; with `parameters`, `zeros` and `strength`.
    """
    data_key, start_key, noise_key = jax.random.split(jax.random.key(cell["seed"]), 3)
    names = ("train_rows", "test_rows", "inputs", "teacher_width")
    data = teacher_student(data_key, **{name: getattr(config, name) for name in names})
    noise = cell.get("noise", 0.0) * jax.random.normal(noise_key, data.targets.shape)
    width = cell.get("width", config.width)
    model = _network(config, cell, width)
    start = jax.jit(model.init)(start_key)
    params = jax.tree.map(lambda leaf: cell.get("shrunk", 1.0) * leaf, start)
    name = cell.get("regularizer", "pseudo-Huber")
    regularizer = REGULARIZERS[name](cell.get("smoothing", math.sqrt(width)), params)
    strength = cell.get("strength", config.strength) if cell.get("penalized", True) else _NO_STRENGTH
    if "curvature" in cell:
        strength = cell["curvature"] / _curvature_at_zero(regularizer, params)

    def train(**options: Any) -> traced.Course:
        first = "optimizer" in options
        return traced.run(
            (model, cx.SquaredError(), regularizer, params), (data.inputs, data.targets + noise),
            lambda at: _losses(model, at, data, noise), steps=config.first_order_steps if first else config.steps,
            points=config.points, loss_floor=config.loss_floor, **options,
        )  # fmt: skip

    rates = config.adam_rates if cell["mode"] == methods.ADAM else config.rates
    course = traced.best_of(cell["mode"], rates, train, strength=strength, scale=cell.get("scale", config.scale))
    counted = cx.sparsity(model, course.params, share=SHARE)
    zeros = counted.parameters - counted.holding
    return {**course.numbers, "parameters": counted.parameters, "zeros": zeros, "strength_used": strength}


def _network(config: Students, cell: Mapping[str, Any], width: int) -> cx.TwoLayer | cx.MLP:
    activation = cell.get("activation", "silu")
    if "depth" in cell:
        return cx.MLP(config.inputs, (width,) * cell["depth"], 1, activation=activation)
    return cx.TwoLayer(config.inputs, width, 1, activation=activation)


def _curvature_at_zero(regularizer: AbstractRegularizer, params: Any) -> float:
    """The mean of h'' over the parameters at zero."""
    zeros = jnp.zeros(sum(leaf.size for leaf in jax.tree.leaves(params)))
    return float(jnp.mean(regularizer.metric(zeros).mv(jnp.ones_like(zeros))))


@eqx.filter_jit
def _both(model, params, data: TeacherStudent, noise):
    pairs = (data.inputs, data.targets + noise), (data.test_inputs, data.test_targets)
    return [jnp.mean(cx.SquaredError().value(model(params, inputs), targets)) for inputs, targets in pairs]


def _losses(model, params, data: TeacherStudent, noise) -> dict[str, float]:
    train_loss, test_loss = jax.device_get(_both(model, params, data, noise))
    return {"train_loss": float(train_loss), "test_loss": float(test_loss)}
