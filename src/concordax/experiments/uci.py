"""Pendigits, letter and avila: the authors' `RunExpAny`, 50 epochs against 2000 of gradient descent."""

from collections.abc import Iterator
from dataclasses import dataclass

from . import classifiers, methods
from .classifiers import Classifiers
from .experiment import Experiment
from .sweep import Cell

# Rows a step, and the smoothing in units of √width.
_SETTINGS = {"pendigits": (64, 0.001), "letter": (8, 10.0), "avila": (64, 10.0)}
_DEFAULT = (64, 1.0)


@dataclass(frozen=True)
class Tables(Classifiers):
    """The configuration; the defaults are those published.

    Args:
        modes: the ways to train, on mini-batches but for gradient descent.
        batches: rows a step where not the published ones.
    """

    datasets: tuple[str, ...] = ("pendigits", "letter", "avila")
    width: int = 128
    epochs: int = 50
    full_steps: int = 2000
    points: int = 40
    modes: tuple[str, ...] = (
        methods.PUBLISHED, methods.CORRECTED, methods.TRUST_REGION, methods.MOMENTUM, methods.ADAM,
        methods.GRADIENT_DESCENT, methods.LBFGS,
    )  # fmt: skip
    batches: int | None = None


def cells(config: Tables, seeds: int) -> Iterator[Cell]:
    """One a data set, a way and a seed."""
    for dataset in config.datasets:
        size, units = _SETTINGS.get(dataset, _DEFAULT)
        common = {"dataset": dataset, "batch_size": config.batches or size, "smoothing": units * config.width**0.5}
        for mode in config.modes:
            yield from ({**common, "mode": mode, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="uci",
    full=Tables(),
    quick=Tables(
        datasets=("digits",), width=64, epochs=3, full_steps=200, points=10,
    ),
    tiny=Tables(
        datasets=("digits",), width=8, epochs=1, full_steps=4, points=3, rates=(0.1,), adam_rates=(1e-2,),
        batches=150,
        modes=(
            methods.PUBLISHED, methods.TRUST_REGION, methods.ADAM, methods.GRADIENT_DESCENT, methods.LBFGS,
        ),
    ),
    cells=cells,
    measure=classifiers.measure,
    cost=lambda config, cell: config.epochs / cell["batch_size"],
    notes=classifiers.NOTES,
    program=lambda cell: (cell["dataset"], cell["mode"]),
    datasets=lambda config: config.datasets,
    seeds=1,
    timed=True,
)  # fmt: skip
