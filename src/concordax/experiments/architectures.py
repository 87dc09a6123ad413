"""Depth 1 to 4 in NTK scaling, with smooth activations and one that is not."""

from collections.abc import Iterator
from dataclasses import dataclass

from . import methods, students
from .experiment import Experiment
from .students import TINY, Students
from .sweep import Cell


@dataclass(frozen=True)
class Architectures(Students):
    """The configuration.

    Args:
        depths: hidden layers, all of the same width.
        activations: names.
        modes: the ways to train.
        noise: standard deviation of the noise in the training targets.
    """

    train_rows: int = 200
    width: int = 100
    steps: int = 150
    strength: float = 1e-5
    depths: tuple[int, ...] = (1, 2, 3, 4)
    activations: tuple[str, ...] = ("relu", "silu", "tanh", "erf")
    modes: tuple[str, ...] = (
        methods.PUBLISHED, methods.CORRECTED, methods.TRUST_REGION, methods.EVIDENCE, methods.ADAM, methods.LBFGS,
    )  # fmt: skip
    noise: float = 0.05


def cells(config: Architectures, seeds: int) -> Iterator[Cell]:
    """One a depth, an activation, a way and a seed."""
    for depth in config.depths:
        for activation in config.activations:
            for mode in config.modes:
                network = {"depth": depth, "activation": activation, "noise": config.noise}
                yield from ({"mode": mode, **network, "seed": seed} for seed in range(seeds))


EXPERIMENT = Experiment(
    name="architectures",
    full=Architectures(),
    quick=Architectures(
        train_rows=60, test_rows=500, width=30, steps=30, first_order_steps=500, adam_rates=(1e-2, 1e-1),
        depths=(1, 3), activations=("relu", "tanh"), modes=(methods.CORRECTED, methods.TRUST_REGION, methods.ADAM),
    ),
    tiny=Architectures(
        **TINY, depths=(2,), activations=("erf",), modes=(methods.TRUST_REGION, methods.ADAM)
    ),
    cells=cells,
    measure=students.measure,
    cost=lambda _, cell: cell["depth"],
    notes=students.NOTES,
    program=lambda cell: (cell["mode"], cell["depth"], cell["activation"]),
)  # fmt: skip
