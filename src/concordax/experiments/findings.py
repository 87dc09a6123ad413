"""What the records say: a line a claim or question, with a verdict that follows from numbers by a stated rule."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from . import claims, open_questions
from .finding import Cell, Finding
from .record import Record

_FINDERS: Mapping[str, Callable[[Sequence[Cell]], Iterator[Finding]]] = {
    "loss-curves": claims.loss_curves,
    "strength-sweep": claims.strength,
    "smoothing-sweep": claims.smoothing,
    "mnist": claims.digits,
    "fashion-mnist": claims.digits,
    "mnist-teacher-student": claims.imitation,
    "uci": claims.tables,
    "widths": open_questions.widths,
    "regularizers": open_questions.regularizers,
    "architectures": open_questions.architectures,
    "classification-losses": open_questions.class_losses,
    "step-cost": open_questions.step_cost,
    "ntk": claims.kernels,
}


def findings(records: Mapping[str, Record]) -> list[Finding]:
    """All findings for which there are records.

    Args:
        records: by the experiments' names.

    Returns:
        The findings, in the order of the experiments.
    """
    return [finding for name, find in _FINDERS.items() if name in records for finding in find(records[name].curves)]
