"""Tables: read a file, split off the target, decide between regression and classification, hold rows out."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from concordax.columns import LARGEST, Column, as_labels, convert, describe_columns, first_row
from concordax.errors import DataError, UsageError, suggest

LossName = Literal["auto", "squared-error", "softmax-cross-entropy", "binary-cross-entropy"]
Kind = Literal["regression", "classification"]

CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".data")
PARQUET_SUFFIXES = (".parquet", ".pq")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")
SEPARATORS = (",", ";", "\t", "|")

# Whole numbers are classes when they are few and repeat. A heuristic, so the reason given names the way out.
MAX_INTEGER_CLASSES = 20
MIN_ROWS_PER_CLASS = 5

# With fewer rows than this neither a fit nor a held-out score means anything.
MIN_ROWS = 5


@dataclass(frozen=True)
class Table:
    """Features and target of one data set, not yet checked.

    Args:
        name: Data set or file name, for people.
        target_name: Name of the target column.
        features: [n, k] columns of any type.
        target: [n] values of any type.
    """

    name: str
    target_name: str
    features: pd.DataFrame
    target: pd.Series


@dataclass(frozen=True)
class Task:
    """What is learnt: the kind, the loss, and one sentence on why."""

    kind: Kind
    loss: str
    reason: str


@dataclass(frozen=True)
class Split:
    """A checked table, split into rows to learn from and rows to score on; all that a fit and its summary need.

    Args:
        name: Data set or file name.
        target_name: Name of the target column.
        task: Kind, loss and reason.
        columns: The columns in use.
        x_train: [n, k] converted features.
        x_test: [m, k] converted features.
        y_train: [n] floats, or labels.
        y_test: [m] floats, or labels.
        notes: What was left out or moved, one sentence each.
    """

    name: str
    target_name: str
    task: Task
    columns: tuple[Column, ...]
    x_train: pd.DataFrame
    x_test: pd.DataFrame
    y_train: np.ndarray
    y_test: np.ndarray
    notes: tuple[str, ...]


def read_frame(path: Path) -> pd.DataFrame:
    """Reads a CSV (comma, semicolon, tab or bar; plain or compressed) or Parquet file.

    Empty fields, "NA" and the like, and "?" count as missing. Column names become stripped text.

    Args:
        path: The file; its suffix decides how it is read.

    Returns:
        The table, one row or more.

    Raises:
        UsageError: There is no such file, or it has another suffix.
        DataError: The file is empty or cannot be parsed.
    """
    if not path.exists():
        raise UsageError(f"There is no file {str(path)!r}.")
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder; a CSV or Parquet file is needed.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in CSV_SUFFIXES + PARQUET_SUFFIXES:
        raise UsageError(f"Cannot tell the format of {str(path)!r} from its name: save it as .csv or .parquet.")
    frame = _read_parquet(path) if suffix in PARQUET_SUFFIXES else _read_csv(path)
    names = [str(name).strip() for name in frame.columns]
    frame.columns = pd.Index(names)
    repeated = sorted(name for name in set(names) if names.count(name) > 1)
    if repeated:
        raise DataError(f"{path.name} has more than one column named {repeated[0]!r}; every name must occur once.")
    if frame.empty:
        raise DataError(f"{path.name} has column names but no rows.")
    return frame.reset_index(drop=True)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{path.name} cannot be read as Parquet: {_one_line(error)}") from error


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        headers = {
            sep: pd.read_csv(path, sep=sep, nrows=0, encoding="utf-8-sig", index_col=False) for sep in SEPARATORS
        }
        # A separator inside of a quoted name cuts it into parts that keep their quotes.
        separator = max(SEPARATORS, key=lambda sep: (headers[sep].shape[1], -"".join(headers[sep].columns).count('"')))
        with warnings.catch_warnings():
            # A row longer than the header would otherwise lose its last fields, or its first would become an index.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=separator,
                na_values=["?"],
                encoding="utf-8-sig",
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
            )
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path.name} is empty: a line of column names and rows below it are needed.") from error
    except pd.errors.ParserWarning as error:
        raise DataError(f"{path.name} has rows with more fields than there are column names.") from error
    except pd.errors.ParserError as error:
        raise DataError(f"{path.name} cannot be read as CSV: {_one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text: save it with the encoding UTF-8, or as Parquet.") from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read: {_one_line(error)}") from error


def split_target(frame: pd.DataFrame, target: str, *, name: str) -> Table:
    """Takes the target column out of a table.

    Args:
        frame: [n, k + 1] the table.
        target: Name of a column.
        name: Data set or file name, for people.

    Returns:
        The table with k feature columns.

    Raises:
        UsageError: There is no such column.
        DataError: There is no other column.
    """
    if target not in frame.columns:
        hint = suggest(target, frame.columns)
        if all(_is_number(column) for column in frame.columns):
            hint += " All names are numbers: has the file no line of column names?"
        raise UsageError(f"{name} has no column {target!r} to use as the target.{hint}")
    if frame.shape[1] == 1:
        raise DataError(f"{name} has no column besides the target {target!r}; at least one is needed to predict from.")
    return Table(name, target, frame.drop(columns=target), frame[target])


def decide_task(target: pd.Series, loss: LossName = "auto") -> Task:
    """Decides between regression and classification, and says why.

    Text, categories and booleans are classes, and so are whole numbers with at most 20 distinct values of on average
    5 rows or more; other numbers are amounts.

    Args:
        target: [n] checked values, none missing.
        loss: A loss the user asks for, or "auto".

    Returns:
        Kind, loss and reason.

    Raises:
        DataError: The target suits no loss, or not the one asked for.
    """
    name, distinct = str(target.name), int(target.nunique())
    numeric = pd.api.types.is_numeric_dtype(target) and not pd.api.types.is_bool_dtype(target)
    if loss == "squared-error":
        return Task("regression", "squared error", "Squared error, as asked for.")
    if loss == "binary-cross-entropy" and distinct != 2:
        raise DataError(
            f"Binary cross-entropy needs two classes; {name!r} holds {distinct}: use softmax-cross-entropy."
        )
    if loss == "softmax-cross-entropy" and distinct == 2:
        raise DataError(
            f"Softmax cross-entropy is for three classes or more; {name!r} holds two: use binary-cross-entropy."
        )
    if loss == "auto" and numeric and not _whole_numbers_are_classes(target):
        reason = f"Squared error, because {name!r} holds numbers ({distinct} different ones in {len(target)} rows)."
        return Task("regression", "squared error", reason)
    if distinct > len(target) / 2:
        what = "numbers" if numeric else "texts"
        raise DataError(f"{name!r} holds {distinct} different {what} in {len(target)} rows: too many to be classes.")
    chosen = "binary cross-entropy" if distinct == 2 else "softmax cross-entropy"
    if loss != "auto":
        return Task("classification", chosen, f"{chosen.capitalize()}, as asked for.")
    what = "different whole numbers" if numeric else "classes"
    way_out = " (if they are amounts, not classes: --loss squared-error)" if numeric else ""
    return Task("classification", chosen, f"{chosen.capitalize()}, because {name!r} holds {distinct} {what}{way_out}.")


def _whole_numbers_are_classes(target: pd.Series) -> bool:
    values, distinct = target.to_numpy(dtype=float), int(target.nunique())
    whole = bool((values == np.round(values)).all())
    return whole and (
        distinct == 2 or (distinct <= MAX_INTEGER_CLASSES and distinct * MIN_ROWS_PER_CLASS <= len(values))
    )


def check_target(target: pd.Series) -> None:
    """Refuses a target with missing, infinite, too few or constant values.

    Args:
        target: [n] values of any type.

    Raises:
        DataError: Says what is wrong, and in which row first.
    """
    name = target.name
    missing = target.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"The target {name!r} is missing in {missing.sum()} of {len(target)} rows, first in {first_row(missing)}: "
            "remove these rows."
        )
    if pd.api.types.is_datetime64_any_dtype(target) or pd.api.types.is_timedelta64_dtype(target):
        raise DataError(f"The target {name!r} holds dates or durations: turn them into numbers first.")
    if pd.api.types.is_complex_dtype(target):
        raise DataError(f"The target {name!r} holds complex numbers; real ones are needed.")
    if pd.api.types.is_numeric_dtype(target):
        infinite = ~(np.abs(target.to_numpy(dtype=float)) < LARGEST)
        if infinite.any():
            raise DataError(f"The target {name!r} is infinite or beyond {LARGEST:g} in {first_row(infinite)}.")
    if len(target) < MIN_ROWS:
        raise DataError(f"There are {len(target)} rows; at least {MIN_ROWS} are needed to fit and to hold some out.")
    try:
        constant = target.nunique() < 2
    except TypeError as error:
        raise DataError(f"The target {name!r} holds lists or records; numbers or labels are needed.") from error
    if constant:
        raise DataError(f"The target {name!r} is {target.iloc[0]!s} in every row: there is nothing to learn.")


def target_values(target: pd.Series, task: Task) -> np.ndarray:
    """Returns the target as [n] floats (regression), whole numbers or text labels (classification).

    Args:
        target: [n] checked values.
        task: What is learnt.

    Raises:
        DataError: A number is needed and a value is none.
    """
    if task.kind == "classification":
        if pd.api.types.is_integer_dtype(target):
            return target.to_numpy(dtype=np.int64)
        return as_labels(target).to_numpy(dtype=str)
    values = pd.to_numeric(target, errors="coerce").to_numpy(dtype=float)
    bad = np.isnan(values)
    if bad.any():
        value = target[bad].iloc[0]
        raise DataError(f"Squared error needs numbers; {target.name!r} holds {value!r} in {first_row(bad)}.")
    return values


def split_table(table: Table, *, loss: LossName = "auto", test_size: float = 0.2, seed: int = 0) -> Split:
    """Checks a table, decides what is learnt, and holds rows out.

    Classification holds out the same share of each class, and keeps at least one row of each class to learn from.

    Args:
        table: The features and the target.
        loss: A loss the user asks for, or "auto".
        test_size: Share of the rows to hold out, between 0 and 1.
        seed: Decides which rows are held out.

    Returns:
        The converted training and held-out rows.

    Raises:
        UsageError: `test_size` is not between 0 and 1.
        DataError: The table cannot be used; the message names the column.
    """
    if not 0 < test_size < 1:
        raise UsageError(f"test_size is {test_size:g}; a share between 0 and 1 is needed, 0.2 for a fifth of the rows.")
    check_target(table.target)
    task = decide_task(table.target, loss)
    values = target_values(table.target, task)
    columns, notes = describe_columns(table.features)
    features = convert(table.features, columns)
    train, test, moved = _split_rows(values, task, test_size, seed)
    return Split(
        name=table.name,
        target_name=table.target_name,
        task=task,
        columns=columns,
        x_train=features.iloc[train],
        x_test=features.iloc[test],
        y_train=values[train],
        y_test=values[test],
        notes=notes + moved,
    )


def _split_rows(
    values: np.ndarray, task: Task, test_size: float, seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    rows = np.arange(len(values))
    held_out = min(max(round(test_size * len(rows)), 1), len(rows) - 2)
    if task.kind == "regression":
        train, test = train_test_split(rows, test_size=held_out, random_state=seed)
        return np.sort(train), np.sort(test), ()
    labels, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    single = counts[codes] == 1
    rest = rows[~single]
    held_out = min(held_out, len(rest) - 1)
    enough = min(held_out, len(rest) - held_out) >= len(np.unique(codes[rest]))
    stratify = codes[rest] if enough else None
    _, test = train_test_split(rest, test_size=held_out, random_state=seed, stratify=stratify)
    # Without strata, or with large test sizes, a class can lose all its rows: its first one goes back.
    for code in np.setdiff1d(codes, np.delete(codes, test)):
        test = np.delete(test, np.flatnonzero(codes[test] == code)[0])
    if test.size == 0:
        raise DataError(
            f"There are {len(rows)} rows for {len(labels)} classes: none is left to hold out; more are needed."
        )
    notes = tuple(
        f"The class {label!s} has one row: it is kept to learn from, and no held-out row tests it."
        for label in labels[counts == 1]
    )
    return np.setdiff1d(rows, test), np.sort(test), notes


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
