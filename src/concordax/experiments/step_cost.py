"""Seconds a step beside those of gradient descent, as width, rows and outputs grow."""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import concordax as cx
from concordax.observers import Observer, RunView

from . import methods
from .experiment import Experiment
from .sweep import Cell

_NOTES = (
    "A two-layer silu network on random rows, pseudo-Huber with the root of the width, strength 1e-4. Seconds are "
    "medians over the steps after the first two, which compile; a step of the trust region holds all its trials.",
    "materialized: the dual step from the whole Jacobian, as published code takes it (`Dual` with PublishedStep).",
    "Times of one machine in one run; ratios say more than seconds.",
)
MATERIALIZED = "materialized"


@dataclass(frozen=True)
class StepCost:
    """The configuration.

    Args:
        width: hidden units where they do not grow.
        rows: training rows where they do not grow.
        outputs: outputs where they do not grow.
        inputs: input features.
        widths: hidden units.
        row_counts: training rows.
        output_counts: outputs.
        steps: of which the median is taken.
        modes: the ways to train.
    """

    width: int = 500
    rows: int = 500
    outputs: int = 1
    inputs: int = 20
    widths: tuple[int, ...] = (125, 250, 500, 1000, 2000, 4000, 8000)
    row_counts: tuple[int, ...] = (125, 250, 500, 1000, 2000)
    output_counts: tuple[int, ...] = (1, 2, 4)
    steps: int = 12
    modes: tuple[str, ...] = (methods.GRADIENT_DESCENT, methods.CORRECTED, methods.TRUST_REGION, MATERIALIZED)


def cells(config: StepCost, seeds: int) -> Iterator[Cell]:
    """One a way, a size and a seed; the modes of a size follow each other."""
    sizes = {"width": config.widths, "rows": config.row_counts, "outputs": config.output_counts}
    for grown, values in sizes.items():
        for value in values:
            for mode in config.modes:
                yield from ({"grown": grown, grown: value, "mode": mode, "seed": seed} for seed in range(seeds))


class _Clock(Observer):
    def begin(self, view: RunView) -> None:
        del view
        self.times: list[float] = []

    def observe(self, view: RunView) -> None:
        jax.block_until_ready(view.params)
        self.times.append(time.perf_counter())


def measure(config: StepCost, cell: Mapping[str, Any]) -> dict[str, Any]:
    """The median seconds a step of one way at one size."""
    rows, outputs = cell.get("rows", config.rows), cell.get("outputs", config.outputs)
    width = cell.get("width", config.width)
    rng = np.random.default_rng(cell["seed"])
    x = rng.normal(size=(rows, config.inputs)) / np.sqrt(config.inputs)
    y = np.sin(x @ rng.normal(size=(config.inputs, outputs)))
    model = cx.TwoLayer(config.inputs, width, outputs, activation="silu")
    options = {
        methods.GRADIENT_DESCENT: {"optimizer": optax.sgd(1e-2)},
        methods.CORRECTED: {"step": cx.PublishedStep()},
        methods.TRUST_REGION: {},
        MATERIALIZED: {"step": cx.PublishedStep(), "solver": cx.Dual()},
    }[cell["mode"]]
    clock = _Clock()
    result = cx.train(
        model, cx.SquaredError(), cx.PseudoHuber(width**0.5), jax.jit(model.init)(jax.random.key(cell["seed"])), (x, y),
        strength=1e-4, max_steps=config.steps + 2, tolerance=0.0, callbacks=[clock], **options,
    )  # fmt: skip
    each = np.diff(clock.times)[1:]
    return {
        "step_seconds": statistics.median(each.tolist()),
        "trials": float(np.mean(result.history["attempts"][2:])),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(result.params)),
        "solver": result.solver,
    }


EXPERIMENT = Experiment(
    name="step-cost",
    full=StepCost(),
    quick=StepCost(width=100, rows=100, widths=(50, 200, 800), row_counts=(50, 200), output_counts=(1, 3), steps=6),
    tiny=StepCost(
        width=10, rows=20, inputs=3, widths=(5,), row_counts=(), output_counts=(), steps=3,
    ),
    cells=cells,
    measure=measure,
    cost=lambda config, cell: cell.get("width", config.width) * cell.get("rows", config.rows),
    notes=_NOTES,
    seeds=1,
    alone=True,
)  # fmt: skip
