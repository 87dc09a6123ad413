"""Loss against steps and seconds on the synthetic problem, for four ways to train: figure 1 of arXiv 2404.14875.

The modes: "published" (the authors' step, with damping 1 − τ), "corrected" (the same without damping), "trust region"
(this library's default) and "gradient descent" (on the data loss alone, the best of a few rates).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import concordax as cx
from concordax._types import Batch
from concordax.errors import UsageError
from concordax.optimizer import Algorithm, make_algorithm

from . import checkpoint
from .checkpoint import Run
from .record import Record, machine, versions
from .synthetic import TeacherStudent, teacher_student

NAME = "loss-curves"
GRADIENT_DESCENT = "gradient descent"
SAVE_EVERY = 20.0
"""Seconds between two checkpoints of a run."""

# A step of gradient descent as a share of a Gauss-Newton step's time, for the progress bar alone.
_CHEAP = 0.01
_NOTES = [
    "Losses are the data term alone: half the squared error, a mean over the rows. What the trust region never lets "
    "rise is the sum of data term and regularizer.",
    "Seconds are those of the steps: compilation, the evaluation of the two losses and the writing of checkpoints are "
    "left out. Those of gradient descent are of its best rate, without the search for it.",
    "published: damping 1 - strength and PublishedStep; corrected: PublishedStep without damping; trust region: "
    "TrustRegion without damping; gradient descent: full batch, no regularizer, the rate with the lowest final "
    "training loss of those in `tried`.",
]


@dataclass(frozen=True)
class LossCurves:
    """The configuration; the defaults are the published problem.

    Args:
        train_rows: training rows.
        test_rows: test rows.
        inputs: input features.
        teacher_width: hidden units of the teacher.
        width: hidden units of the student; the smoothing is its square root.
        strength: τ.
        scale: the numerator of `PublishedStep`.
        published: steps of that mode.
        corrected: steps of that mode.
        trust_region: steps of that mode.
        gradient_descent: steps of that mode, for each rate.
        rates: the rates that gradient descent tries.
        points: points of a curve at most, evenly spaced in the logarithm of the step; the last step is one of them.
    """

    train_rows: int = 1000
    test_rows: int = 2000
    inputs: int = 20
    teacher_width: int = 5
    width: int = 500
    strength: float = 1e-4
    scale: float = 0.95
    published: int = 4000
    corrected: int = 4000
    trust_region: int = 4000
    gradient_descent: int = 10_000
    rates: tuple[float, ...] = (10.0, 20.0, 40.0, 80.0, 160.0)
    points: int = 200

    @classmethod
    def full(cls) -> "LossCurves":
        """As published: hours."""
        return cls()

    @classmethod
    def quick(cls) -> "LossCurves":
        """The published problem and fewer steps: a minute or two."""
        return cls(published=60, corrected=40, trust_region=20, gradient_descent=2000)

    @classmethod
    def tiny(cls) -> "LossCurves":
        """A problem for tests: a second."""
        sizes = {"train_rows": 40, "test_rows": 60, "inputs": 4, "teacher_width": 2, "width": 16}
        steps = {"published": 12, "corrected": 8, "trust_region": 8, "gradient_descent": 60}
        return cls(**sizes, **steps, rates=(1.0, 5.0, 1000.0), points=20)


class _Task(NamedTuple):
    """One run: a mode, a seed and perhaps a rate; `step` is an algorithm, or the rate of gradient descent."""

    mode: str
    seed: int
    rate: float | None
    steps: int
    step: Any

    @property
    def label(self) -> str:
        rate = "" if self.rate is None else f" at rate {self.rate:g}"
        return f"{self.mode}{rate}, seed {self.seed}"

    @property
    def file(self) -> str:
        rate = "" if self.rate is None else f"-{self.rate:g}"
        return f"seed-{self.seed}-{self.mode.replace(' ', '-')}{rate}.npz"

    @property
    def cost(self) -> float:
        return self.steps * (1.0 if self.rate is None else _CHEAP)


def run(
    output_dir: Path,
    *,
    quick: bool = True,
    seeds: int = 1,
    resume: bool = False,
    progress: Callable[[str, float], None] | None = None,
    config: LossCurves | None = None,
) -> Record:
    """Runs every mode for every seed and writes `loss-curves.json`.

    Args:
        output_dir: the folder for it, made if need be; checkpoints go into its folder `checkpoints`.
        quick: `LossCurves.quick()`, or with False `LossCurves.full()`.
        seeds: how many repetitions, each with its own teacher, rows and start.
        resume: go on from the checkpoints that are there. Finished runs are kept, and more seeds may be asked for.
            Without it, checkpoints that are there are removed.
        progress: called as progress(what, share done) now and then.
        config: another configuration; `quick` then decides nothing.

    Returns:
        The record.

    Raises:
        UsageError: `seeds` is below 1.
        ExperimentError: a checkpoint is damaged, or of another configuration or other versions.
        KeyboardInterrupt: after writing a checkpoint to go on from.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = run(pathlib.Path(folder), config=LossCurves.tiny())
        >>> [curve["mode"] for curve in record.curves]
        ['published', 'corrected', 'trust region', 'gradient descent']
    """
    if seeds < 1:
        raise UsageError(f"seeds={seeds}: at least one repetition is needed.")
    config = config or (LossCurves.quick() if quick else LossCurves.full())
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = output_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        for file in folder.glob("seed-*.npz"):
            file.unlink()
    with jax.enable_x64(True):
        tasks = [task for seed in range(seeds) for task in _tasks(config, seed)]
        curves = [_trace(config, task, folder, _reporter(progress, tasks, i)) for i, task in enumerate(tasks)]
    record = Record(
        name=NAME,
        config={**asdict(config), "rates": list(config.rates)},
        curves=list(_chosen(tasks, curves)),
        seeds=list(range(seeds)),
        versions=versions(),
        machine=machine(),
        started=started,
        notes=list(_NOTES),
    )
    record.save(output_dir / f"{NAME}.json")
    return record


def _tasks(config: LossCurves, seed: int) -> Iterator[_Task]:
    modes = (
        ("published", config.published, cx.PublishedStep(config.scale), 1 - config.strength),
        ("corrected", config.corrected, cx.PublishedStep(config.scale), 0.0),
        ("trust region", config.trust_region, cx.TrustRegion(), 0.0),
    )
    loss, penalty = cx.SquaredError(), cx.PseudoHuber(math.sqrt(config.width))
    for mode, steps, step, damping in modes:
        parts = {"strength": config.strength, "solver": cx.Auto(), "step": step, "damping": damping}
        yield _Task(mode, seed, None, steps, make_algorithm(_model(config), loss, penalty, **parts))
    for rate in config.rates:
        # As an array the rate is an argument of the program: one program serves all rates.
        step = _GradientDescent(_model(config), jnp.asarray(rate, float))
        yield _Task(GRADIENT_DESCENT, seed, rate, config.gradient_descent, step)


def _reporter(progress, tasks: list[_Task], index: int) -> Callable[[float], None]:
    """Turns the share done of one run into that of all."""
    task, costs = tasks[index], [t.cost for t in tasks]

    def report(share: float) -> None:
        if progress is not None:
            progress(task.label, (sum(costs[:index]) + share * task.cost) / sum(costs))

    return report


def _model(config: LossCurves) -> cx.TwoLayer:
    return cx.TwoLayer(config.inputs, config.width, 1, activation="silu")


class _GradientDescent(eqx.Module):
    """θ ← θ − rate·∇(data loss), in the form of an `Algorithm`; equal to `optax.sgd(rate)`."""

    model: cx.TwoLayer
    rate: Float[Array, ""]

    def init(self, params):
        """No state."""
        del params
        return ()

    def update(self, state, params, batch: Batch):
        """One step."""
        gradient = jax.grad(lambda p: _data_loss(self.model, p, batch.inputs, batch.targets))(params)
        return jax.tree.map(lambda g: -self.rate * g, gradient), state


def _data_loss(model, params, inputs, targets):
    return cx.objective(model, cx.SquaredError(), cx.L2(), params, inputs, targets, strength=0.0)


@eqx.filter_jit
def _advance(step: Algorithm | _GradientDescent, state, steps, batch: Batch):
    # The number of steps is an argument of the program: one program serves all gaps between two points.
    def body(_, carry):
        params, inner = carry
        updates, inner = step.update(inner, params, batch)
        return jax.tree.map(jnp.add, params, updates), inner

    return jax.lax.fori_loop(0, steps, body, state)


@eqx.filter_jit
def _losses(model, params, data: TeacherStudent):
    return (
        _data_loss(model, params, data.inputs, data.targets),
        _data_loss(model, params, data.test_inputs, data.test_targets),
    )


def _trace(config: LossCurves, task: _Task, folder: Path, report: Callable[[float], None]) -> np.ndarray:
    """Runs one mode to its end, from its checkpoint if there is one; returns its curve [k, 4]."""
    data_key, start_key = jax.random.split(jax.random.key(task.seed))
    names = ("train_rows", "test_rows", "inputs", "teacher_width")
    data = teacher_student(data_key, **{name: getattr(config, name) for name in names})
    batch = Batch(data.inputs, data.targets, jnp.ones(config.train_rows))
    params = _model(config).init(start_key)
    current = Run((params, task.step.init(params)), 0, 0.0, np.empty((0, 4)))
    file = folder / task.file
    identity = {
        "experiment": NAME, "mode": task.mode, "seed": task.seed, "rate": task.rate,
        "config": asdict(config), "versions": versions(),
    }  # fmt: skip
    if file.exists():
        current = checkpoint.load(file, identity, current.state)
    if _finished(current, task):
        report(1.0)
        return current.curve
    # No steps: this compiles, so that the clock below sees steps alone.
    current = current._replace(state=_advance(task.step, current.state, jnp.asarray(0), batch))
    saved = time.monotonic()
    try:
        while not _finished(current, task):
            # One assignment: an interrupt leaves either the old run or the new one.
            current = _next(config, task, current, data, batch)
            report(current.iteration / task.steps)
            if time.monotonic() - saved > SAVE_EVERY:
                checkpoint.save(file, identity, current)
                saved = time.monotonic()
    except KeyboardInterrupt:
        checkpoint.save(file, identity, current)
        raise
    checkpoint.save(file, identity, current)
    return current.curve


def _finished(current: Run, task: _Task) -> bool:
    """At the last step, or beyond help."""
    return current.iteration >= task.steps or not np.isfinite(current.curve[-1:, 2]).all()


def _points(steps: int, points: int) -> np.ndarray:
    """At most `points` steps, from the first to the last, evenly spaced in their logarithm."""
    return np.unique(np.geomspace(1, steps, points).round().astype(int))


def _next(config: LossCurves, task: _Task, current: Run, data: TeacherStudent, batch: Batch) -> Run:
    """One Gauss-Newton step, or the steps of gradient descent up to the next point of its curve."""
    points = _points(task.steps, config.points)
    stop = int(points[np.searchsorted(points, current.iteration, side="right")])
    stop = current.iteration + 1 if task.rate is None else stop
    start = time.perf_counter()
    state = jax.block_until_ready(_advance(task.step, current.state, jnp.asarray(stop - current.iteration), batch))
    seconds = current.seconds + time.perf_counter() - start
    curve = current.curve
    if stop in points:
        losses = jax.device_get(_losses(_model(config), state[0], data))
        curve = np.vstack([curve, [stop, seconds, *losses]])
    return Run(state, stop, seconds, curve)


def _chosen(tasks: list[_Task], curves: list[np.ndarray]) -> Iterator[dict[str, Any]]:
    """The curves of a record: one a mode and seed; of gradient descent that of the best rate, unless all diverged."""
    for seed in dict.fromkeys(task.seed for task in tasks):
        mine = [(task, curve) for task, curve in zip(tasks, curves, strict=True) if task.seed == seed]
        yield from (_as_columns(task, curve) for task, curve in mine if task.rate is None)
        searched = [(task, curve) for task, curve in mine if task.rate is not None]
        tried = [
            {"rate": task.rate, "train_loss": float(c[-1, 2]), "test_loss": float(c[-1, 3]), "diverged": _diverged(c)}
            for task, c in searched
        ]
        converging = [(curve[-1, 2], task, curve) for task, curve in searched if not _diverged(curve)]
        if converging:
            _, task, curve = min(converging, key=lambda each: each[0])
            yield {**_as_columns(task, curve), "rate": task.rate, "tried": tried}


def _diverged(curve: np.ndarray) -> bool:
    return not curve[-1, 2] <= curve[0, 2]


def _as_columns(task: _Task, curve: np.ndarray) -> dict[str, Any]:
    iteration, seconds, train_loss, test_loss = curve.T.tolist()
    return {
        "mode": task.mode,
        "seed": task.seed,
        "iteration": [int(each) for each in iteration],
        "seconds": seconds,
        "train_loss": train_loss,
        "test_loss": test_loss,
    }
