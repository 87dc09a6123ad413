"""`train`: the only Python loop over steps; batches, stopping, validation, callbacks, interrupts."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._checks import check_data, check_training_options
from ._status import RunStatus, StepStatus
from ._types import Batch
from .adaptive_strength import AbstractAdaptiveStrength
from .batches import Batches, Stream, StreamBatches
from .compilation import Jitted
from .first_order import FirstOrder, make_first_order
from .hand_over import Programs
from .history import RunSetup, TrainResult, as_arrays
from .losses import AbstractLoss
from .observers import Observer, RunView
from .optimizer import Algorithm, GGNState, StepInfo, make_algorithm
from .progress import ProgressBar
from .regularizers import AbstractRegularizer
from .solvers import AbstractSolver, Auto
from .steps import AbstractStep
from .stochastic_trust_region import StochasticTrustRegion
from .stopping import StoppingRule
from .strength import AbstractStrength
from .system import data_loss

_LOG = logging.getLogger("concordax")

Callback = Callable[[int, dict[str, float]], Any]


@Jitted
def _step(algorithm: Algorithm | FirstOrder, state: GGNState, params: PyTree, batch: Batch) -> tuple[PyTree, GGNState]:
    # A module's function with the parts as arguments: equal parts and shapes share one program over all runs.
    updates, state = algorithm.update(state, params, batch)
    return jax.tree.map(jnp.add, params, updates), state


# Some twenty numbers, one dispatch in place of as many: 0.2 ms for 2.3, a tenth of a step at N = 500.
@Jitted
def _initial(algorithm: Algorithm | FirstOrder, params: PyTree) -> GGNState:
    return algorithm.init(params)


# One array is fetched in a tenth of the time of twenty.
@jax.jit
def _packed(info: StepInfo) -> Float[Array, " fields"]:
    return jnp.stack([value.astype(info.loss.dtype) for value in info])


@Jitted
def _validate(algorithm: Algorithm | FirstOrder, params: PyTree, batch: Batch):
    return data_loss(algorithm.loss, algorithm.model(params, batch.inputs), batch)


@Jitted
def _averaged(algorithm: Algorithm, state: GGNState, params: PyTree) -> PyTree:
    average = algorithm.step.average(state.rule)
    return params if average is None else ravel_pytree(params)[1](average)


def train(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    params: PyTree,
    data: tuple[Any, Any] | Stream | Iterable | Callable[[], Iterable],
    *,
    strength: float | AbstractStrength,
    solver: AbstractSolver = Auto(),
    step: AbstractStep | None = None,
    damping: float = 0.0,
    optimizer: Any = None,
    weights=None,
    max_steps: int = 100,
    tolerance: float = 1e-6,
    batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
    validation: tuple[Any, Any] | tuple[Any, Any, Any] | None = None,
    callbacks: Sequence[Callback | Observer] = (),
    progress: bool = False,
    state: GGNState | None = None,
) -> TrainResult:
    """Trains until the objective settles, a callback says so, Ctrl-C, or `max_steps`.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        loss: a loss, as an object.
        regularizer: a regularizer, as an object.
        params: where to start.
        data: (inputs, targets), n rows each; or what brings them batch by batch, a `Stream` or what one is made of.
        strength: τ > 0, or `Evidence()`.
        solver: how the linear systems are solved.
        step: the step rule; by default `TrustRegion()` on all rows, with `damping_rule=GainRatio()`,
            `corrections=0` and `damp_in_hessian=True` where the strength moves, and `StochasticTrustRegion()` on
            mini-batches.
        damping: λ ≥ 0 added to every solve.
        optimizer: an optax optimizer that takes the place of solver, step and damping: `optax.adam(1e-3)`, or
            `optax.lbfgs()` on all rows. Fields of the history that it has nothing for are NaN.
        weights: [n] from 0 up; 2 counts a row twice, 0 leaves it out.
        max_steps: steps at most.
        tolerance: relative decrease of F below which, three times in a row, the run has converged; 0 never stops, not
            even when the score of an adaptive strength, or the validation loss under one, has passed its peak.
        batch_size: rows a step; None for all. Rows are shuffled by `key` each epoch, the last batch is filled up with
            rows of weight 0. Convergence is judged on means over epochs.
        key: the random key for mini-batches.
        validation: (inputs, targets), or with weights as a third, whose loss is recorded and chooses `best_params`.
        callbacks: called as callback(step, record) after each step; one that returns True ends the run. An `Observer`
            among them, as `ntk.Monitor`, sees parameters, rows and parts as well, and the start before the first step.
        progress: whether to draw a progress bar (needs `rich`).
        state: that of an earlier run, or of the optimizer, to go on from. An adaptive strength goes on from the one in
            it; a number, or a schedule, is as given here.

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
    check_training_options(max_steps, tolerance, batch_size, key)
    if optimizer is None:
        algorithm = make_algorithm(
            model, loss, regularizer, strength=strength, solver=solver, step=step, damping=damping
        )
    else:
        refused = {"solver": solver != Auto(), "step": step is not None, "damping": damping != 0}
        algorithm = make_first_order(model, loss, regularizer, strength=strength, optimizer=optimizer, refused=refused)
    batches = _batches(algorithm, params, data, weights, batch_size, key)
    held_out = None
    if validation is not None:
        inputs, targets, *rest = validation
        held_out = _checked(algorithm, params, inputs, targets, *rest)
    if isinstance(algorithm.strength, AbstractAdaptiveStrength) and not batches.full:
        raise ValueError(
            f"`train(strength={strength!r}, batch_size={batch_size})`: the evidence is that of all rows; "
            "use batch_size=None and arrays as data, or a strength that is known in advance."
        )
    if step is None and isinstance(algorithm, Algorithm) and not batches.full:
        algorithm = replace(algorithm, step=StochasticTrustRegion())
    algorithm, reason = _resolved(algorithm, params, batches)
    run = _Run(algorithm, reason, held_out, full=batches.full)
    rule = StoppingRule(tolerance)
    state = _initial(algorithm.parametrized(), params) if state is None else state.under(algorithm.strength)
    observers = [*callbacks, *([ProgressBar(max_steps)] if progress else [])]
    try:
        result = run.loop(params, state, batches, max_steps, rule, observers)
        if isinstance(algorithm, FirstOrder):
            return result
        return result._replace(setup=RunSetup(algorithm, batches.sample, batches.full))
    finally:
        for observer in observers:
            getattr(observer, "close", lambda: None)()


