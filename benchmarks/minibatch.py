"""Mini-batches: test accuracy after three epochs of 64 rows a batch, beside SGD with momentum and Adam.

    python benchmarks/minibatch.py --data-dir DATA --output benchmarks/records/minibatch.json

`DATA` holds `mnist10k.npz` and `pendigits.npz`, each with X_train, y_train, X_test, y_test; the digits of scikit-learn
need no file. concordax runs at its defaults. The others run at each rate of a grid with the first seed,
and with all seeds at the rate that was best on the test rows, which favors them.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
import optax
from results import stored_tables, write
from sklearn.datasets import load_digits

import concordax as cx

EPOCHS = 3
BATCH = 64
STRENGTH = 1e-6
# Hidden units and activation of each table, and how many seeds are run.
TABLES = {
    "mnist10k": (512, "relu", 3),
    "digits": (128, "tanh", 3),
    "pendigits": (128, "tanh", 3),
}
RATES = {"SGD, momentum 0.9": (1.0, 3.0, 10.0), "Adam": (1e-2, 3e-2, 1e-1)}
OPTIMIZERS = {"SGD, momentum 0.9": lambda rate: optax.sgd(rate, momentum=0.9), "Adam": optax.adam}


def read(name: str, data_dir: Path) -> tuple[np.ndarray, ...]:
    """Training and test rows: pixels by their common mean and deviation, other columns by their own."""
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        order = np.random.RandomState(0).permutation(len(y))
        parts = x[order[:1400]], y[order[:1400]], x[order[1400:]], y[order[1400:]]
    else:
        with np.load(data_dir / f"{name}.npz") as data:
            parts = data["X_train"], data["y_train"], data["X_test"], data["y_test"]
    x, y, x_test, y_test = parts
    x, x_test = x.astype(np.float32), x_test.astype(np.float32)
    axis = None if name == "mnist10k" else 0
    mean, deviation = x.mean(axis=axis), x.std(axis=axis)
    deviation = np.where(deviation > 0, deviation, 1)
    classes, labels = np.unique(y, return_inverse=True)
    return (x - mean) / deviation, labels, (x_test - mean) / deviation, np.searchsorted(classes, y_test)


def run(name: str, data: tuple[np.ndarray, ...], seed: int, optimizer=None) -> dict[str, float]:
    """Test accuracy of the parameters offered and of the last ones, and processor seconds of one run."""
    x, y, x_test, y_test = data
    width, activation, _ = TABLES[name]
    model = cx.MLP(x.shape[1], (width,), int(y.max()) + 1, activation=activation)
    batches = -(-len(y) // BATCH)
    start = time.process_time()
    result = cx.train(
        model, cx.SoftmaxCrossEntropy(), cx.L2(), model.init(jax.random.key(seed)), (x, y), strength=STRENGTH,
        optimizer=optimizer, batch_size=BATCH, key=jax.random.key(seed), max_steps=EPOCHS * batches, tolerance=0.0,
    )  # fmt: skip
    seconds = time.process_time() - start
    accuracy = lambda params: float(np.mean(np.argmax(model(params, x_test), axis=1) == y_test))
    return {"accuracy": accuracy(result.best_params), "last": accuracy(result.params), "seconds": seconds}


def measure(name: str, data_dir: Path, contestants: list[str]) -> dict[str, object]:
    """Some contestants on one table."""
    data, seeds = read(name, data_dir), TABLES[name][2]
    rows: dict[str, object] = {}
    if "concordax" in contestants:
        rows["concordax"] = {"runs": [run(name, data, seed) for seed in range(seeds)]}
        print(name, rows, flush=True)
    for label, rates in RATES.items():
        if label not in contestants:
            continue
        tried = {rate: run(name, data, 0, OPTIMIZERS[label](rate)) for rate in rates}
        best = max(tried, key=lambda rate: tried[rate]["accuracy"])
        more = [run(name, data, seed, OPTIMIZERS[label](best)) for seed in range(1, seeds)]
        grid = {str(rate): result["accuracy"] for rate, result in tried.items()}
        rows[label] = {"rate": best, "grid": grid, "runs": [tried[best], *more]}
        print(name, label, rows[label], flush=True)
    return rows


def markdown(record: dict) -> str:
    """Mean test accuracy over the seeds, the lowest in brackets, and the median of processor seconds."""
    contestants = ("concordax", *RATES)
    lines = [f"| table | seeds | {' | '.join(contestants)} |", "|---|---|" + "---|" * len(contestants)]
    for name, rows in record["tables"].items():
        cells = []
        for label in contestants:
            runs = rows[label]["runs"]
            shares = [100 * each["accuracy"] for each in runs]
            rate = f" at {rows[label]['rate']:g}" if "rate" in rows[label] else ""
            seconds = np.median([each["seconds"] for each in runs])
            cells.append(f"{np.mean(shares):.2f} % ({min(shares):.2f} %){rate}, {seconds:.3g} s")
        lines.append(f"| {name} | {len(rows['concordax']['runs'])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all tables and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--contestants", nargs="*", default=["concordax", *RATES], choices=["concordax", *RATES])
    parser.add_argument("--output", type=Path, required=True, help="a record there keeps what is not measured anew")
    arguments = parser.parse_args()
    tables = stored_tables(arguments.output)
    for name in arguments.tables:
        tables[name] = tables.get(name, {}) | measure(name, arguments.data_dir, arguments.contestants)
        record = write(arguments.output, {"epochs": EPOCHS, "batch": BATCH, "strength": STRENGTH, "tables": tables})
    print(markdown(record))


if __name__ == "__main__":
    main()
