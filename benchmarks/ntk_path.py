"""How a wide network keeps to the path that its tangent kernel foresees, and how fast it comes to kernel regression.

    python benchmarks/ntk_path.py --output benchmarks/records/ntk_path.json

First, twenty Gauss-Newton steps of networks with one hidden layer of 16,384 on 64 rows of 5 inputs, the measured
training loss beside the predicted one. `train` linearises anew at each step: what differs is the change of the kernel.

Then one full step (H = I, the shift all damping) at widths from 64 to 8,192, eight draws each, and three relative
distances, root mean squares over draws and 40 new rows, with their slopes over the width on logarithmic scales:

- of the network after the step from kernel regression of the change with its own kernel at the start,
  f₀ + k(x, X)(K + ntI)⁻¹(y − f₀(X)): the second order in the change of the parameters. It is
  δᵀ∇²f δ ~ width^(−1/2) · mean over the units of (outer weight × even terms). Where outer weights have a mean, as in
  TwoLayer, that mean stays: slope −1/2. Where they are as often negative, as in MLP, the mean falls as width^(−1/2)
  once more: slope −1;
- of the kernel after the step from that at the start: the same slopes, for the same reason;
- of the network after the step from kernel regression with the kernel of infinite width: a kernel of random units
  deviates from its mean as width^(−1/2), so that this distance has the slope −1/2 for either law.

Outputs at the start are not zero, and targets are counted from them: those of TwoLayer grow as √width with that mean,
the change that fits fixed targets would grow with them, and the network would never come near its tangent.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from results import write

import concordax as cx
from concordax import ntk

ROWS, NEW, INPUTS, STEPS, WIDE = 64, 40, 5, 20, 16_384
WIDTHS, DRAWS, SHIFT = (64, 128, 256, 512, 1024, 2048, 4096, 8192), 8, 1e-2
# Of the penalty, whose gradient is to play no part in a step on the change.
TINY = 1e-14
NETWORKS = {
    "MLP, erf": lambda width: cx.MLP(inputs=INPUTS, widths=(width,), activation="erf"),
    "TwoLayer, relu": lambda width: cx.TwoLayer(inputs=INPUTS, width=width, activation="relu"),
}
# Step size, damping, strength of L2, whose gradient is part of both paths.
RULES = {"short steps": (0.1, 1e-3, 1e-5), "large damping": (1.0, 0.3, 1e-5)}


def _data(rows: int, seed: int):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, INPUTS))
    return jnp.asarray(x), jnp.asarray(np.sin(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3])


def follow(make, rule: tuple[float, float, float]) -> dict:
    """Measured and predicted losses of twenty steps at the greatest width."""
    size, damping, strength = rule
    model, (x, y) = make(WIDE), _data(ROWS, 0)
    params = model.init(jax.random.key(0))
    y = y + model(params, x)
    run = cx.train(
        model, cx.SquaredError(), cx.L2(), params, (x, y), strength=strength, damping=damping,
        step=cx.FixedStep(size), solver=cx.Dual(), max_steps=STEPS, tolerance=0.0,
    )  # fmt: skip
    predicted = ntk.predict_training(
        model, params, (x, y), path=ntk.GaussNewtonPath(size, damping), steps=range(STEPS + 1), strength=strength,
        regularizer=cx.L2(),
    ).loss  # fmt: skip
    measured = run.history["loss"]
    return {
        "measured": measured.tolist(),
        "predicted": predicted[1:].tolist(),
        "start": float(predicted[0]),
        "largest_deviation": float(np.abs(predicted[1:] / measured - 1).max()),
    }


def distances(make, width: int, seed: int) -> dict[str, float]:
    """The three distances after one step, squared, in units of the change."""
    model, (x, y), (new, _) = make(width), _data(ROWS, 1), _data(NEW, 2)
    params = model.init(jax.random.key(seed))
    start, at = model(params, new), model(params, x)
    run = cx.train(
        model, cx.SquaredError(), cx.L2(), params, (x, at + y), strength=TINY, damping=SHIFT, step=cx.FixedStep(1.0),
        solver=cx.Dual(), max_steps=1,
    )  # fmt: skip
    change = np.asarray(model(run.params, new) - start)[:, 0]
    limit = ntk.infinite_width(model)
    before, after = (np.asarray(ntk.empirical(model, p, x)) for p in (params, run.params))
    own = _regression(before, np.asarray(ntk.empirical(model, params, new, x)), y)
    infinite = _regression(np.asarray(limit(x, x).ntk), np.asarray(limit(new, x).ntk), y)
    return {
        "own kernel": float(np.mean((change - own) ** 2) / np.mean(own**2)),
        "change of the kernel": float(np.sum((after - before) ** 2) / np.sum(before**2)),
        "infinite width": float(np.mean((change - infinite) ** 2) / np.mean(infinite**2)),
    }


def _regression(kernel: np.ndarray, cross: np.ndarray, y) -> np.ndarray:
    shift = ROWS * (SHIFT + TINY)
    return cross @ np.linalg.solve(kernel + shift * np.eye(ROWS), np.asarray(y)[:, 0])


def slopes(make) -> dict[str, dict]:
    """Root mean squares over the draws by width, and the slope of their logarithms."""
    found = {width: [distances(make, width, seed) for seed in range(DRAWS)] for width in WIDTHS}
    result = {}
    for name in found[WIDTHS[0]][0]:
        sizes = [float(np.sqrt(np.mean([draw[name] for draw in found[width]]))) for width in WIDTHS]
        slope = float(np.polyfit(np.log(WIDTHS), np.log(sizes), 1)[0])
        result[name] = {"distances": sizes, "slope": slope}
    return result


def markdown(record: dict) -> str:
    """The record as two tables."""
    lines = [
        f"Twenty steps at width {WIDE:,}: the largest relative deviation of the predicted training loss.",
        "",
        "| network | steps | loss at the start | after 20, measured | predicted | largest deviation |",
        "|---" * 6 + "|",
    ]
    for name, runs in record["paths"].items():
        for rule, run in runs.items():
            ends = f"{run['start']:.3g} | {run['measured'][-1]:.3g} | {run['predicted'][-1]:.3g}"
            lines.append(f"| {name} | {rule} | {ends} | {100 * run['largest_deviation']:.2f} % |")
    lines += ["", "One step: relative distances, and their slope over the width on logarithmic scales.", ""]
    lines += ["| network | distance from | " + " | ".join(map(str, record["widths"])) + " | slope |"]
    lines += ["|---" * (3 + len(record["widths"])) + "|"]
    for name, kinds in record["slopes"].items():
        for kind, found in kinds.items():
            sizes = " | ".join(f"{size:.2g}" for size in found["distances"])
            lines.append(f"| {name} | {kind} | {sizes} | {found['slope']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    paths = {name: {rule: follow(make, options) for rule, options in RULES.items()} for name, make in NETWORKS.items()}
    found = {name: slopes(make) for name, make in NETWORKS.items()}
    print(markdown(write(arguments.output, {"paths": paths, "widths": list(WIDTHS), "slopes": found})))


if __name__ == "__main__":
    main()
