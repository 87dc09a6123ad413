"""When a run is done: relative decrease, Newton decrement, rejected steps."""

from ._status import RunStatus, StepStatus

# Steps in a row that must agree before a run ends: one short step is often followed by a long one.
_PATIENCE = 3


class StoppingRule:
    """Counts the steps in a row that ask for an end.

    Converged when for three steps the objective fell by less than tolerance·|F| and, where the strength moves, the
    strength by less than 1 %; stationary when ½ decrement² is below tolerance²·|F|, or the step's own status says so.
    """

    def __init__(self, tolerance: float, adaptive: bool):
        self.tolerance = tolerance
        self.adaptive = adaptive
        self._small = 0
        self._failed = 0
        self._strength = None

    def observe(self, record: dict[str, float], previous: float, current: float) -> RunStatus | None:
        """The reason to stop after this step, or None. `previous` and `current` are F before and after it."""
        status = StepStatus(int(record["status"]))
        if status == StepStatus.NONFINITE_START:
            return RunStatus.NONFINITE
        steady = self._steady(record["strength"])
        if status == StepStatus.STATIONARY:
            return RunStatus.STATIONARY if steady else None
        if status != StepStatus.ACCEPTED:
            self._failed += 1
            failure = status == StepStatus.FACTORIZATION_FAILED
            end = RunStatus.FACTORIZATION_FAILED if failure else RunStatus.STALLED
            return end if self._failed >= _PATIENCE else None
        self._failed = 0
        if steady and 0.5 * record["decrement"] ** 2 <= self.tolerance**2 * abs(current):
            return RunStatus.STATIONARY
        small = abs(previous - current) <= self.tolerance * abs(current) and steady
        self._small = self._small + 1 if small else 0
        return RunStatus.CONVERGED if self._small >= _PATIENCE else None

    def _steady(self, strength: float) -> bool:
        last, self._strength = self._strength, strength
        return not self.adaptive or (last is not None and abs(strength - last) <= 0.01 * last)
