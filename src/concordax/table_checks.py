"""What is wrong with a table before anything is fitted to it: findings, as of a run."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from concordax.columns import LARGEST, describe_columns
from concordax.diagnosis import Diagnosis, Finding, Severity
from concordax.errors import DataError, shorten
from concordax.tabular import Table

# Rows below which a fit and its held-out score say little, and rows a column below which chance correlations abound.
_FEW_ROWS, _ROWS_A_COLUMN = 50, 5
# Correlation with the target beyond which a column is the target in other units, not a predictor of it.
_LEAK = 0.99999
# Ratio of the largest standard deviation of a column to the smallest.
_SCALES = 1e6
# Share of the rows that contradict another row, below which a table is only noisy.
_CONTRADICTIONS = 0.01


def check_table(table: Table) -> Diagnosis:
    """Looks at the columns and rows of a table.

    Args:
        table: Features and target, not yet checked.

    Returns:
        The findings, most important first; empty when nothing is wrong.
    """
    checks = (_not_finite, _leaks, _few_rows, _contradictions, _left_out, _constant, _duplicates, _scales)
    with np.errstate(all="ignore"):
        return Diagnosis([finding for check in checks for finding in check(table)])


def _not_finite(table: Table) -> Iterator[Finding]:
    columns = {**{str(name): table.features[name] for name in table.features}, table.target_name: table.target}
    bad = {name: int(np.sum(np.abs(_numbers(column)) >= LARGEST)) for name, column in columns.items()}
    bad = {name: count for name, count in bad.items() if count}
    if bad:
        yield Finding(
            "values that are not finite",
            Severity.SERIOUS,
            {"cells": sum(bad.values()), "columns": shorten(bad)},
            f"These cells hold infinity or numbers beyond {LARGEST:g}; no network can be fitted to them.",
            "Correct the values, or leave them empty where they are unknown.",
        )
    missing = int(table.target.isna().sum())
    if missing:
        yield Finding(
            "target missing",
            Severity.SERIOUS,
            {"rows": missing, "of": len(table.target)},
            f"The target {table.target_name!r} is empty there: nothing can be learnt from these rows.",
            "Remove these rows; `concordax predict` can fill them in afterwards.",
        )


def _leaks(table: Table) -> Iterator[Finding]:
    """Columns that are the target: the same values, the same numbers in other units, or one name for each class."""
    leaks = [str(name) for name in table.features if _is_target(table.features[name], table.target)]
    if leaks:
        yield Finding(
            "the target among the columns",
            Severity.SERIOUS,
            {"columns": shorten(leaks)},
            f"From these columns alone the target {table.target_name!r} follows exactly: held-out scores will be "
            "perfect, and worthless if the columns are not known when predictions are needed.",
            "Remove them, unless they are really known beforehand.",
        )


def _is_target(column: pd.Series, target: pd.Series) -> bool:
    known = column.notna() & target.notna()
    column, target = column[known], target[known]
    if len(column) < 3 or _distinct(column) < 2 or _distinct(target) < 2:
        return False
    if _is_amount(column) and _is_amount(target):
        x, y = (_numbers(part) for part in (column, target))
        return bool(np.isfinite(x).all() and np.isfinite(y).all() and abs(np.corrcoef(x, y)[0, 1]) > _LEAK)
    # One to one between values: for a column that repeats, or any text that is equal to the target's.
    pairs = pd.DataFrame({"x": column.astype(str).to_numpy(), "y": target.astype(str).to_numpy()}).drop_duplicates()
    one_to_one = pairs["x"].is_unique and pairs["y"].is_unique
    return bool(one_to_one and (len(pairs) < 0.5 * len(column) or (pairs["x"] == pairs["y"]).all()))


def _few_rows(table: Table) -> Iterator[Finding]:
    rows, columns = table.features.shape
    if rows >= max(_FEW_ROWS, _ROWS_A_COLUMN * columns):
        return
    yield Finding(
        "few rows",
        Severity.WARNING if rows < _FEW_ROWS else Severity.NOTE,
        {"rows": rows, "columns": columns},
        "With so few rows a held-out score is mostly chance, and some column will seem to matter by chance too.",
        "Find more rows, or leave columns out that cannot matter; look at the error bars rather than at the score.",
    )


def _contradictions(table: Table) -> Iterator[Finding]:
    """Rows that agree in every column but not in the target."""
    try:
        groups = table.target.groupby(pd.util.hash_pandas_object(table.features, index=False))
        different = groups.transform("nunique") > 1
    except TypeError:  # lists and records have no hash
        return
    count = int(different.sum())
    if not count:
        return
    yield Finding(
        "same columns, different targets",
        Severity.WARNING if count > _CONTRADICTIONS * len(table.target) else Severity.NOTE,
        {"rows": count, "of": len(table.target), "first": f"row {int(np.flatnonzero(different)[0]) + 1}"},
        "These rows agree in every column and not in the target: no function of the columns can meet them all.",
        "Add the column in which they differ, or take the difference as noise; keep repeats of a row on one side of a "
        "split.",
    )


def _left_out(table: Table) -> Iterator[Finding]:
    try:
        notes = describe_columns(table.features)[1]
    except DataError as error:
        yield Finding("no usable column", Severity.SERIOUS, {}, str(error), "Add a column of numbers or categories.")
        return
    if notes:
        change = "Nothing, or turn them into numbers or categories."
        yield Finding("columns left out", Severity.NOTE, {"columns": len(notes)}, " ".join(notes), change)


def _constant(table: Table) -> Iterator[Finding]:
    constant = [str(name) for name in table.features if _distinct(table.features[name]) == 1]
    if constant:
        meaning = "Each holds one value in every row, and so says nothing."
        yield Finding("constant columns", Severity.NOTE, {"columns": shorten(constant)}, meaning, "Remove them.")


def _duplicates(table: Table) -> Iterator[Finding]:
    features, seen, again = table.features, {}, []
    for name in features:
        column = features[name]
        # Equal after standardization too, such as a length in other units.
        spread = float(np.std(_numbers(column))) if _is_amount(column) and column.notna().all() else 0.0
        values = (_numbers(column) - _numbers(column).mean()) / spread if spread > 0 else column.astype(str).to_numpy()
        key = tuple(np.round(values, 9)) if spread > 0 else tuple(values)
        if _distinct(column) > 1 and key in seen:
            again.append(f"{name} = {seen[key]}")
        seen.setdefault(key, name)
    if again:
        yield Finding(
            "duplicate columns",
            Severity.NOTE,
            {"columns": shorten(again)},
            "They hold the same values, but for the unit: they share one weight's work, and their importances.",
            "Remove one of each pair.",
        )


def _scales(table: Table) -> Iterator[Finding]:
    filled = [name for name in table.features if _distinct(table.features[name]) > 1]
    amounts = {str(name): _numbers(table.features[name]) for name in filled if _is_amount(table.features[name])}
    spreads = {name: float(np.std(values[np.isfinite(values)])) for name, values in amounts.items()}
    spreads = {name: spread for name, spread in spreads.items() if 0 < spread < np.inf}
    if spreads and max(spreads.values()) > _SCALES * min(spreads.values()):
        large, small = max(spreads, key=spreads.__getitem__), min(spreads, key=spreads.__getitem__)
        yield Finding(
            "wildly different scales",
            Severity.NOTE,
            {f"standard deviation of {large!r}": spreads[large], f"of {small!r}": spreads[small]},
            "The fit standardizes every column, so this does no harm here; a mistaken unit or a code for 'missing', "
            "such as 999999, would look the same.",
            "Check the units, and that no number stands for a missing value.",
        )


def _is_amount(column: pd.Series) -> bool:
    types = pd.api.types
    return types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and not types.is_complex_dtype(column)


def _numbers(column: pd.Series) -> np.ndarray:
    """Its numbers, NaN where missing; zeros where it holds none."""
    return column.to_numpy(dtype=float, na_value=np.nan) if _is_amount(column) else np.zeros(len(column))


def _distinct(column: pd.Series) -> int:
    try:
        return int(column.nunique())
    except TypeError:  # lists and records
        return len(column)
