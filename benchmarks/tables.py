"""Error, likelihood, calibration and seconds of the default estimators and of others on tables; one JSON record.

    python benchmarks/tables.py --data-dir FOLDER --output benchmarks/records/tables.json
    python benchmarks/tables.py ... --tables concrete kin8nm --contestants concordax "Gaussian process" --splits 5

FOLDER holds the named tables that scikit-learn does not bring, as NAME.npz (see benchmarks/datasets.py). What is run
replaces what the record had of the same table, contestant and split; the rest of the record stays. One core: run it
under `taskset`, with one thread. Seconds are of the whole fit, wall clock, any search or cross-validation included.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from contestants import CONTESTANTS
from datasets import NAMED, OTHERS, TABLES, Table, chosen
from results import write
from scipy.stats import norm
from sklearn.metrics import log_loss

_LEVELS = (0.5, 0.8, 0.95)


def score(model, x: np.ndarray, y: np.ndarray, regression: bool) -> dict[str, float]:
    """Held-out figures of a fitted model: those that it has."""
    return _regression_scores(model, x, y) if regression else _class_scores(model, x, y)


def _regression_scores(model, x, y) -> dict[str, float]:
    final = model[-1] if hasattr(model, "steps") else model
    if type(final).__name__ not in ("GGNRegressor", "GaussianProcessRegressor"):
        return {"rmse": float(np.sqrt(np.mean((y - model.predict(x)) ** 2)))}
    mean, std = model.predict(x, return_std=True)
    z = (y - mean) / std
    figures = {
        "rmse": float(np.sqrt(np.mean((y - mean) ** 2))),
        "log_likelihood": float(np.mean(norm.logpdf(y, mean, std))),
    }
    for level in _LEVELS:
        figures[f"covered_{100 * level:.0f}"] = float(np.mean(np.abs(z) < norm.ppf(0.5 + level / 2)))
    return figures


def _class_scores(model, x, y) -> dict[str, float]:
    probabilities = model.predict_proba(x)
    right = model.classes_[np.argmax(probabilities, axis=1)] == y
    figures = {
        "error": float(1 - np.mean(right)),
        "log_loss": float(log_loss(y, probabilities, labels=model.classes_)),
        "calibration_error": calibration_error(probabilities.max(axis=1), right),
        "rows": len(y),
    }
    if type(model).__name__ == "GGNClassifier":
        plain = model.predict_proba(x, corrected=False)
        figures["log_loss_uncorrected"] = float(log_loss(y, plain, labels=model.classes_))
    return figures


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, weighted by their rows."""
    group = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(np.sum(confidence[group == b] - right[group == b])) for b in range(bins)]
    return float(np.sum(gaps) / len(right))


def run(name: str, table: Table, contestant: str, split: int, parts: tuple[np.ndarray, np.ndarray]) -> dict | None:
    """One fit and its figures; None where the contestant does not enter."""
    train, test = parts
    model = CONTESTANTS[contestant](len(train), table.regression)
    if model is None:
        return None
    start = time.perf_counter()
    with warnings.catch_warnings():
        # That a peer did not converge in its default number of steps is part of what is compared.
        warnings.simplefilter("ignore")
        model.fit(table.x[train], table.y[train])
        seconds = time.perf_counter() - start
        figures = {"split": split, **score(model, table.x[test], table.y[test], table.regression), "seconds": seconds}
    if hasattr(model, "n_steps_"):
        figures |= {"steps": model.n_steps_, "strength": model.strength_}
    shown = {key: float(f"{value:.4g}") for key, value in figures.items()}
    print(name, contestant, shown, flush=True)
    return figures


def merged(old: list[dict], new: dict) -> list[dict]:
    """The rows of a table and contestant with the new one in the place of its split."""
    return sorted([row for row in old if row["split"] != new["split"]] + [new], key=lambda row: row["split"])


def main() -> None:
    """Runs what is asked for and merges it into the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", default=["named"], help='names, "named" or "others"')
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    groups = {"named": NAMED, "others": OTHERS}
    names = [name for word in arguments.tables for name in groups.get(word, [word])]
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"tables": {}}
    for name in names:
        table = TABLES[name](arguments.data_dir)
        rows = results["tables"].setdefault(name, {})
        for contestant in arguments.contestants:
            for split, parts in chosen(table, arguments.splits):
                figures = run(name, table, contestant, split, parts)
                if figures is not None:
                    rows[contestant] = merged(rows.get(contestant, []), figures)
                    write(arguments.output, {"tables": results["tables"]}, "scikit-learn")


if __name__ == "__main__":
    main()
