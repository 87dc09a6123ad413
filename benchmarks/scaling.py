"""How the seconds of a step grow: against rows, width, depth and outputs, one varied at a time.

    python benchmarks/scaling.py --output benchmarks/records/scaling.json --figure docs/scaling.png

One trust-region step of the default solver (`Auto`), warm, in float64: median seconds, the solver chosen, its
iterations, and the bytes of temporary memory that the compiler sets aside. The exponents printed are those of seconds
against what is varied: between first and last point, and between the last two.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import numpy as np
from results import write
from threadpoolctl import threadpool_limits

import concordax as cx
from concordax.optimizer import make_algorithm

# What is varied, and the shape (rows, inputs, hidden layers, width, outputs) at each of its values.
SERIES = {
    "rows": {n: (n, 20, 1, 500, 1) for n in (125, 250, 500, 1000, 2000, 4000)},
    "width": {w: (1000, 20, 1, w, 1) for w in (128, 256, 512, 1024, 2048, 4096, 8192)},
    "depth": {d: (1000, 20, d, 128, 1) for d in (1, 2, 3, 4, 5, 6)},
    "outputs": {k: (250, 20, 1, 128, k) for k in (1, 2, 4, 8, 16, 26)},
}


def measure(rows: int, inputs: int, depth: int, width: int, outputs: int, repeats: int) -> dict[str, object]:
    """One shape: a step from the start, with the damping of the middle of a run."""
    rng = np.random.default_rng(0)
    model = cx.MLP(inputs, (width,) * depth, outputs)
    params = model.init(jax.random.key(0))
    x, y = rng.normal(size=(rows, inputs)), rng.normal(size=(rows, outputs))
    algorithm = make_algorithm(
        model, cx.SquaredError(), cx.PseudoHuber(width**0.5),
        strength=1e-4, solver=cx.Auto().alone, step=cx.TrustRegion(), damping=0.0,
    )  # fmt: skip
    state, batch = algorithm.init(params), algorithm.batch(params, x, y)
    step = jax.jit(algorithm.update).lower(state, params, batch).compile()
    state = step(state, params, batch)[1]
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        after = jax.block_until_ready(step(state, params, batch))[1]
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": float(np.median(seconds)),
        "solver": type(algorithm.solver.resolve(algorithm.shape(params, batch))).__name__,
        "attempts": int(after.info.attempts),
        "iterations": int(after.info.solver_iterations),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "bytes": step.memory_analysis().temp_size_in_bytes,
    }


def markdown(record: dict) -> str:
    """The record as a table: seconds a step at each value."""
    lines = ["| varied | ms a step (solver where it changes) | exponent over all | at the end |", "|---|---|---|---|"]
    for name, points in record["series"].items():
        cells, before = [], None
        for point in points:
            solver = "" if point["solver"] == before else f" ({point['solver']})"
            cells.append(f"{point['value']}: {1e3 * point['seconds']:.3g}{solver}")
            before = point["solver"]
        lines.append(
            f"| {name} | {', '.join(cells)} | {exponent(points[0], points[-1]):.2f} | {exponent(*points[-2:]):.2f} |"
        )
    return "\n".join(lines) + "\n"


def exponent(one: dict, two: dict) -> float:
    """The slope of log seconds against the log of what is varied, between two points."""
    return math.log(two["seconds"] / one["seconds"]) / math.log(two["value"] / one["value"])


def figure(record: dict, path: Path) -> None:
    """A panel for each of what is varied, both axes logarithmic, with a line of slope 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(1, len(record["series"]), figsize=(15, 3.8), layout="constrained")
    for panel, (name, points) in zip(axes, record["series"].items(), strict=True):
        values, seconds = ([point[key] for point in points] for key in ("value", "seconds"))
        panel.plot(values, seconds, color="black", marker="o", markersize=4)
        panel.plot(values, [seconds[0] * v / values[0] for v in values], color="grey", linestyle=":", label="linear")
        panel.set(xscale="log", yscale="log", xlabel=name)
        panel.set_xticks(values, [str(v) for v in values])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        panel.legend(fontsize=8)
    axes[0].set_ylabel("seconds a step, one core, warm")
    canvas.savefig(path, dpi=130)


def main() -> None:
    """Measures every point and writes record and figure; with `--draw` only the figure, from the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw what the record holds")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if not arguments.draw:
        series = {}
        with threadpool_limits(1, "blas"):
            for name, shapes in SERIES.items():
                series[name] = []
                for value, shape in shapes.items():
                    series[name].append({"value": value, "shape": shape, **measure(*shape, arguments.repeats)})
                    print(name, series[name][-1], flush=True)
        write(arguments.output, {"series": series})
    record = json.loads(arguments.output.read_text())
    if arguments.figure:
        figure(record, arguments.figure)
    print(markdown(record))


if __name__ == "__main__":
    main()
