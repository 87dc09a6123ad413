"""Every regularizer at equal effective strength: τ·h''(0), the curvature that each puts on a parameter near zero."""

from collections.abc import Iterator
from dataclasses import dataclass

from . import methods, students
from .experiment import Experiment
from .students import REGULARIZERS, TINY, Students
from .sweep import Cell


@dataclass(frozen=True)
class Penalties(Students):
    """The configuration.

    Args:
        curvatures: τ·h''(0).
        smoothings: μ; L2 has none and comes once.
        noise: standard deviation of the noise in the training targets.
    """

    train_rows: int = 200
    width: int = 200
    steps: int = 200
    curvatures: tuple[float, ...] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    smoothings: tuple[float, ...] = (0.1, 1.0)
    noise: float = 0.1


def cells(config: Penalties, seeds: int) -> Iterator[Cell]:
    """One a regularizer, a smoothing, a curvature and a seed."""
    for name in REGULARIZERS:
        for smoothing in config.smoothings[:1] if name == "L2" else config.smoothings:
            fixed = {"mode": methods.TRUST_REGION, "regularizer": name, "smoothing": smoothing, "noise": config.noise}
            for curvature in config.curvatures:
                yield from ({**fixed, "curvature": curvature, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="regularizers",
    full=Penalties(),
    quick=Penalties(train_rows=60, test_rows=500, width=40, steps=40, curvatures=(1e-6, 1e-4, 1e-2), smoothings=(1.0,)),
    tiny=Penalties(**TINY, curvatures=(1e-4,), smoothings=(1.0,)),
    cells=cells,
    measure=students.measure,
    cost=lambda *_: 1.0,
    notes=(
        *students.NOTES,
        "curvature: the strength times the mean over the parameters of h'' at zero, the same for all regularizers. "
        "units: a group pseudo-Huber, a group a hidden unit; box: from -2 to 2.",
    ),
    program=lambda cell: (cell["regularizer"], cell["seed"]),
)
