"""Outcomes of a step and of a run, with their messages; the only place where a run-time failure text is written."""

from enum import IntEnum


class StepStatus(IntEnum):
    """What became of one step. Codes below 10 moved the parameters or need not; the others left them alone."""

    ACCEPTED = 0
    STATIONARY = 1
    REJECTED = 10
    NONFINITE_TRIAL = 11
    NONFINITE_START = 12
    FACTORIZATION_FAILED = 13

    @property
    def message(self) -> str:
        """A sentence for people."""
        return _STEP_MESSAGES[self]


_STEP_MESSAGES = {
    StepStatus.ACCEPTED: "The step was taken.",
    StepStatus.STATIONARY: "The model promises less than rounding can show: the parameters are stationary.",
    StepStatus.REJECTED: (
        "No trial lowered the objective, up to the largest damping or down to the shortest step tried; the parameters "
        "stay."
    ),
    StepStatus.NONFINITE_TRIAL: "The trial point had a non-finite objective; the parameters stay. Use TrustRegion().",
    StepStatus.NONFINITE_START: (
        "The objective or the Jacobian is not finite at the present parameters; the parameters stay. Causes: "
        "(a) non-finite or hugely scaled data, (b) weights out of the range of the dtype, (c) a model that returns NaN."
    ),
    StepStatus.FACTORIZATION_FAILED: (
        "The linear system could not be factorized by Cholesky, nor with a larger shift, nor by eigenvalues; the "
        "parameters stay. Use float64, or a larger strength or damping."
    ),
}


class RunStatus(IntEnum):
    """Why a run ended."""

    CONVERGED = 0
    STATIONARY = 1
    MAX_STEPS = 2
    STOPPED_BY_CALLBACK = 3
    INTERRUPTED = 4
    PEAKED = 5
    STALLED = 10
    NONFINITE = 11
    FACTORIZATION_FAILED = 12

    @property
    def message(self) -> str:
        """A sentence for people."""
        return _RUN_MESSAGES[self]

    @property
    def succeeded(self) -> bool:
        """True unless the run ended because steps failed."""
        return self < RunStatus.STALLED

    @property
    def by_the_user(self) -> bool:
        """True where someone, or a callback, asked for the end."""
        return self in (RunStatus.STOPPED_BY_CALLBACK, RunStatus.INTERRUPTED)


_RUN_MESSAGES = {
    RunStatus.CONVERGED: "Converged: the objective no longer falls by more than the tolerance.",
    RunStatus.STATIONARY: "Converged: the Newton decrement is within the tolerance or at the limit of the precision.",
    RunStatus.MAX_STEPS: "Stopped at max_steps before the tolerance was met.",
    RunStatus.STOPPED_BY_CALLBACK: "Stopped by a callback.",
    RunStatus.INTERRUPTED: "Interrupted by the user; the result is the state after the last whole step.",
    RunStatus.PEAKED: "Stopped: the score of strength and parameters is past its peak; the parameters there are kept.",
    RunStatus.STALLED: (
        "Stopped: steps were rejected one after another. Causes: (a) the precision is exhausted (use float64), "
        "(b) the model is not smooth where it stands, (c) a fixed step is too long (use TrustRegion())."
    ),
    RunStatus.NONFINITE: "Stopped: " + _STEP_MESSAGES[StepStatus.NONFINITE_START],
    RunStatus.FACTORIZATION_FAILED: "Stopped: " + _STEP_MESSAGES[StepStatus.FACTORIZATION_FAILED],
}