def _told(observer: Callback | Observer, view: RunView) -> Any:
    """What a callback or an observer answers; each gets a record of its own, which it may change."""
    if isinstance(observer, Observer):
        return observer.observe(view._replace(record=dict(view.record)))
    return observer(view.step, dict(view.record))


def _is_true(wish: Any) -> bool:
    """Whether an answer is True, Python's or NumPy's: other things that callbacks return by the way are no wishes."""
    return isinstance(wish, (bool, np.bool_)) and bool(wish)


def _checked(algorithm: Algorithm | FirstOrder, params: PyTree, inputs, targets, weights=None) -> Batch:
    check_data(inputs, targets, weights)
    batch = algorithm.batch(params, inputs, targets, weights)
    algorithm.loss.check(np.asarray(targets), batch.targets.shape[1])
    return batch


def _batches(algorithm, params, data, weights, batch_size, key) -> Batches | StreamBatches:
    """The rows in the order of the run: those of two arrays, or what a stream brings."""
    if isinstance(data, tuple):
        inputs, targets = data
        return Batches(_checked(algorithm, params, inputs, targets, weights), batch_size, key)
    given = [name for name, value in (("batch_size", batch_size), ("weights", weights)) if value is not None]
    if given:
        raise ValueError(f"`train({given[0]}=...)` belongs to arrays; a stream brings batches with weights of its own.")
    stream = data if isinstance(data, Stream) else Stream(data)
    return StreamBatches(stream, algorithm.loss, lambda *rows: algorithm.batch(params, *rows))


def _resolved(algorithm, params, batches: Batches | StreamBatches) -> tuple[Algorithm | FirstOrder, str]:
    """The algorithm with the solver that runs, and why."""
    if isinstance(algorithm, FirstOrder):
        return algorithm, "none: an optax optimizer solves no system"
    solver, reason = algorithm.solver.choice(algorithm.shape(params, batches.example))
    _LOG.info("solver: %s", reason)
    return replace(algorithm, solver=solver), reason


class _Candidate(NamedTuple):
    """Parameters that may be the best of a run: the lower the rank, the better; infinite where nothing ranks them."""

    rank: float
    params: Any
    step: int
    strength: float


