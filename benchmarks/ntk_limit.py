"""Whether kernels of infinite width are those of wide networks: the mean over 200 starts at width 4,096.

    python benchmarks/ntk_limit.py --output benchmarks/records/ntk_limit.json

Five rows of three inputs, each activation with and without a regularizer, in float64. Of the tangent kernel, in the
metric of the regularizer (`ntk`), and of the covariance of the outputs over 2,000 starts (`nngp`) the record holds the
largest distance of the mean from the limit in standard errors of the mean, over all 15 pairs of rows, and the largest
standard error as a share of the largest entry. That of a covariance is the one that Gaussian outputs of the covariance
`nngp` have, √((K_ii K_jj + K_ij²)/2000): one from the draws falls with an estimate that is too low. A mean over starts
differs from the limit by O(1/width) where there are two hidden layers, of 1,024 units here; of `TwoLayer` and of one
hidden layer it does not.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from results import write

import concordax as cx
from concordax import ntk

STARTS, OUTPUT_STARTS = 200, 2000
ROWS = np.random.default_rng(0).normal(size=(5, 3))
SMOOTHED = cx.PseudoHuber(0.5)
ACTIVATIONS = ("relu", "erf", "tanh", "silu", "gelu")
MODELS = {
    "TwoLayer, 4,096 units": lambda activation: cx.TwoLayer(3, 4096, activation=activation),
    "TwoLayer with a bias, 4,096 units": lambda activation: cx.TwoLayer(3, 4096, activation=activation, bias=True),
    "MLP, 4,096 units": lambda activation: cx.MLP(3, (4096,), activation=activation),
    "MLP, two layers of 1,024 units": lambda activation: cx.MLP(3, (1024, 1024), activation=activation),
}


def _largest(distance: np.ndarray, error: np.ndarray, right: np.ndarray) -> dict[str, float]:
    upper = np.triu_indices(len(ROWS))
    return {
        "standard_errors": float(np.max(np.abs(distance)[upper] / error[upper])),
        "standard_error_share": float(np.max(error) / np.max(np.abs(right))),
    }


def measure_ntk(model, regularizer) -> dict[str, float]:
    """The tangent kernel of one network in one metric."""
    draw = jax.jit(model.init)
    keys = jax.random.split(jax.random.key(1), STARTS)
    draws = [np.asarray(ntk.empirical(model, draw(key), ROWS, metric=regularizer)) for key in keys]
    right = np.asarray(ntk.infinite_width(model, regularizer=regularizer)(ROWS).ntk)
    return _largest(np.mean(draws, axis=0) - right, np.std(draws, axis=0, ddof=1) / STARTS**0.5, right)


def measure_nngp(model) -> dict[str, float]:
    """The covariance of the outputs of one network."""
    keys = jax.random.split(jax.random.key(2), OUTPUT_STARTS)
    outputs = np.asarray(jax.jit(lambda keys: jax.lax.map(lambda key: model(model.init(key), ROWS)[:, 0], keys))(keys))
    right = np.asarray(ntk.infinite_width(model)(ROWS).nngp)
    diagonal = np.diag(right)
    error = np.sqrt((np.outer(diagonal, diagonal) + right**2) / OUTPUT_STARTS)
    return _largest(np.cov(outputs, rowvar=False) - right, error, right)


def markdown(record: dict) -> str:
    """A row for each network: distances in standard errors, and the largest of these in percent."""
    kernels = list(dict.fromkeys(run["kernel"] for run in record["runs"]))
    lines = [f"| network | activation | {' | '.join(kernels)} |", "|---" * (2 + len(kernels)) + "|"]
    networks = dict.fromkeys((run["model"], run["activation"]) for run in record["runs"])
    for network in networks:
        found = {run["kernel"]: run for run in record["runs"] if (run["model"], run["activation"]) == network}
        cells = [
            f"{found[kernel]['standard_errors']:.2f} ({100 * found[kernel]['standard_error_share']:.2g} %)"
            for kernel in kernels
        ]
        lines.append(f"| {' | '.join([*network, *cells])} |")
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
            model = make(activation)
            for kernel, found in [
                ("ntk", measure_ntk(model, None)),
                ("ntk, PseudoHuber(0.5)", measure_ntk(model, SMOOTHED)),
                ("nngp", measure_nngp(model)),
            ]:
                runs.append({"model": label, "activation": activation, "kernel": kernel, **found})
                print(runs[-1], flush=True)
    print(
        markdown(
            write(
                arguments.output,
                {"starts": STARTS, "output_starts": OUTPUT_STARTS, "rows": ROWS.tolist(), "runs": runs},
            )
        )
    )


if __name__ == "__main__":
    main()
