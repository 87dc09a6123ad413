"""When a run is done: relative decrease, Newton decrement, rejected steps."""

from ._status import RunStatus, StepStatus

# Steps in a row that must agree before a run ends: one short step is often followed by a long one.
_PATIENCE = 3
# Steps without a better score after which none is awaited: scores come every one to four steps.
_PAST_PEAK = 12


class StoppingRule:
    """Counts the steps in a row that ask for an end.

    Converged when for three steps the objective fell by less than tolerance·|F| at a settled strength; stationary when
    ½ decrement² is below tolerance²·|F| at a settled strength, or the step's own status says so; peaked when the
    strength's score, or the validation loss under an adaptive strength, has not improved for twelve steps.
    """

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self._small = 0
        self._failed = 0

    def observe(
        self, record: dict[str, float], previous: float, current: float, *, settled: bool = True, since_peak: int = 0
    ) -> RunStatus | None:
        """The reason to stop after this step, or None.

        Args:
            record: what the step reports.
            previous: F before it.
            current: F after it.
            settled: whether the strength has stopped moving.
            since_peak: steps since the strength's score or the validation loss was at its best; 0 where there is none.
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
        if self._small >= _PATIENCE:
            return RunStatus.CONVERGED
        return RunStatus.PEAKED if since_peak >= _PAST_PEAK and self.tolerance > 0 else None
