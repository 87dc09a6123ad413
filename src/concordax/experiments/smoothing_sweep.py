"""Test loss, zeros and speed against the smoothing μ: the authors' `testloss-vs-mu.jl`, and how μ changes the rate.

At a fixed τ, μ also changes the curvature τ·h''(0); where the evidence chooses τ, it does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from . import methods, students
from .experiment import Experiment
from .students import TINY, Students
from .sweep import Cell


@dataclass(frozen=True)
class SmoothingSweep(Students):
    """The configuration; the defaults are the published sweep.

    Args:
        smoothings: μ of the sweep; the others are those of `Students`.
        modes: the ways to train at each μ.
    """

    smoothings: tuple[float, ...] = tuple(round(10 ** (k / 10), 12) for k in range(-30, 11))
    modes: tuple[str, ...] = (methods.CORRECTED, methods.TRUST_REGION, methods.PUBLISHED, methods.EVIDENCE)


def cells(config: SmoothingSweep, seeds: int) -> Iterator[Cell]:
    """One a way, a smoothing and a seed."""
    for mode in config.modes:
        for smoothing in config.smoothings:
            yield from ({"mode": mode, "smoothing": smoothing, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="smoothing-sweep",
    full=SmoothingSweep(),
    quick=SmoothingSweep(
        train_rows=200, test_rows=500, width=200, steps=60, smoothings=(1e-3, 1e-2, 1e-1, 1.0, 10.0),
        modes=(methods.CORRECTED, methods.TRUST_REGION, methods.EVIDENCE),
    ),
    tiny=SmoothingSweep(**TINY, smoothings=(1e-2, 1.0), modes=(methods.TRUST_REGION,)),
    cells=cells,
    measure=students.measure,
    cost=lambda config, _: config.steps,
    notes=students.NOTES,
    program=lambda cell: (cell["mode"], cell["seed"]),
    seeds=10,
)  # fmt: skip
