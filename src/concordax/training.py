"""`train`: the only Python loop over steps; batches, stopping, validation, callbacks, interrupts."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ._checks import check_data, check_training_options
from ._status import RunStatus
from ._types import Batch
from .batches import Batches
from .history import RunSetup, TrainResult, as_arrays
from .losses import AbstractLoss
from .optimizer import Algorithm, GGNState, make_algorithm
from .progress import ProgressBar
from .regularizers import AbstractRegularizer
from .solvers import AbstractSolver, Auto
from .steps import AbstractStep
from .stopping import StoppingRule
from .strength import AbstractStrength
from .system import data_loss
from .trust_region import TrustRegion

_LOG = logging.getLogger("concordax")
# Steps in a row that conjugate gradients may miss before the run goes on without them.
_PATIENCE = 3

Callback = Callable[[int, dict[str, float]], Any]


@eqx.filter_jit
def _step(algorithm: Algorithm, state: GGNState, params: PyTree, batch: Batch) -> tuple[PyTree, GGNState]:
    # A module's function with the parts as arguments: equal parts and shapes share one program over all runs.
    updates, state = algorithm.update(state, params, batch)
    return jax.tree.map(jnp.add, params, updates), state


@eqx.filter_jit
def _validate(algorithm: Algorithm, params: PyTree, batch: Batch):
    return data_loss(algorithm.loss, algorithm.model(params, batch.inputs), batch)


def train(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    params: PyTree,
    data: tuple[Any, Any],
    *,
    strength: float | AbstractStrength,
    solver: AbstractSolver = Auto(),
    step: AbstractStep = TrustRegion(),
    damping: float = 0.0,
    weights=None,
    max_steps: int = 100,
    tolerance: float = 1e-6,
    batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
    validation: tuple[Any, Any] | tuple[Any, Any, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
    state: GGNState | None = None,
) -> TrainResult:
    """Trains until the objective settles, a callback says so, Ctrl-C, or `max_steps`.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        loss: a loss, as an object.
        regularizer: a regularizer, as an object.
        params: where to start.
        data: (inputs, targets), n rows each.
        strength: τ > 0, or `Evidence()`.
        solver: how the linear systems are solved.
        step: the step rule.
        damping: λ ≥ 0 added to every solve.
        weights: [n] from 0 up; 2 counts a row twice, 0 leaves it out.
        max_steps: steps at most.
        tolerance: relative decrease of F below which, three times in a row, the run has converged; 0 never stops, not
            even when the score of an adaptive strength, or the validation loss under one, has passed its peak.
        batch_size: rows a step; None for all. Rows are shuffled by `key` each epoch, the last batch is filled up with
            rows of weight 0. Convergence is judged on means over epochs.
        key: the random key for mini-batches.
        validation: (inputs, targets), or with weights as a third, whose loss is recorded and chooses `best_params`.
        callbacks: called as callback(step, record) after each step; one that returns True ends the run.
        progress: whether to draw a progress bar (needs `rich`).
        state: an optimizer's state to go on from.

    Returns:
        A `TrainResult`.

    Raises:
        ValueError, TypeError: for data or options out of range; see the message.

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.numpy.linspace(-1, 1, 30)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(10,))
        >>> start = model.init(jax.random.key(0))
        >>> result = cx.train(model, cx.SquaredError(), cx.L2(), start, (x, x**2), strength=1e-6, max_steps=20)
        >>> bool(result.history["loss"][-1] < 1e-4)
        True
    """
    algorithm = make_algorithm(model, loss, regularizer, strength=strength, solver=solver, step=step, damping=damping)
    check_training_options(max_steps, tolerance, batch_size, key)
    check_data(*data, weights)
    batch = algorithm.batch(params, *data, weights)
    loss.check(np.asarray(data[1]), batch.targets.shape[1])
    held_out = None
    if validation is not None:
        inputs, targets, *rest = validation
        check_data(inputs, targets, *(rest or [None]))
        held_out = algorithm.batch(params, inputs, targets, *rest)
        loss.check(np.asarray(targets), held_out.targets.shape[1])
    batches = Batches(batch, batch_size, key)
    adaptive = algorithm.strength.is_adaptive
    if adaptive and not batches.full:
        raise ValueError(
            f"`train(strength={strength!r}, batch_size={batch_size})`: the evidence is that of all rows; "
            "use batch_size=None, or a number as strength."
        )
    shape = algorithm.shape(params, batches.example)
    reason = algorithm.solver.explain(shape)
    _LOG.info("solver: %s", reason)
    algorithm = eqx.tree_at(lambda a: a.solver, algorithm, algorithm.solver.resolve(shape))
    run = _Run(algorithm, held_out, reason, comparable=not adaptive and batches.full)
    rule = StoppingRule(tolerance)
    state = algorithm.init(params) if state is None else state
    observers = [*callbacks, *([ProgressBar(max_steps)] if progress else [])]
    try:
        result = run.loop(params, state, batches, max_steps, rule, observers)
        return result._replace(setup=RunSetup(algorithm, batch, batches.full))
    finally:
        for observer in observers:
            getattr(observer, "close", lambda: None)()


class _Candidate(NamedTuple):
    """Parameters that may be the best of a run: the lower the rank, the better; infinite where nothing ranks them."""

    rank: float
    params: Any
    step: int
    strength: float


class _Run:
    """The state of one run; `loop` is the loop."""

    def __init__(self, algorithm: Algorithm, held_out: Batch | None, reason: str, *, comparable: bool):
        # Two programs, the second compiled when a step needs it.
        self.algorithm = eqx.tree_at(lambda a: a.solver, algorithm, algorithm.solver.alone)
        self.backup = eqx.tree_at(lambda a: a.solver, algorithm, algorithm.solver.backup)
        self.misses = 0
        self.held_out, self.reason, self.comparable = held_out, reason, comparable
        self.records: list[dict[str, float]] = []

    def loop(self, params, state, batches: Batches, max_steps, rule: StoppingRule, observers) -> TrainResult:
        """Steps until something ends it."""
        start = time.perf_counter()
        best = _Candidate(math.inf, params, 0, float(state.info.strength))
        status = None
        try:
            for number, batch in zip(range(1, max_steps + 1), batches, strict=False):
                before = _Candidate(math.inf, params, number - 1, float(state.info.strength))
                # One assignment: an interrupt leaves either the old pair or the new one.
                params, state = self._advance(params, state, batch)
                record = self._record(state, params, time.perf_counter() - start)
                self.records.append(record)
                best = self._best(best, before, _Candidate(math.inf, params, number, record["strength"]), state)
                wishes = [observer(number, dict(record)) for observer in observers]
                status = self._reason(rule, batches, state, number - best.step)
                status = RunStatus.STOPPED_BY_CALLBACK if any(wish is True for wish in wishes) else status
                if status is not None:
                    break
        except KeyboardInterrupt:
            status = RunStatus.INTERRUPTED
        status = RunStatus.MAX_STEPS if status is None else status
        return TrainResult(params, *best[1:], status, as_arrays(self.records), state, self.reason)

    def _advance(self, params, state: GGNState, batch: Batch):
        """One step; one whose solver missed its tolerance is taken again by the solver behind it, and says so."""
        spent = 0
        if self.misses < _PATIENCE:
            moved, new = _step(self.algorithm, state, params, batch)
            if new.info.solver_converged or self.backup.solver == self.algorithm.solver:
                self.misses = 0
                return moved, new
            self.misses += 1
            spent = new.info.solver_iterations
            if self.misses == _PATIENCE:
                _LOG.info(
                    "conjugate gradients missed their tolerance %d times in a row: %r from here", _PATIENCE,
                    self.backup.solver,
                )  # fmt: skip
        moved, new = _step(self.backup, state, params, batch)
        info = new.info._replace(
            handed_over=jnp.ones_like(new.info.handed_over), solver_iterations=new.info.solver_iterations + spent
        )
        return moved, new._replace(info=info)

    def _best(self, best: _Candidate, before: _Candidate, after: _Candidate, state: GGNState) -> _Candidate:
        """The better of the best so far and what this step ranks."""
        record = self.records[-1]
        if self.held_out is not None:
            candidate = after._replace(rank=record["validation_loss"])
        elif self.comparable:
            candidate = after._replace(rank=record["objective"])
        else:
            # A strength scores the point that a step starts from.
            score = float(state.strength_rule.score)
            candidate = before._replace(rank=-score) if math.isfinite(score) else after
        return candidate if candidate.rank < best.rank or math.isinf(best.rank) else best

    def _reason(self, rule: StoppingRule, batches: Batches, state: GGNState, since_best: int) -> RunStatus | None:
        """Whether to stop: judged each step on the full batch, else on the mean objectives of whole epochs."""
        record = self.records[-1]
        if batches.full:
            settled = self.algorithm.strength.is_settled(state.strength_rule)
            scored = self.algorithm.strength.is_adaptive
            return rule.observe(
                record, float(state.info.objective), record["objective"],
                settled=settled, since_peak=since_best if scored else 0,
            )  # fmt: skip
        objectives = [r["objective"] for r in self.records]
        size = batches.an_epoch
        if len(objectives) % size or len(objectives) < 2 * size:
            return None
        last, current = np.mean(objectives[-2 * size : -size]), np.mean(objectives[-size:])
        return rule.observe({**record, "decrement": np.inf}, float(last), float(current))

    def _record(self, state: GGNState, params, seconds: float) -> dict[str, float]:
        info = jax.device_get(state.info)._asdict()
        record = {name: float(value) for name, value in info.items()}
        record["loss"], record["objective"] = record.pop("new_loss"), record.pop("new_objective")
        record["seconds"] = seconds
        record["validation_loss"] = np.nan
        if self.held_out is not None:
            record["validation_loss"] = float(_validate(self.algorithm, params, self.held_out))
        return record
