"""When a run is done: relative decrease, Newton decrement, rejected steps."""

from ._status import RunStatus, StepStatus

# Steps in a row that must agree before a run ends: one short step is often followed by a long one.
_PATIENCE = 3


class StoppingRule:
    """Counts the steps in a row that ask for an end.

    Converged when for three steps the objective fell by less than tolerance·|F| at a settled strength; stationary when
    ½ decrement² is below tolerance²·|F| at a settled strength, or the step's own status says so.
    """

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self._small = 0
        self._failed = 0

    def observe(
        self, record: dict[str, float], previous: float, current: float, *, settled: bool = True
    ) -> RunStatus | None:
        """The reason to stop after this step, or None.

        Args:
            record: what the step reports.
            previous: F before it.
            current: F after it.
            settled: whether the strength has stopped moving.
        """
        status = StepStatus(int(record["status"]))
        if status == StepStatus.NONFINITE_START:
            return RunStatus.NONFINITE
        if status == StepStatus.STATIONARY:
            return RunStatus.STATIONARY if settled else None
        if status != StepStatus.ACCEPTED:
            self._failed += 1
            failure = status == StepStatus.FACTORIZATION_FAILED
            end = RunStatus.FACTORIZATION_FAILED if failure else RunStatus.STALLED
            return end if self._failed >= _PATIENCE else None
        self._failed = 0
        if settled and 0.5 * record["decrement"] ** 2 <= self.tolerance**2 * abs(current):
            return RunStatus.STATIONARY
        small = abs(previous - current) <= self.tolerance * abs(current) and settled
        self._small = self._small + 1 if small else 0
        return RunStatus.CONVERGED if self._small >= _PATIENCE else None
