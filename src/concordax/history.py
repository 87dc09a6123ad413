"""What a run records, a dictionary of numbers a step, and what it returns."""

from typing import Any, NamedTuple

import numpy as np

from ._status import RunStatus
from ._types import Batch

FIELDS = (
    "loss",
    "objective",
    "step_size",
    "damping",
    "decrement",
    "seconds",
    "strength",
    "noise",
    "effective_parameters",
    "effective_parameters_error",
    "log_evidence",
    "leave_one_out",
    "kkt_residual",
    "attempts",
    "solver_iterations",
    "solver_converged",
    "handed_over",
    "accepted",
    "status",
    "validation_loss",
)


class RunSetup(NamedTuple):
    """What a run was asked to do: its parts and its rows, from which `explain` finds out why it went as it did."""

    algorithm: Any
    batch: Batch
    full: bool


class TrainResult(NamedTuple):
    """A finished run.

    Attributes:
        params: the parameters after the last accepted step.
        best_params: those with the lowest validation loss where validation rows were given; else those with the best
            score where the strength scores them (`Evidence`), or the lowest objective where objectives can be compared
            (a fixed strength, the full batch); else the last. On mini-batches a rule that keeps a mean of late
            iterates, as `StochasticTrustRegion` does, has that mean judged and returned in place of its single steps.
        best_step: steps taken when they were reached.
        best_strength: the strength they belong to.
        status: why the run ended; `status.message` is a sentence.
        history: 1-d arrays, one entry a step: `loss` and `objective` after the step (before it for mini-batches),
            `seconds` since the start, `validation_loss` NaN without validation rows, and so on; see `history.FIELDS`.
        state: the optimizer's state, to go on from.
        solver: which solver ran and why, a sentence; `history["handed_over"]` marks steps that took the direct one.
        setup: the parts and the rows of the run, which `explain` looks at.
    """

    params: Any
    best_params: Any
    best_step: int
    best_strength: float
    status: RunStatus
    history: dict[str, np.ndarray]
    state: Any
    solver: str
    setup: RunSetup | None = None


def as_arrays(records: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Records of steps as one array a field."""
    return {name: np.array([record[name] for record in records], float) for name in FIELDS}
