"""What a run leaves behind, and the clock that all peers share: it stands still while the loss is evaluated."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from workloads import Workload

Advance = Callable[[Any, int], Any]
"""(state, number of steps) -> state, finished when it returns."""

# Steps between two points of a curve, as a share of those done: a time is known to a twentieth at worst.
_RESOLUTION = 20
# Cheap steps are not looked at more often than this, so that looking costs little.
_LEAST_SECONDS = 2e-3


class CannotRun(Exception):
    """A peer cannot train this workload; the message says why."""


@dataclass
class Trace:
    """A run: seconds since the start and training losses, the first of them before any step."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def add(self, seconds: float, loss: float, steps: int) -> None:
        """One more point."""
        self.seconds.append(seconds)
        self.losses.append(loss)
        self.steps.append(steps)

    def ended(self, workload: Workload, limit: float) -> bool:
        """Whether nothing is left to see: well below the lowest level, out of time, or diverged."""
        loss = self.losses[-1]
        return not math.isfinite(loss) or loss <= workload.levels[-1] / 10 or self.seconds[-1] >= limit

    def time_to(self, level: float) -> float | None:
        """Seconds to the first point at or below a loss, None if there is none."""
        return next((s for s, loss in zip(self.seconds, self.losses, strict=True) if loss <= level), None)


def follow(advance: Advance, state: Any, loss: Callable[[Any], float], workload: Workload, limit: float) -> Trace:
    """Advances until there is nothing left to see; the clock runs during `advance` alone.

    Args:
        advance: takes a number of steps.
        state: where to start.
        loss: the training loss at a state.
        workload: for its levels.
        limit: seconds on the clock.

    Returns:
        The trace.
    """
    trace = Trace()
    trace.add(0.0, float(loss(state)), 0)
    steps, seconds, chunk = 0, 0.0, 1
    while not trace.ended(workload, limit):
        start = time.perf_counter()
        state = advance(state, chunk)
        spent = time.perf_counter() - start
        steps, seconds = steps + chunk, seconds + spent
        trace.add(seconds, float(loss(state)), steps)
        chunk = max(1, steps // _RESOLUTION, 2 * chunk if spent < _LEAST_SECONDS else 1)
    return trace


def compiled_loop(step: Callable[[Any], Any]) -> Advance:
    """Any number of steps of a JAX function as one program: no Python between them.

    Args:
        step: state -> state, arrays only.

    Returns:
        The loop.
    """
    loop = jax.jit(lambda state, count: jax.lax.fori_loop(0, count, lambda _, each: step(each), state))
    return lambda state, count: jax.block_until_ready(loop(state, count))


def python_loop(step: Callable[[Any], Any]) -> Advance:
    """The same one call at a time, for steps that are no JAX function or whose state changes its shape."""

    def advance(state: Any, count: int) -> Any:
        for _ in range(count):
            state = step(state)
        return jax.block_until_ready(state)

    return advance


def runner(advance: Advance, start: Callable[[], Any], loss: Callable[[Any], float], workload: Workload, warm: int = 2):
    """Compiles by a few steps that are thrown away; returns run(limit) -> Trace, each from the start anew.

    Args:
        advance: takes a number of steps.
        start: makes the state before the first step.
        loss: the training loss at a state.
        workload: for its levels.
        warm: steps to throw away, one at a time.

    Returns:
        The run.
    """
    state = start()
    for _ in range(warm):
        state = advance(state, 1)
    loss(state)
    return lambda limit: follow(advance, start(), loss, workload, limit)
