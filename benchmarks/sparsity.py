"""Does a group penalty on inputs find the ones that matter, at what loss, and how much faster is what is left?

    python benchmarks/sparsity.py --output benchmarks/records/sparsity.json

784 inputs of mean 0 and variance 1, of which the paper's teacher reads 84 and 700 carry noise only; targets have
variance one and noise of a tenth of their deviation. A student of ten units is trained with L2 on all inputs, and on
the 84 alone as whoever knew them would; and with `ProximalStep(GroupLasso)` on the inputs, along a path of strengths of
which held-out rows choose one. That one, trained again without the penalty (`relax`), gives the weights of
`Groups.adaptive` for a second path; each of its networks is trained again too, and held-out rows choose among those.
Written down: which inputs are found (F1 against the teacher's), losses on rows that nothing has seen, the largest
difference between predictions of the network and of the compacted one, and the seconds of both.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from results import write

import concordax as cx
from concordax.experiments.synthetic import teacher_student
from concordax.regularizers import AbstractRegularizer

INPUTS, INFORMATIVE = 784, 84
ROWS, HELD_OUT, TEST = 2000, 500, 2000
TEACHER_WIDTH, WIDTH = 5, 10
NOISE = 0.1
# What L2 adds beside a penalty on groups, which makes the metric.
SMALL = 0.1
RIDGES, FIRST, AGAIN = np.geomspace(1e-6, 1e-1, 6), np.geomspace(3e-4, 3e-3, 4), np.geomspace(1e-3, 1e-2, 7)
# Of networks that are trained again on the inputs a path left standing.
RELAXED = np.geomspace(1e-5, 1e-3, 3)
RUNS = {"max_steps": 60, "tolerance": 1e-4}
REPEATS = 30
KNOWN = "L2, on the 84 alone"


class Data(NamedTuple):
    """Rows by use, and the indices of the inputs that the teacher reads."""

    train: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    informative: np.ndarray

    def only(self, inputs: np.ndarray) -> "Data":
        """The same rows with some of the inputs."""
        parts = [(x[:, inputs], y) for x, y in self[:3]]
        return Data(*parts, np.flatnonzero(np.isin(inputs, self.informative)))


def make_data(seed: int) -> Data:
    """Rows of the paper's teacher, its inputs scattered among inputs of noise."""
    rng = np.random.default_rng(seed)
    informative = np.sort(rng.choice(INPUTS, INFORMATIVE, replace=False))
    rows = teacher_student(
        jax.random.key(seed), train_rows=ROWS + HELD_OUT, test_rows=TEST, inputs=INFORMATIVE,
        teacher_width=TEACHER_WIDTH,
    )  # fmt: skip
    x = rng.normal(size=(ROWS + HELD_OUT + TEST, INPUTS))
    # On the unit sphere an input has the variance 1/84.
    x[:, informative] = np.sqrt(INFORMATIVE) * np.concatenate([rows.inputs, rows.test_inputs])
    clean = np.concatenate([rows.targets, rows.test_targets])[:, 0]
    y = (clean - clean.mean()) / clean.std() + NOISE * rng.normal(size=len(x))
    ends = (0, ROWS, ROWS + HELD_OUT, len(x))
    parts = [(x[start:end], y[start:end]) for start, end in pairwise(ends)]
    return Data(*parts, informative)


def f1(found: np.ndarray, true: np.ndarray) -> float:
    """The harmonic mean of precision and recall of the inputs found."""
    hits = len(np.intersect1d(found, true))
    return 2 * hits / (len(found) + len(true)) if len(found) else 0.0


