"""Test loss and zeros against the strength τ: the authors' `testloss-vs-tau.jl`."""

from collections.abc import Iterator
from dataclasses import dataclass

from . import methods, students
from .experiment import Experiment
from .students import TINY, Students
from .sweep import Cell


@dataclass(frozen=True)
class StrengthSweep(Students):
    """The configuration; the defaults are the published sweep.

    Args:
        strengths: τ of the sweep; the others are those of `Students`.
        modes: the ways to train at each τ. The evidence chooses its own, once a seed.
    """

    strengths: tuple[float, ...] = tuple(round(10 ** (k / 5), 12) for k in range(-40, 1))
    modes: tuple[str, ...] = (methods.CORRECTED, methods.TRUST_REGION, methods.PUBLISHED)


def cells(config: StrengthSweep, seeds: int) -> Iterator[Cell]:
    """One a way, a strength and a seed; and one a seed where the evidence chooses."""
    for mode in config.modes:
        for strength in config.strengths:
            yield from ({"mode": mode, "strength": strength, "seed": seed} for seed in range(seeds))
    yield from ({"mode": methods.EVIDENCE, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="strength-sweep",
    full=StrengthSweep(),
    quick=StrengthSweep(
        train_rows=200, test_rows=500, width=200, steps=60, strengths=tuple(10.0**k for k in range(-8, 1, 2)),
        modes=(methods.CORRECTED, methods.TRUST_REGION),
    ),
    tiny=StrengthSweep(**TINY, strengths=(1e-6, 1e-2), modes=(methods.CORRECTED, methods.TRUST_REGION)),
    cells=cells,
    measure=students.measure,
    cost=lambda config, _: config.steps,
    notes=students.NOTES,
    program=lambda cell: (cell["mode"], cell["seed"]),
    seeds=10,
)  # fmt: skip
