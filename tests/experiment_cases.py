"""A tiny configuration, its run without interruption, and ways to stop a run."""

import contextlib
import functools
import json
import logging
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from concordax.experiments import loss_curves
from concordax.experiments.loss_curves import LossCurves
from concordax.experiments.record import Record

TINY = LossCurves.tiny()
MODES = ["published", "corrected", "trust region", "gradient descent"]


class _Log(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def compilations():
    """Messages of the programs that are compiled meanwhile."""
    log, logger = _Log(), logging.getLogger("jax")
    logger.addHandler(log)
    try:
        with jax.log_compiles():
            yield log.lines
    finally:
        logger.removeHandler(log)


class Outcome(NamedTuple):
    """A record, its file's content, its folder's name, and what was compiled while the clock ran."""

    record: Record
    text: str
    folder: str
    on_the_clock: list[str]


@functools.cache
def uninterrupted() -> Outcome:
    """The tiny run."""
    on_the_clock = []
    original = loss_curves._advance

    def watched(step, state, steps, batch):
        with compilations() as lines:
            result = original(step, state, steps, batch)
        on_the_clock.extend(line for line in lines if int(steps) > 0 and line.startswith("Compiling"))
        return result

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(loss_curves, "_advance", watched)
        record = loss_curves.run(Path(folder), config=TINY)
        return Outcome(record, Path(folder, "loss-curves.json").read_text(encoding="utf-8"), folder, on_the_clock)


def without_seconds(result):
    return [{name: value for name, value in curve.items() if name != "seconds"} for curve in result.curves]


def same(left, right):
    """Equality of nested values in which NaN equals NaN."""
    return json.dumps(left) == json.dumps(right)


def stopping_after(calls, error):
    """A progress callback that raises `error` at its call number `calls`."""
    left = iter(range(calls - 1))

    def progress(*_):
        if next(left, None) is None:
            raise error

    return progress