def seconds(function, inputs) -> float:
    """The median time of a compiled call."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(inputs))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(inputs))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def judge(model: cx.MLP, params, data: Data) -> dict[str, float]:
    """A network, and the compacted one, on rows that nothing has seen."""
    small = cx.compact(model, params)
    x, y = jnp.asarray(data.test[0]), data.test[1]
    # The smaller network is handed the columns it reads, as whoever deploys it would.
    read = x[:, small.inputs]
    before, after = seconds(lambda rows: model(params, rows), x), seconds(lambda r: small.model(small.params, r), read)
    outputs = np.asarray(model(params, x))
    return {
        "test loss": float(0.5 * np.mean((outputs[:, 0] - y) ** 2)),
        "inputs": len(small.inputs),
        "units": small.model.widths[0],
        "f1": f1(small.inputs, data.informative),
        "difference": float(np.abs(outputs - np.asarray(small(x))).max()),
        "seconds": before,
        "seconds compacted": after,
        "speedup": before / after,
    }


def path(model: cx.MLP, regularizer: AbstractRegularizer, params, data: Data, strengths, **step) -> cx.StrengthPath:
    """Training along a path of strengths, judged by the rows held out."""
    return cx.strength_path(
        model, cx.SquaredError(), regularizer, params, data.train, strengths=strengths, validation=data.held_out,
        **RUNS, **step,
    )  # fmt: skip


def grouped(model: cx.MLP, params, groups: cx.Groups, data: Data, strengths) -> cx.StrengthPath:
    """A path under a group lasso."""
    return path(model, SMALL * cx.L2(), params, data, strengths, step=cx.ProximalStep(cx.GroupLasso(groups)))


def relaxed(model: cx.MLP, runs: cx.StrengthPath, data: Data) -> cx.RelaxedPath:
    """The networks of a path trained again without the penalty."""
    return cx.relax(
        model, cx.SquaredError(), cx.L2(), runs, data.train, strengths=RELAXED, validation=data.held_out, **RUNS
    )


def ridge(model: cx.MLP, seed: int, data: Data) -> dict[str, float]:
    """The best network under L2."""
    runs = path(model, cx.L2(), model.init(jax.random.key(seed)), data, RIDGES)
    return judge(model, runs.params[runs.best], data)


def fit(data: Data, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Each way by its name, and how it did."""
    model = cx.MLP(INPUTS, (WIDTH,))
    yield "L2", ridge(model, seed, data)
    yield KNOWN, ridge(cx.MLP(INFORMATIVE, (WIDTH,)), seed, data.only(data.informative))
    start = model.init(jax.random.key(seed))
    first = grouped(model, start, cx.Groups.inputs(start), data, FIRST)
    yield "`GroupLasso`", judge(model, first.params[first.best], data)
    again = relaxed(model, first, data)
    yield "`GroupLasso`, `relax`", judge(model, again.networks[again.best].expanded(), data)
    # The most of what held-out rows let stand: a second path can leave out what is too much, and find nothing anew.
    wide = again.networks[first.best]
    narrow = data.only(wide.inputs)
    groups = cx.Groups.inputs(wide.params).adaptive(wide.params)
    second = relaxed(wide.model, grouped(wide.model, wide.params, groups, narrow, AGAIN), narrow)
    found = second.networks[second.best].expanded()
    yield "`GroupLasso`, again by `adaptive`, `relax`", judge(model, replace(wide, params=found).expanded(), data)


def markdown(record: dict) -> str:
    """The record as a table: medians over the seeds."""
    lines = [
        "| penalty | inputs kept | F1 | hidden units | test loss | difference after `compact` | faster by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in record["ways"].items():
        middle = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
        lines.append(
            f"| {name} | {middle['inputs']:.0f} | {middle['f1']:.2f} | {middle['units']:.0f} "
            f"| {middle['test loss']:.4f} | {middle['difference']:.1g} | {middle['speedup']:.1f} × |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fits, prints and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    found: dict[str, list] = {}
    for seed in range(options.seeds):
        begun = time.perf_counter()
        for name, numbers in fit(make_data(seed), seed):
            found.setdefault(name, []).append(numbers | {"fit seconds": time.perf_counter() - begun})
            print(seed, name, found[name][-1], flush=True)
            begun = time.perf_counter()
    setting = {
        "inputs": INPUTS, "informative": INFORMATIVE, "rows": ROWS, "teacher_width": TEACHER_WIDTH, "width": WIDTH,
        "noise": NOISE,
    }  # fmt: skip
    print(markdown(write(options.output, {"ways": found, "setting": setting})))


if __name__ == "__main__":
    main()
