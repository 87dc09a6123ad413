"""MNIST and Fashion-MNIST against strength and smoothing: `RunMNISTExpLambda` and `RunMNISTExpMu` of the authors.

784 → 512 → 10 with relu and squared error on one-hot rows, batches of 16; zeros and the stability of activations.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import classifiers, methods
from .classifiers import Classifiers
from .experiment import Experiment
from .sweep import Cell


@dataclass(frozen=True)
class Digits(Classifiers):
    """The configuration; the defaults are those published.

    Args:
        strengths: τ of the first sweep, at a smoothing of √width.
        smoothings: μ of the second sweep, at `strength`.
        modes: the ways to train in both sweeps.
        baselines: the ways to train at one strength and smoothing alone.
        batch_size: rows a step.
    """

    strengths: tuple[float, ...] = tuple(10.0**k for k in range(-6, 1))
    smoothings: tuple[float, ...] = tuple(10.0**k for k in range(-3, 4))
    modes: tuple[str, ...] = (methods.PUBLISHED, methods.CORRECTED, methods.TRUST_REGION)
    baselines: tuple[str, ...] = (methods.MOMENTUM, methods.ADAM, methods.LBFGS)
    batch_size: int = 16


def cells(config: Digits, seeds: int) -> Iterator[Cell]:
    """One a way, a strength or a smoothing, and a seed; and one a baseline and a seed."""
    for dataset in config.datasets:
        common = {"dataset": dataset, "batch_size": config.batch_size}
        for mode in config.modes:
            for name, values in (("strength", config.strengths), ("smoothing", config.smoothings)):
                for value in values:
                    cell = {**common, "mode": mode, "swept": name, name: value}
                    yield from ({**cell, "seed": seed} for seed in range(seeds))
        for mode in config.baselines:
            yield from ({**common, "mode": mode, "swept": "", "seed": seed} for seed in range(seeds))


def program(cell: Cell):
    """Strengths and smoothings share one; more groups than one a way, for the processes to have something to share."""
    return cell["mode"], cell["swept"], cell["seed"]


def _experiment(name: str, smoothings: tuple[float, ...], quick: Digits) -> Experiment:
    return Experiment(
        name=name,
        full=Digits((name,), smoothings=smoothings),
        quick=quick,
        tiny=Digits(
            ("digits",), width=8, points=3, strengths=(1e-3,), smoothings=(8**0.5,), batch_rates=(0.1,),
            adam_rates=(1e-2,), batch_size=150, baselines=(methods.MOMENTUM, methods.ADAM),
        ),
        cells=cells,
        measure=classifiers.measure,
        cost=lambda *_: 1.0,
        notes=classifiers.NOTES,
        program=program,
        datasets=lambda config: config.datasets,
    )  # fmt: skip


_QUICK = Digits(("digits",), width=64, strengths=(1e-6, 1e-3, 1.0), smoothings=(1e-3, 1.0, 1e3))
MNIST = _experiment("mnist", tuple(10.0**k for k in range(-3, 4)), _QUICK)
# The same pictures stand in for both: here only what differs, the smoothings below.
FASHION = _experiment(
    "fashion-mnist", tuple(10.0**k for k in range(-6, 1)), replace(_QUICK, strengths=(), smoothings=(1e-6, 1e-4, 1e-2))
)
