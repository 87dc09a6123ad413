"""Whether kernels of infinite width are those of wide networks: the mean over 200 starts at width 4,096.

    python benchmarks/ntk_limit.py --output benchmarks/records/ntk_limit.json

Five rows of three inputs, each activation with and without a regularizer, in float64. Of the tangent kernel (`ntk`, in
the metric of the regularizer) and of the covariance of the outputs (`nngp`) the record holds the largest distance
between mean and limit in standard errors of the mean, over all 15 pairs of rows, and the largest standard error itself,
as a share of the largest entry. A mean over starts differs from the limit by O(1/width) for two hidden layers, which
have 1,024 units here, and not at all for `TwoLayer`, in `nngp` and in what the outer weights give of `ntk`.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from results import write

import concordax as cx
from concordax import ntk

STARTS = 200
ROWS = np.random.default_rng(0).normal(size=(5, 3))
SMOOTHED = cx.PseudoHuber(0.5)
ACTIVATIONS = ("relu", "erf", "tanh", "silu", "gelu")
MODELS = {
    "TwoLayer, 4,096 units": lambda activation: cx.TwoLayer(3, 4096, activation=activation),
    "TwoLayer with a bias, 4,096 units": lambda activation: cx.TwoLayer(3, 4096, activation=activation, bias=True),
    "MLP, 4,096 units": lambda activation: cx.MLP(3, (4096,), activation=activation),
    "MLP, two layers of 1,024 units": lambda activation: cx.MLP(3, (1024, 1024), activation=activation),
}


def measure(model, regularizer) -> dict[str, float]:
    """One network and one metric."""
    kernels, outputs = [], []
    draw = jax.jit(lambda key: (params := model.init(key), model(params, ROWS)[:, 0]))
    for key in jax.random.split(jax.random.key(1), STARTS):
        params, output = draw(key)
        kernels.append(np.asarray(ntk.empirical(model, params, ROWS, metric=regularizer)))
        outputs.append(np.asarray(output))
    centred = np.array(outputs) - np.mean(outputs, axis=0)
    squares = np.einsum("si,sj->sij", centred, centred) * STARTS / (STARTS - 1)
    begin = time.perf_counter()
    limit = ntk.infinite_width(model, regularizer=regularizer)(ROWS)
    found = {"seconds_of_the_limit": time.perf_counter() - begin}
    upper = np.triu_indices(len(ROWS))
    for name, draws, right in [("ntk", np.array(kernels), limit.ntk), ("nngp", squares, limit.nngp)]:
        right, error = np.asarray(right), np.std(draws, axis=0, ddof=1) / STARTS**0.5
        found[f"{name}_standard_errors"] = float(np.max(np.abs(draws.mean(axis=0) - right)[upper] / error[upper]))
        found[f"{name}_standard_error_share"] = float(np.max(error) / np.max(np.abs(right)))
    return found


def markdown(record: dict) -> str:
    """The record as a table: distances in standard errors, and the largest standard error in percent."""
    head = ["network", "activation", "H", "ntk, distance", "ntk, s.e.", "nngp, distance", "nngp, s.e."]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for run in record["runs"]:
        cells = [run["model"], run["activation"], run["metric"]]
        for name in ("ntk", "nngp"):
            cells.append(f"{run[f'{name}_standard_errors']:.2f}")
            cells.append(f"{100 * run[f'{name}_standard_error_share']:.2g} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all networks and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    runs = []
    for label, make in MODELS.items():
        for activation in ACTIVATIONS:
            for metric, regularizer in (("I", None), ("PseudoHuber(0.5)", SMOOTHED)):
                found = measure(make(activation), regularizer)
                runs.append({"model": label, "activation": activation, "metric": metric, **found})
                print(runs[-1], flush=True)
    print(markdown(write(arguments.output, {"starts": STARTS, "rows": ROWS.tolist(), "runs": runs})))


if __name__ == "__main__":
    main()
