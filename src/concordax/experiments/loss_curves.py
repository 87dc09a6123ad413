"""Loss against steps and seconds on the synthetic problem: the authors' `traintestloss-vs-epoch-time.jl`.

From the usual start, and from a lazy one: weights times 0.2 and the learning rate's numerator 1/inputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from . import methods, students
from .experiment import Experiment
from .students import Students
from .sweep import Cell

USUAL, LAZY = "usual", "lazy"
# The factor of a lazy start's weights.
_SHRUNK = 0.2


@dataclass(frozen=True)
class LossCurves(Students):
    """The configuration; the defaults are the published problem.

    Args:
        modes: the ways to train.
    """

    train_rows: int = 1000
    test_rows: int = 2000
    inputs: int = 20
    steps: int = 4000
    first_order_steps: int = 10_000
    points: int = 200
    rates: tuple[float, ...] = (1.0, 3.0, 10.0, 20.0, 40.0, 80.0, 160.0)
    adam_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    modes: tuple[str, ...] = (
        methods.PUBLISHED, methods.CORRECTED, methods.TRUST_REGION, methods.EVIDENCE, methods.GRADIENT_DESCENT,
        methods.MOMENTUM, methods.ADAM, methods.LBFGS,
    )  # fmt: skip


def cells(config: LossCurves, seeds: int) -> Iterator[Cell]:
    """One a start, a way and a seed. Gradient descent has no regularizer, as published."""
    lazy = {"start": LAZY, "shrunk": _SHRUNK, "scale": 1 / config.inputs}
    for mode in config.modes:
        alone = {"penalized": False} if mode == methods.GRADIENT_DESCENT else {}
        for start in ({"start": USUAL}, lazy):
            yield from ({"mode": mode, **start, **alone, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="loss-curves",
    full=LossCurves(),
    quick=LossCurves(
        train_rows=300, test_rows=600, width=150, steps=40, first_order_steps=1000, points=60,
        rates=(10.0, 40.0, 160.0), adam_rates=(1e-2, 1e-1),
    ),
    tiny=LossCurves(
        train_rows=40, test_rows=60, inputs=4, teacher_width=2, width=16, steps=10, first_order_steps=60, points=20,
        rates=(1.0, 5.0, 1000.0), adam_rates=(0.05,),
    ),
    cells=cells,
    measure=students.measure,
    cost=lambda config, cell: config.steps if cell["mode"] not in methods.FIRST_ORDER else 0.3 * config.steps,
    notes=(*students.NOTES, "Gradient descent minimises the data loss alone, as published."),
    program=lambda cell: cell["mode"],
    seeds=1,
    timed=True,
)  # fmt: skip
