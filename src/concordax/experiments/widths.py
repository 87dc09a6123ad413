"""From one hidden unit through the interpolation threshold and far beyond it: networks that are not overparameterised.

A network of width m has (inputs + 1)·m parameters; it can meet every noisy target from about rows/(inputs + 1) on.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from . import methods, students
from .experiment import Experiment
from .students import TINY, Students
from .sweep import Cell


@dataclass(frozen=True)
class Widths(Students):
    """The configuration.

    Args:
        widths: hidden units.
        noise: standard deviation of the noise in the training targets.
        weak: a strength that is next to none, at which the trust region interpolates where it can.
        modes: the ways to train at the common strength; the evidence chooses its own, Adam has its rate searched for.
    """

    train_rows: int = 240
    steps: int = 300
    widths: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 128, 256, 512, 1024)
    noise: float = 0.1
    weak: float = 1e-10
    modes: tuple[str, ...] = (
        methods.PUBLISHED, methods.CORRECTED, methods.TRUST_REGION, methods.EVIDENCE, methods.ADAM,
    )  # fmt: skip


def cells(config: Widths, seeds: int) -> Iterator[Cell]:
    """One a way, a width and a seed."""
    common = {"noise": config.noise}
    for width in config.widths:
        for mode in config.modes:
            yield from ({"mode": mode, "width": width, **common, "seed": seed} for seed in range(seeds))
        weak = {"mode": methods.TRUST_REGION, "strength": config.weak}
        yield from ({**weak, "width": width, **common, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="widths",
    full=Widths(),
    quick=Widths(
        train_rows=60, test_rows=500, steps=60, first_order_steps=1000, widths=(1, 4, 10, 40, 160),
        adam_rates=(1e-2, 1e-1), modes=(methods.CORRECTED, methods.TRUST_REGION, methods.EVIDENCE, methods.ADAM),
    ),
    tiny=Widths(**TINY, widths=(1, 12), modes=(methods.TRUST_REGION, methods.ADAM)),
    cells=cells,
    measure=students.measure,
    cost=lambda _, cell: 100 + cell["width"],
    notes=(*students.NOTES, "The smoothing is the root of the width, as in the paper."),
    program=lambda cell: (cell["mode"], cell["width"]),
)  # fmt: skip
