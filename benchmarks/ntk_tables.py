"""Kernel regression with the tangent kernel beside GGNRegressor and a Gaussian process: three tables, one JSON record.

    python benchmarks/ntk_tables.py --data-dir FOLDER --output benchmarks/records/ntk_tables.json

The tables, splits and figures are those of benchmarks/tables.py, of kin8nm the first 2,000 rows, whose held-out ones of
each split stay held out. All take their defaults; the Gaussian process has an RBF kernel and noise, tuned by the
marginal likelihood on standardised inputs. One core: run it under `taskset`, with one thread.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from contestants import concordax, gaussian_process
from datasets import TABLES, Table
from results import write
from sklearn.base import BaseEstimator
from tables import score

from concordax.ntk import KernelRegression

CONTESTANTS: dict[str, Callable[[int], BaseEstimator]] = {
    "infinite width": lambda _: KernelRegression(),
    "infinite width, leave-one-out": lambda _: KernelRegression(strength="loo"),
    "width 1,000": lambda _: KernelRegression(width=1000),
    "GGNRegressor": lambda rows: concordax(rows, True),
    "Gaussian process": lambda rows: gaussian_process(rows, True),
}
# Rows, and splits at most: the Gaussian process takes minutes on 2,000 rows.
SIZES = {"concrete": (1030, 10), "bostonHousing": (506, 10), "kin8nm": (2000, 3)}


def shortened(table: Table, rows: int) -> Table:
    """The first rows of a table, in the same splits."""
    splits = [tuple(part[part < rows] for part in split) for split in table.splits]
    return Table(table.x[:rows], table.y[:rows], splits, table.regression)


def run(model: BaseEstimator, table: Table, split: int) -> dict[str, float]:
    """One fit and its figures."""
    train, test = table.splits[split]
    start = time.perf_counter()
    with warnings.catch_warnings():
        # That a peer did not converge is part of what is compared.
        warnings.simplefilter("ignore")
        model.fit(table.x[train], table.y[train])
    seconds = time.perf_counter() - start
    return {"split": split, **score(model, table.x[test], table.y[test], True), "seconds": seconds}


def markdown(record: dict) -> str:
    """The record as a table: means over the splits, ± one standard error."""
    lines = ["| table (splits) | contestant | RMSE | log likelihood | within 95 % | seconds |", "|---" * 6 + "|"]
    for name, contestants in record["tables"].items():
        for contestant, rows in contestants.items():
            column = lambda key, rows=rows: np.array([row[key] for row in rows])
            cells = [f"{column(k).mean():.3g} ± {column(k).std(ddof=1) / len(rows) ** 0.5:.2g}" for k in ("rmse",)]
            cells += [f"{column('log_likelihood').mean():.3f}", f"{100 * column('covered_95').mean():.0f} %"]
            cells += [f"{np.median(column('seconds')):.2g}"]
            lines.append(f"| {name} ({len(rows)}) | {contestant} | {' | '.join(cells)} |")
    large = record["large"]
    lines.append(
        f"\n{large['rows']:,} rows of {large['features']} features: fitted in {large['fit']:.0f} s, {large['rows']:,} "
        f"rows predicted with error bars in {large['predict']:.0f} s."
    )
    return "\n".join(lines) + "\n"


def large(rows: int = 5000, features: int = 8) -> dict[str, float]:
    """Seconds of the default on a large table, compiled programs included."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features))
    y = np.sin(x @ rng.normal(size=features)) + 0.1 * rng.normal(size=rows)
    start = time.perf_counter()
    model = KernelRegression().fit(x, y)
    middle = time.perf_counter()
    model.predict(x, return_std=True)
    return {"rows": rows, "features": features, "fit": middle - start, "predict": time.perf_counter() - middle}


def main() -> None:
    """Runs what is asked for, and merges it into the record after each contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("."), help="folder of the tables")
    parser.add_argument("--splits", type=int, default=20, help="splits at most; fewer where SIZES says so")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"tables": {}}
    results["sizes"] = {name: rows for name, (rows, _) in SIZES.items()}
    if "large" not in results or len(arguments.contestants) == len(CONTESTANTS):
        results["large"] = large()
    for name, (rows, splits) in SIZES.items():
        table = shortened(TABLES[name](arguments.data_dir), rows)
        found = results["tables"].setdefault(name, {})
        for contestant in arguments.contestants:
            make, found[contestant] = CONTESTANTS[contestant], []
            for split in range(min(splits, arguments.splits)):
                figures = run(make(len(table.splits[split][0])), table, split)
                found[contestant].append(figures)
                print(name, contestant, {key: float(f"{value:.4g}") for key, value in figures.items()}, flush=True)
            record = write(arguments.output, results, "scikit-learn")
    print(markdown(record))


if __name__ == "__main__":
    main()