class _Run:
    """The state of one run; `loop` is the loop."""

    def __init__(self, algorithm: Algorithm | FirstOrder, reason: str, held_out: Batch | None, *, full: bool):
        self.adaptive = algorithm.strength.is_adaptive
        # A path of strengths compiles once: τ itself is in the state.
        algorithm = replace(algorithm, strength=algorithm.strength.program)
        self.programs = Programs(algorithm)
        self.algorithm = self.programs.first
        self.judged = 0
        self.held_out, self.reason, self.full = held_out, reason, full
        self.records: list[dict[str, float]] = []

    def loop(self, params, state, batches: Batches | StreamBatches, max_steps, rule: StoppingRule, observers):
        """Steps until something ends it; returns the `TrainResult`."""
        start = time.perf_counter()
        best = _Candidate(math.inf, params, 0, float(state.info.strength))
        status = None
        watchers = [observer for observer in observers if isinstance(observer, Observer)]
        view = RunView(0, {}, params, params, batches.sample, batches.sample, self.algorithm, state, params)
        try:
            for watcher in watchers:
                watcher.begin(view)
            for number, batch in zip(range(1, max_steps + 1), batches, strict=False):
                before = _Candidate(math.inf, params, number - 1, float(state.info.strength))
                # One assignment: an interrupt leaves either the old pair or the new one.
                params, state = self.programs.advance(_step, params, state, batch)
                shown = self._shown(params, state)
                record = self._record(state, shown, time.perf_counter() - start)
                self.records.append(record)
                best = self._best(best, before, _Candidate(math.inf, shown, number, record["strength"]), state)
                view = RunView(
                    number, dict(record), params, before.params, batch, batches.sample, self.algorithm, state, shown
                )
                wishes = [_told(observer, view) for observer in observers]
                status = self._reason(rule, batches, state, number - best.step)
                status = RunStatus.STOPPED_BY_CALLBACK if any(_is_true(wish) for wish in wishes) else status
                if status is not None:
                    break
            for watcher in watchers:
                watcher.end(view)
        except KeyboardInterrupt:
            status = RunStatus.INTERRUPTED
        status = RunStatus.MAX_STEPS if status is None else status
        return TrainResult(params, *best[1:], status, as_arrays(self.records), state, self.reason)

    def _best(self, best: _Candidate, before: _Candidate, after: _Candidate, state: GGNState) -> _Candidate:
        """The better of the best so far and what this step ranks."""
        record = self.records[-1]
        if self.held_out is not None:
            candidate = after._replace(rank=record["validation_loss"])
        elif self.full and not self.adaptive:
            candidate = after._replace(rank=record["objective"])
        else:
            # A strength scores the point that a step starts from.
            score = float(state.strength_rule.score)
            candidate = before._replace(rank=-score) if math.isfinite(score) else after
        return candidate if candidate.rank < best.rank or math.isinf(best.rank) else best

    def _shown(self, params, state: GGNState):
        """The parameters to judge: on mini-batches the rule's mean of late iterates, where it keeps one."""
        if self.full or not isinstance(self.algorithm, Algorithm):
            return params
        return _averaged(self.algorithm, state, params)

    def _reason(self, rule: StoppingRule, batches, state: GGNState, since_best: int) -> RunStatus | None:
        """Whether to stop: judged each step on the full batch, else on the mean objectives of whole epochs."""
        record = self.records[-1]
        settled = self.algorithm.strength.is_settled(state.strength_rule)
        if batches.full:
            return rule.observe(
                record, float(state.info.objective), record["objective"],
                settled=settled, since_peak=since_best if self.adaptive else 0,
            )  # fmt: skip
        ends = [0, *batches.epochs]
        if len(ends) < 3 or len(ends) == self.judged:
            return None
        self.judged = len(ends)
        earlier, latest = (self.records[a:b] for a, b in zip(ends[-3:-1], ends[-2:], strict=True))
        last, current = (float(np.mean([r["objective"] for r in part])) for part in (earlier, latest))
        # A batch that refuses its step is nothing unusual; an epoch of nothing else is.
        taken = [r for r in latest if r["status"] == StepStatus.ACCEPTED]
        return rule.observe({**(taken or [record])[-1], "decrement": np.inf}, last, current, settled=settled)

    def _record(self, state: GGNState, params, seconds: float) -> dict[str, float]:
        record = dict(zip(state.info._fields, np.asarray(_packed(state.info)).tolist(), strict=True))
        after = record.pop("new_loss"), record.pop("new_objective")
        if self.full:
            record["loss"], record["objective"] = after
        record["seconds"] = seconds
        record["validation_loss"] = np.nan
        if self.held_out is not None:
            record["validation_loss"] = float(_validate(self.algorithm, params, self.held_out))
        return record
