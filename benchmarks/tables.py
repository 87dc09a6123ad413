"""Test error, log likelihood and seconds of the default estimators on tables; writes one JSON record.

    python benchmarks/tables.py --data-dir FOLDER --splits 10 --output benchmarks/records/tables.json

FOLDER holds the UCI regression benchmark as NAME.npz (X, y, test_indices: the standard splits of Hernández-Lobato). The
classification tables are scikit-learn's, in ten stratified folds. Nothing is tuned: the estimators as they are. Beside
them stands scikit-learn's ridge regression with its strength cross-validated. Seconds are of the whole fit, wall clock;
those with compilation are of fits before each of which all compiled programs were forgotten.
"""

import argparse
import itertools
import os
import time
from pathlib import Path

import jax
import numpy as np
from results import write
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from concordax.sklearn import GGNClassifier, GGNRegressor

REGRESSION = ("bostonHousing", "concrete")
CLASSES = {"breast cancer": load_breast_cancer, "wine": load_wine}


def regression(x: np.ndarray, y: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Fits without the test rows and scores on them."""
    train = np.setdiff1d(np.arange(len(y)), test)
    model = GGNRegressor().fit(x[train], y[train])
    mean, std = model.predict(x[test], return_std=True)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-4, 4, 33))).fit(x[train], y[train])
    z = (y[test] - mean) / std
    return {
        "rmse": float(np.sqrt(np.mean((y[test] - mean) ** 2))),
        "log_likelihood": float(np.mean(-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi))),
        "covered_95": float(np.mean(np.abs(z) < 1.96)),
        "ridge_rmse": float(np.sqrt(np.mean((y[test] - ridge.predict(x[test])) ** 2))),
        **fit_figures(model),
    }


def classification(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Fits on one part and scores on the other."""
    model = GGNClassifier().fit(x[train], y[train])
    return {
        "accuracy": float(model.score(x[test], y[test])),
        "log_loss": float(log_loss(y[test], model.predict_proba(x[test]), labels=model.classes_)),
        "log_loss_uncorrected": float(
            log_loss(y[test], model.predict_proba(x[test], corrected=False), labels=model.classes_)
        ),
        **fit_figures(model),
    }


def fit_figures(model) -> dict[str, float]:
    """What the fit itself reports."""
    return {
        "seconds": model.seconds_,
        "steps": model.n_steps_,
        "strength": model.strength_,
        "effective_parameters": model.effective_parameters_,
    }


def fit_time(data_dir: Path) -> dict[str, dict[str, object]]:
    """Seconds of fits to 1000 rows with 8 features: noisy ones, and concrete's first, which take all the steps."""
    times = {}
    for name in ("noisy sine", "concrete"):
        fits = {"compiling": [], "warm": []}
        for kind, seed in itertools.product(fits, range(3)):
            x, y = _thousand_rows(name, data_dir, seed)
            if kind == "compiling":
                jax.clear_caches()
            model = GGNRegressor(random_state=seed).fit(x, y)
            fits[kind].append({"seconds": model.seconds_, "steps": model.n_steps_, "noise": model.noise_})
        times[name] = fits
        print("fit time", name, {kind: f"{_median_seconds(fits[kind]):.1f} s" for kind in fits}, flush=True)
    return times


def _thousand_rows(name: str, data_dir: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if name == "concrete":
        with np.load(data_dir / "concrete.npz") as data:
            return data["X"].astype(float)[:1000], data["y"].astype(float).ravel()[:1000]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1000, 8))
    return x, np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * rng.normal(size=1000)


def _median_seconds(fits: list[dict[str, float]]) -> float:
    return float(np.median([fit["seconds"] for fit in fits]))


def collect(data_dir: Path, splits: int) -> dict[str, list[dict[str, float]]]:
    """All tables, a list of rows each."""
    tables = {}
    for name in REGRESSION:
        with np.load(data_dir / f"{name}.npz") as data:
            x, y, parts = data["X"].astype(float), data["y"].astype(float).ravel(), data["test_indices"]
            tables[name] = [regression(x, y, parts[s].astype(int)) for s in range(splits)]
        show(name, tables[name])
    x, y = load_diabetes(return_X_y=True)
    orders = [np.random.RandomState(seed).permutation(len(y)) for seed in range(10)]
    tables["diabetes"] = [regression(x, y, order[: len(y) // 10]) for order in orders]
    show("diabetes", tables["diabetes"])
    for name, load in CLASSES.items():
        x, y = load(return_X_y=True)
        folds = StratifiedKFold(10, shuffle=True, random_state=0).split(x, y)
        tables[name] = [classification(x, y, train, test) for train, test in folds]
        show(name, tables[name])
    return tables


def show(name: str, rows: list[dict[str, float]]) -> None:
    """Prints the means of a table."""
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    print(name, f"({len(rows)} splits)", {key: float(f"{value:.4g}") for key, value in means.items()}, flush=True)


def markdown(record: dict) -> str:
    """The record as the table of the README: means over the splits, ± one standard error."""
    lines = [
        "| table | test error | log likelihood or log loss | ridge regression | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, rows in record["tables"].items():
        column = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        spread = {key: values.std(ddof=1) / np.sqrt(len(values)) for key, values in column.items()}
        mean = {key: values.mean() for key, values in column.items()}
        if "rmse" in column:
            error, ridge = f"RMSE {mean['rmse']:.2f} ± {spread['rmse']:.2f}", f"RMSE {mean['ridge_rmse']:.2f}"
            score = f"{mean['log_likelihood']:.2f} ± {spread['log_likelihood']:.2f}"
        else:
            error = f"{100 - 100 * mean['accuracy']:.1f} ± {100 * spread['accuracy']:.1f} %"
            score, ridge = f"{mean['log_loss']:.3f}, without uncertainty {mean['log_loss_uncorrected']:.3f}", ""
        lines.append(f"| {name} | {error} | {score} | {ridge} | {np.median(column['seconds']):.1f} |")
    for name, times in record["fit_time"].items():
        warm, compiling = (_median_seconds(times[kind]) for kind in ("warm", "compiling"))
        lines.append(f"| 1000 × 8, {name} | | | | {warm:.1f}, with compilation {compiling:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs all tables and writes the record."""
    # Fits that are timed with their compilation must compile.
    os.environ["CONCORDAX_CACHE_DIR"] = ""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    start = time.perf_counter()
    results = {"fit_time": fit_time(arguments.data_dir), "tables": collect(arguments.data_dir, arguments.splits)}
    record = write(arguments.output, results | {"seconds": time.perf_counter() - start}, "scikit-learn")
    print(markdown(record))


if __name__ == "__main__":
    main()
