"""Softmax cross-entropy in the place of the paper's squared error, on the same networks and batches."""

from collections.abc import Iterator
from dataclasses import dataclass

from . import classifiers, methods
from .classifiers import SOFTMAX, SQUARED, Classifiers
from .experiment import Experiment
from .sweep import Cell


@dataclass(frozen=True)
class ClassLosses(Classifiers):
    """The configuration.

    Args:
        losses: names.
        modes: the ways to train.
        batch_size: rows a step.
    """

    datasets: tuple[str, ...] = ("pendigits", "letter", "avila")
    width: int = 128
    epochs: int = 10
    losses: tuple[str, ...] = (SQUARED, SOFTMAX)
    modes: tuple[str, ...] = (methods.TRUST_REGION, methods.MOMENTUM, methods.ADAM)
    batch_size: int = 64


def cells(config: ClassLosses, seeds: int) -> Iterator[Cell]:
    """One a data set, a loss, a way and a seed."""
    for dataset in config.datasets:
        for loss in config.losses:
            for mode in config.modes:
                cell = {"dataset": dataset, "loss": loss, "mode": mode, "batch_size": config.batch_size}
                yield from ({**cell, "standardized": True, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="classification-losses",
    full=ClassLosses(),
    quick=ClassLosses(datasets=("digits",), width=64, epochs=4),
    tiny=ClassLosses(
        datasets=("digits",), width=8, epochs=1, points=3, adam_rates=(1e-2,), batch_size=150,
        modes=(methods.TRUST_REGION, methods.ADAM),
    ),
    cells=cells,
    measure=classifiers.measure,
    cost=lambda *_: 1.0,
    notes=(*classifiers.NOTES, "Losses of different kinds are no fit for comparison; accuracies are."),
    program=lambda cell: (cell["dataset"], cell["loss"], cell["mode"]),
    datasets=lambda config: config.datasets,
)
