"""Columns of a table: which kind each one is, its conversion, and the preprocessor in front of the network."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from concordax.errors import DataError, UsageError, shorten

# Squares of larger numbers overflow float64 when a column is standardized.
LARGEST = 1e150

# Text that hardly ever repeats is a name or an identifier: as a category it says nothing about new rows.
FREE_TEXT_SHARE = 0.9

# A category seen once, or beyond the 50 most frequent of its column, shares one "infrequent" indicator with the rest.
MIN_FREQUENCY = 2
MAX_CATEGORIES = 50

MISSING = "(missing)"


@dataclass(frozen=True)
class Column:
    """One feature column in use: its name, what it is taken for, and its type in the table that was learnt from."""

    name: str
    kind: Literal["number", "category", "date"]
    dtype: str


def describe_columns(features: pd.DataFrame) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Decides what each column is taken for.

    Numbers are numbers; text and booleans are categories; dates count in days. Left out are columns without values,
    of nearly always different text, of lists, and an index that was saved along.

    Args:
        features: [n, k] the table.

    Returns:
        The columns in use, and one sentence on each column that is left out.

    Raises:
        DataError: No column is left.
    """
    columns, notes = [], []
    for name in features.columns:
        kind, reason = _kind(features[name])
        if kind is None:
            notes.append(f"The column {name!r} is left out: {reason}.")
        else:
            columns.append(Column(name, kind, str(features[name].dtype)))
    if not columns:
        raise DataError("No column is left to predict from. " + " ".join(notes))
    return tuple(columns), tuple(notes)


def _kind(series: pd.Series) -> tuple[Literal["number", "category", "date"] | None, str]:
    values, types = series.dropna(), pd.api.types
    if values.empty:
        return None, "it has no values"
    if str(series.name).startswith("Unnamed:") and values.is_monotonic_increasing and values.is_unique:
        return None, "it has no name and only counts the rows"
    if types.is_complex_dtype(series) or types.is_timedelta64_dtype(series):
        return None, f"values of type {series.dtype} are not supported"
    if types.is_bool_dtype(series):
        return "category", ""
    if types.is_numeric_dtype(series):
        return "number", ""
    content = types.infer_dtype(values)
    if content in ("decimal", "integer", "floating", "mixed-integer-float"):
        return "number", ""
    if content in ("datetime", "datetime64", "date") or _is_iso_date(values):
        return "date", ""
    if content not in ("string", "boolean", "categorical", "mixed-integer", "mixed"):
        return None, f"values of type {content} are not supported"
    try:
        distinct = values.nunique()
    except TypeError:
        return None, "it holds lists or records"
    if distinct > FREE_TEXT_SHARE * len(values):
        return None, f"{distinct} of its {len(values)} texts are different, so they are names or free text"
    return "category", ""


def _is_iso_date(values: pd.Series) -> bool:
    text = values.astype(str)
    # The pattern keeps plain years and codes such as "20240101", which would parse too, out.
    return bool(text.str.match(r"\d{4}-\d{2}-\d{2}").all()) and bool(_parse_dates(values).notna().all())


def _parse_dates(values: pd.Series) -> pd.Series:
    return pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")


def convert(frame: pd.DataFrame, columns: tuple[Column, ...]) -> pd.DataFrame:
    """Picks the columns in use and converts them: floats for numbers and days, text for categories.

    Args:
        frame: [n, k] a table that has these columns, and maybe others.
        columns: The columns in use.

    Returns:
        [n, len(columns)] floats (NaN where missing) and text (NaN where missing).

    Raises:
        UsageError: Columns are missing.
        DataError: A value is not what its column needs, or infinite.
    """
    missing = [column.name for column in columns if column.name not in frame.columns]
    if missing:
        raise UsageError(f"The table lacks {len(missing)} of {len(columns)} columns: {shorten(missing)}.")
    return pd.DataFrame({column.name: _convert_one(frame[column.name], column) for column in columns})


def _convert_one(series: pd.Series, column: Column) -> pd.Series:
    if column.kind == "category":
        return as_labels(series)
    missing = series.isna().to_numpy()
    if column.kind == "number":
        values = pd.to_numeric(series, errors="coerce").astype(float)
    else:
        values = (_parse_dates(series) - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    bad = values.isna().to_numpy() & ~missing
    if bad.any():
        what = "a number" if column.kind == "number" else "a date like 2024-12-31"
        value = series[bad].iloc[0]
        raise DataError(f"The column {column.name!r} needs {what} in each row; {first_row(bad)} holds {value!r}.")
    infinite = (np.abs(values) >= LARGEST).to_numpy()
    if infinite.any():
        raise DataError(
            f"The column {column.name!r} is infinite or beyond {LARGEST:g} in {first_row(infinite)}: "
            "correct the value, or leave it empty if it is unknown."
        )
    return values


def as_labels(series: pd.Series) -> pd.Series:
    """Returns values as text, whole numbers without a decimal point, so that 1 and 1.0 are one label.

    Args:
        series: [n] values of any type.

    Returns:
        [n] text, NaN where missing; the type is object.
    """
    labels = [np.nan if missing else _label(value) for value, missing in zip(series, series.isna(), strict=True)]
    return pd.Series(labels, index=series.index, dtype=object, name=series.name)


def _label(value: object) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def build_preprocessor(columns: tuple[Column, ...]) -> ColumnTransformer:
    """Returns the transformer that turns converted columns into finite floats.

    Numbers: the mean where missing, an indicator of it, standardized. Categories: one indicator each; a missing value
    is a category, rare and unknown ones share an indicator. scikit-learn's own parts, because they persist without
    pickle and without trusting private types.

    Args:
        columns: The columns in use.
    """
    numbers = [column.name for column in columns if column.kind != "category"]
    categories = [column.name for column in columns if column.kind == "category"]
    scale = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    encode = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=MISSING),
        OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=MIN_FREQUENCY,
            max_categories=MAX_CATEGORIES,
            sparse_output=False,
        ),
    )
    parts = [("numbers", scale, numbers), ("categories", encode, categories)]
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0.0)


def first_row(mask: np.ndarray) -> str:
    """Names the first marked row, counting from 1 below the column names.

    Args:
        mask: [n] True where a value is bad; at least one is.
    """
    return f"row {int(np.flatnonzero(mask)[0]) + 1}"
