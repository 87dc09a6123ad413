"""Does a group penalty on inputs find the ones that matter, at what loss, and how much faster is what is left?

    python benchmarks/sparsity.py --output benchmarks/records/sparsity.json

784 inputs, all standard normal, of which a teacher network reads 84 and 700 carry noise only. A network is fitted
without a penalty to speak of (L2 at the strength that held-out rows choose), with `GroupPseudoHuber` on the inputs, and
with `ProximalStep(GroupLasso)` on the inputs, each at the strength that held-out rows choose. Written down: which
inputs are found (F1 against the teacher's), losses on rows that nothing has seen, the largest difference between
predictions of the network and of the compacted one, and the seconds of both. Nothing else is chosen by the results.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from results import write

import concordax as cx

INPUTS, INFORMATIVE = 784, 84
ROWS, HELD_OUT, TEST = 2000, 500, 2000
TEACHER_WIDTH, WIDTH = 8, 50
NOISE = 0.1
STRENGTHS = np.geomspace(1e-5, 1e-1, 9)
# Of the smooth penalty; a group counts as absent where no weight is above this share of the largest.
SMOOTHING = 1e-3
TOLERANCE = 1e-2
STEPS = 60
REPEATS = 30


class Data(NamedTuple):
    """Rows by use, and the indices of the inputs that the teacher reads."""

    train: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    informative: np.ndarray


def make_data(seed: int) -> Data:
    """Rows of standard normal inputs with targets of a tanh teacher, of variance one, plus noise."""
    rng = np.random.default_rng(seed)
    informative = np.sort(rng.choice(INPUTS, INFORMATIVE, replace=False))
    inner = rng.normal(size=(INFORMATIVE, TEACHER_WIDTH)) / np.sqrt(INFORMATIVE)
    outer = rng.normal(size=TEACHER_WIDTH)
    x = rng.normal(size=(ROWS + HELD_OUT + TEST, INPUTS))
    clean = np.tanh(x[:, informative] @ inner) @ outer
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


def measure(data: Data, regularizer, seed: int, tolerance: float, **options) -> dict[str, float]:
    """One way to fit: the path, its best point by held-out rows, and the compacted network there."""
    model = cx.MLP(INPUTS, (WIDTH,))
    begun = time.perf_counter()
    path = cx.strength_path(
        model, cx.SquaredError(), regularizer, model.init(jax.random.key(seed)), data.train, strengths=STRENGTHS,
        validation=data.held_out, zero_tolerance=tolerance, max_steps=STEPS, **options,
    )  # fmt: skip
    fit = time.perf_counter() - begun
    params = path.params[path.best]
    # What the tolerance leaves is a network of its own: its loss counts, and equality is that of its compact form.
    limit = tolerance * max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(params))
    params = jax.tree.map(lambda leaf: jnp.where(jnp.abs(leaf) <= limit, 0.0, leaf), params)
    small = cx.compact(model, params)
    x, y = jnp.asarray(data.test[0]), data.test[1]
    # The smaller network is handed the columns it reads, as whoever deploys it would.
    read = x[:, small.inputs]
    before, after = seconds(lambda rows: model(params, rows), x), seconds(lambda r: small.model(small.params, r), read)
    outputs = np.asarray(model(params, x))
    return {
        "strength": float(path.strengths[path.best]),
        "test loss": float(0.5 * np.mean((outputs[:, 0] - y) ** 2)),
        "inputs": len(small.inputs),
        "units": small.model.widths[0],
        "f1": f1(small.inputs, data.informative),
        "difference": float(np.abs(outputs - np.asarray(small(x))).max()),
        "seconds": before,
        "seconds compacted": after,
        "speedup": before / after,
        "fit seconds": fit,
    }


def ways(seed: int) -> dict[str, dict]:
    """The ways to fit, by name."""
    params = cx.MLP(INPUTS, (WIDTH,)).init(jax.random.key(seed))
    found: dict[str, dict] = {"L2": {"regularizer": cx.L2(), "tolerance": 0.0}}
    if hasattr(cx, "GroupPseudoHuber"):
        smooth = cx.GroupPseudoHuber(SMOOTHING, cx.Groups.inputs(params))
        found["GroupPseudoHuber"] = {"regularizer": smooth, "tolerance": TOLERANCE}
    if hasattr(cx, "ProximalStep"):
        step = cx.ProximalStep(cx.GroupLasso(cx.Groups.inputs(params)))
        found["ProximalStep"] = {"regularizer": cx.L2(), "tolerance": 0.0, "step": step}
    return found


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
        data = make_data(seed)
        for name, way in ways(seed).items():
            found.setdefault(name, []).append(measure(data, seed=seed, **way))
            print(seed, name, found[name][-1], flush=True)
    setting = {"inputs": INPUTS, "informative": INFORMATIVE, "rows": ROWS, "width": WIDTH, "noise": NOISE}
    print(markdown(write(options.output, {"ways": found, "setting": setting})))


if __name__ == "__main__":
    main()
