"""What a finding is, and how it reads the cells of a record."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import methods

HOLDS, PARTLY, FAILS, OPEN = "holds", "holds in part", "does not hold", "answered"
# Beyond any loss that means something.
_BOUNDS = 1e9
MODES = (methods.PUBLISHED, methods.CORRECTED, methods.TRUST_REGION)

Cell = Mapping[str, Any]


class Finding(NamedTuple):
    """One line of the table.

    Attributes:
        claim: the claim, or the question that the paper leaves open.
        where: where it is made.
        published: what the published step did.
        corrected: what it does without the wrong damping.
        ours: what the trust region, or the evidence, did.
        verdict: one of `HOLDS`, `PARTLY`, `FAILS`, `OPEN`.
        rule: how the verdict follows.
    """

    claim: str
    where: str
    published: str
    corrected: str
    ours: str
    verdict: str
    rule: str


def found(claim: str, where: str, *rest: str) -> Finding:
    """A finding from its words in their order, of which some come as the words of all modes."""
    published, corrected, ours, verdict, rule = rest
    return Finding(claim, where, published, corrected, ours, verdict, rule)


def of(cells: Sequence[Cell], **wanted: Any) -> list[Cell]:
    """The cells that have these values."""
    return [cell for cell in cells if all(cell.get(name) == value for name, value in wanted.items())]


def last(cells: Sequence[Cell], name: str) -> float:
    """The median over seeds of the last number of a curve; NaN without cells, infinite where most are not finite."""
    values = [cell[name][-1] if isinstance(cell[name], list) else cell[name] for cell in cells]
    return float(statistics.median(math.inf if value is None else value for value in values)) if values else math.nan


def by(cells: Sequence[Cell], name: str, value: str) -> dict[float, float]:
    """The median of the last numbers for each value of a swept name."""
    places = sorted({cell[name] for cell in cells if name in cell})
    return {float(place): last(of(cells, **{name: place}), value) for place in places}


def first_below(cell: Cell, loss: float) -> tuple[float, float]:
    """Steps and seconds at which the training loss is first at or below this; infinite where never."""
    for step, seconds, value in zip(cell["iteration"], cell["seconds"], cell["train_loss"], strict=True):
        if value is not None and value <= loss:
            return float(step), float(seconds)
    return math.inf, math.inf


def told(value: float) -> str:
    """A number to three digits, or a word for one that is not; no digits of a loss that has left all bounds."""
    if math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"over {_BOUNDS:.0e}" if value > _BOUNDS else f"{value:.3g}"


def rank_correlation(curve: Mapping[float, float]) -> float:
    """Spearman's."""
    if len(curve) < 2:
        return math.nan
    x, y = (np.argsort(np.argsort(values)) for values in (list(curve), list(curve.values())))
    return float(np.corrcoef(x, y)[0, 1])
