"""A wide student that learns the probabilities of a small trained teacher: the authors' `mnist-t-s`.

The teacher, 16 relu units, is trained by Adam on the balanced first 3000 rows; the student, 1024 silu units, learns its
softmax outputs on the same rows by squared error. The authors' code trains both on the test rows as well
(`data-utils.jl` appends them); here these are held out.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import concordax as cx

from . import classifiers, methods
from .digits import MNIST, Digits, cells, program
from .experiment import Experiment
from .sweep import Cell

_RATE, _BATCH = 1e-3, 64


@dataclass(frozen=True)
class Imitation(Digits):
    """The configuration; the defaults are those published.

    Args:
        rows: the first rows, from which as many of each class are kept as the rarest has.
        teacher_width: the teacher's hidden units.
        teacher_epochs: of its training.
    """

    datasets: tuple[str, ...] = ("mnist",)
    width: int = 1024
    epochs: int = 2
    rows: int = 3000
    teacher_width: int = 16
    teacher_epochs: int = 250


def imitation_cells(config: Imitation, seeds: int) -> Iterator[Cell]:
    """Those of `digits`, with the student's activation."""
    yield from ({**cell, "activation": "silu"} for cell in cells(config, seeds))


@functools.lru_cache(maxsize=2)
def _lesson(config: Imitation, dataset: str, data_dir: Path | None) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(inputs, the teacher's probabilities) for the rows to learn from and those to judge by."""
    data = classifiers.scaled(dataset, data_dir)
    x, y = data.X_train[: config.rows], data.y_train[: config.rows]
    fewest = np.bincount(y, minlength=len(data.labels)).min()
    kept = np.sort(np.concatenate([np.flatnonzero(y == label)[:fewest] for label in range(len(data.labels))]))
    teacher = cx.TwoLayer(x.shape[1], config.teacher_width, len(data.labels), activation="relu")
    steps = config.teacher_epochs * -(-len(kept) // _BATCH)
    start, order = jax.random.split(jax.random.key(0))
    result = cx.train(
        teacher, cx.SoftmaxCrossEntropy(), cx.L2(), jax.jit(teacher.init)(start), (x[kept], y[kept]), strength=1e-8,
        optimizer=optax.adam(_RATE), batch_size=_BATCH, key=order, max_steps=steps, tolerance=0.0,
    )  # fmt: skip

    def taught(inputs: np.ndarray) -> tuple[Any, Any]:
        return inputs, np.asarray(jax.nn.softmax(teacher(result.params, jnp.asarray(inputs)), axis=1))

    return taught(x[kept]), taught(data.X_test)


def measure(config: Imitation, cell: Mapping[str, Any], *, data_dir: Path | None) -> dict[str, Any]:
    """One student's course; accuracy is agreement with the teacher's class."""
    # All cells share a teacher, whatever their strengths are.
    common = replace(config, strengths=(), smoothings=(), modes=())
    return classifiers.train_on(config, cell, *_lesson(common, cell["dataset"], data_dir))


EXPERIMENT = Experiment(
    name="mnist-teacher-student",
    full=Imitation(),
    quick=Imitation(**{**vars(MNIST.quick), "width": 96, "epochs": 2}, rows=600, teacher_epochs=100),
    tiny=Imitation(
        **{**vars(MNIST.tiny), "modes": (methods.TRUST_REGION,), "baselines": (methods.ADAM,)},
        rows=300, teacher_epochs=3,
    ),
    cells=imitation_cells,
    measure=measure,
    cost=lambda *_: 1.0,
    notes=(*classifiers.NOTES, "Targets are the teacher's probabilities, accuracy is agreement with its class."),
    program=program,
    datasets=lambda config: config.datasets,
)  # fmt: skip
