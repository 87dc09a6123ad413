"""A run of `train` with its losses at a few of its steps, and an end where nothing moves any more."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import concordax as cx
from concordax.observers import Observer, RunView

from . import methods

# A run that moved by less than this over so many steps is over.
SETTLED, OVER = 1e-10, 20
# Steps without a safeguard have left for good at such a loss: of all runs that passed it none came back, while each
# further step may cost a hundred sound ones, for its system has no digits left and is factorized anew by other means.
DIVERGED = 1e12
FLOOR, LEFT = "loss floor", "diverged"
NOTE = (
    f"A run ends early when its objective has changed by less than {SETTLED:g} of itself over {OVER} steps "
    "(`ended`: settled), at a training loss of `loss_floor` (as in the authors' code) or above "
    f"{DIVERGED:g} ({LEFT}), or by itself."
)
Judge = Callable[[Any], Mapping[str, float]]


class Course(NamedTuple):
    """A finished run: its last parameters, and its curve and its end as JSON values."""

    params: Any
    numbers: dict[str, Any]


def points_up_to(steps: int, points: int) -> list[int]:
    """At most `points` steps from the first to the last, evenly spaced in their logarithm.

    Example:
        >>> points_up_to(100, 3)
        [1, 10, 100]
    """
    return np.unique(np.geomspace(1, steps, points).round().astype(int)).tolist()


class _Tracer(Observer):
    """Judges the parameters at some steps, off the clock, and ends a run that has settled."""

    def __init__(self, points: Sequence[int], judge: Judge, loss_floor: float, *, settles: bool):
        self.points, self.judge, self.loss_floor, self.settles = frozenset(points), judge, loss_floor, settles
        self.rows: list[dict[str, float]] = []
        self.objectives: list[float] = []
        self.spent = 0.0
        self.ended = ""
        self.last: Any = None

    def begin(self, view: RunView) -> None:
        began = time.perf_counter()
        self._judge(view)
        self.spent += time.perf_counter() - began

    def observe(self, view: RunView) -> bool | None:
        began = time.perf_counter()
        self.objectives.append(view.record["objective"])
        self.ended = self._end(view.record["loss"])
        if view.step in self.points or self.ended:
            self._judge(view)
        self.spent += time.perf_counter() - began
        return bool(self.ended)

    def end(self, view: RunView) -> None:
        if view.step != self.rows[-1]["iteration"]:
            self._judge(view)
        self.last = view.shown

    def _judge(self, view: RunView) -> None:
        seconds = view.record.get("seconds", 0.0) - self.spent if view.step else 0.0
        self.rows.append({"iteration": view.step, "seconds": seconds, **self.judge(view.shown)})

    def _end(self, loss: float) -> str:
        if not math.isfinite(self.objectives[-1]):
            return "not finite"
        if loss <= self.loss_floor:
            return FLOOR
        if loss > DIVERGED:
            return LEFT
        if self.settles and len(self.objectives) > OVER:
            now, then = self.objectives[-1], self.objectives[-1 - OVER]
            if abs(now - then) <= SETTLED * abs(now):
                return "settled"
        return ""


def run(
    parts: tuple[Any, Any, Any, Any],
    data: tuple[Any, Any],
    judge: Judge,
    *,
    steps: int,
    points: int,
    loss_floor: float = 0.0,
    **options: Any,
) -> Course:
    """Trains and records.

    Args:
        parts: model, loss, regularizer, start.
        data: (inputs, targets).
        judge: parameters -> numbers, recorded at each point of the curve.
        steps: at most.
        points: of the curve, besides the start.
        loss_floor: a training loss at which the run ends; on mini-batches nothing ends it.
        options: more for `train`.

    Returns:
        The run. `seconds` of the curve are those of the steps; what compiling took is in `compile_seconds`.
    """
    full = options.get("batch_size") is None
    began = time.perf_counter()
    # One step compiles all that the run needs.
    cx.train(*parts, data, max_steps=1, **options)
    compiling = time.perf_counter() - began
    tracer = _Tracer(points_up_to(steps, points), judge, loss_floor if full else -math.inf, settles=full)
    result = cx.train(*parts, data, max_steps=steps, tolerance=0.0, callbacks=[tracer], **options)
    columns = {name: [row[name] for row in tracer.rows] for name in tracer.rows[0]}
    taken = len(result.history["loss"])
    return Course(
        tracer.last,
        {
            **columns,
            "steps": taken,
            "ended": tracer.ended or ("steps" if taken == steps else result.status.name.lower()),
            "strength_chosen": float(result.history["strength"][-1]),
            "compile_seconds": compiling,
        },
    )


def best_of(
    mode: str,
    rates: Sequence[float],
    train: Callable[..., Course],
    *,
    strength: float,
    scale: float,
) -> Course:
    """The run of one way to train; where that needs a rate, the one that ends at the lowest training loss.

    Args:
        mode: a name of `methods`.
        rates: those to try.
        train: train(**options of `train`) -> a run, whose numbers hold `train_loss`.
        strength: τ.
        scale: the numerator of `PublishedStep`.

    Returns:
        The run; with a rate also `rate`, `tried` and `search_seconds`.
    """
    if not methods.needs_rate(mode):
        return train(**methods.options(mode, strength=strength, scale=scale))
    runs = [(rate, train(**methods.options(mode, strength=strength, scale=scale, rate=rate))) for rate in rates]
    tried = [{"rate": rate, "train_loss": course.numbers["train_loss"][-1]} for rate, course in runs]

    def rank(pair: tuple[float, Course]) -> float:
        loss = pair[1].numbers["train_loss"][-1]
        return loss if math.isfinite(loss) else math.inf

    rate, best = min(runs, key=rank)
    seconds = sum(course.numbers["seconds"][-1] for _, course in runs)
    return best._replace(numbers={**best.numbers, "rate": rate, "tried": tried, "search_seconds": seconds})
