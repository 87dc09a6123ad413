"""Whether `Auto` chooses well and foresees its memory: every path on some two dozen shapes, timed and weighed.

    python benchmarks/shapes.py --output benchmarks/records/shapes.json

For each shape and each path: seconds of one trust-region step (median, warm), bytes of temporary memory as the compiler
lays them out, and both as the model of `concordax.solvers.costs` predicts them. Paths whose predicted cost is more than
twelve times that of the cheapest are left out.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from results import write
from threadpoolctl import threadpool_limits

import concordax as cx
from concordax.optimizer import make_algorithm
from concordax.solvers import SystemShape

# Rows, then the sizes of the layers.
SHAPES = (
    (125, 20, 500, 1), (500, 5, 500, 1), (1000, 20, 500, 1), (2000, 20, 500, 1), (1000, 8, 100, 1), (500, 13, 100, 1),
    (400, 10, 100, 1), (2000, 8, 100, 1), (4000, 8, 200, 1), (1000, 20, 128, 1), (1000, 20, 2000, 1),
    (500, 100, 1000, 1), (500, 784, 128, 1), (1000, 30, 64, 64, 1), (1000, 30, 64, 64, 64, 64, 1),
    (300, 20, 100, 3), (100, 64, 256, 10), (16, 784, 512, 10), (300, 4, 20, 1), (3000, 5, 50, 1),
    (7373, 8, 200, 1), (1437, 64, 256, 10), (1437, 64, 100, 10), (1000, 20, 64, 64, 5),
)  # fmt: skip
PATHS = {
    "Dual": cx.Dual(),
    "Primal": cx.Primal(),
    "StructuredCG": cx.StructuredCG(hand_over=False),
    "NystromCG": cx.NystromCG(),
}
# A step that takes longer, in seconds, is repeated once.
_LONG = 3.0
# The damping of the step, in units of the first one: that of the middle of a run, where a solve is harder.
_DAMPING = 1e-2


def measure(sizes: tuple[int, ...], repeats: int) -> dict[str, object]:
    """One shape: every path that is not hopeless."""
    rows, inputs, *widths, outputs = sizes
    rng = np.random.default_rng(0)
    model = cx.MLP(inputs, tuple(widths), outputs)
    params = model.init(jax.random.key(0))
    x, y = rng.normal(size=(rows, inputs)), rng.normal(size=(rows, outputs))
    layers = tuple((layer.weight.shape[0], layer.weight.shape[1] + 1) for layer in params)
    shape = SystemShape(rows, outputs, sum(a * b for a, b in layers), layers)
    plan = cx.Auto(memory=1e15).plan(shape)
    least = min(cost.operations for cost in plan.costs.values())
    paths = {}
    for name, cost in plan.costs.items():
        if cost.operations > 12 * least:
            continue
        algorithm = make_algorithm(
            model, cx.SquaredError(), cx.PseudoHuber(max(widths) ** 0.5),
            strength=1e-4, solver=PATHS[name], step=cx.TrustRegion(), damping=0.0,
        )  # fmt: skip
        state, batch = algorithm.init(params), algorithm.batch(params, x, y)
        step = jax.jit(algorithm.update).lower(state, params, batch).compile()
        first = step(state, params, batch)[1].info.damping
        state = state._replace(rule=state.rule._replace(next_damping=_DAMPING * first))
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            jax.block_until_ready(step(state, params, batch))
            seconds.append(time.perf_counter() - start)
            if len(seconds) > 1 and seconds[-1] > _LONG:
                break
        paths[name] = {
            "seconds": float(np.median(seconds[1:])),
            "operations": cost.operations,
            "bytes": step.memory_analysis().temp_size_in_bytes,
            "predicted_bytes": cost.bytes,
        }
    return {"shape": sizes, "parameters": shape.parameters, "chosen": type(plan.solver).__name__, "paths": paths}


def markdown(record: dict) -> str:
    """The record as a table."""
    lines = ["| shape | chosen | slower than the fastest | ms | MB, predicted / measured |", "|---|---|---|---|---|"]
    for row in record["shapes"]:
        chosen, fastest = row["paths"][row["chosen"]], min(path["seconds"] for path in row["paths"].values())
        times = ", ".join(f"{name} {1e3 * path['seconds']:.3g}" for name, path in row["paths"].items())
        weights = f"{chosen['predicted_bytes'] / 1e6:.3g} / {chosen['bytes'] / 1e6:.3g}"
        sizes = f"{row['shape'][0]} rows, {'-'.join(map(str, row['shape'][1:]))}"
        lines.append(f"| {sizes} | {row['chosen']} | {chosen['seconds'] / fastest:.2f} × | {times} | {weights} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all shapes and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    with threadpool_limits(1, "blas"):
        for sizes in SHAPES:
            rows.append(measure(sizes, arguments.repeats))
            print(rows[-1], flush=True)
    record = write(arguments.output, {"shapes": rows})
    print(markdown(record))


if __name__ == "__main__":
    main()
