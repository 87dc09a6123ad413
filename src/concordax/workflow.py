"""From a table to a fitted model and its summary, and from a model and a table to predictions."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from concordax.bundled import BUNDLED, load_bundled
from concordax.columns import build_preprocessor, convert
from concordax.diagnosis import Diagnosis, Finding, Severity
from concordax.errors import DataError, UsageError, shorten
from concordax.ntk import Monitor
from concordax.persistence import SavedModel
from concordax.sklearn import GGNClassifier, GGNRegressor
from concordax.summary import FitSummary, predict_in_chunks, summarize, versions
from concordax.table_checks import check_table
from concordax.tabular import Split, Table, read_frame, split_table, split_target


def load_table(source: str, target: str | None = None) -> Table:
    """Loads a CSV or Parquet file, or a bundled data set.

    Args:
        source: A path, or the name of a bundled data set; a file that exists wins.
        target: The column to predict; needed for a file.

    Raises:
        UsageError: There is no such file, data set or column, or no target is given for a file.
        DataError: The file cannot be read.
    """
    path = Path(source)
    if not path.is_file() and not path.suffix and path.name == source:
        frame = load_bundled(source)
        return split_target(frame, target or BUNDLED[source].target, name=source)
    frame = read_frame(path)
    if target is None:
        raise UsageError(f"--target is needed for a file: the column to predict, one of {shorten(frame.columns)}.")
    return split_target(frame, target, name=path.name)


def fit_split(
    split: Split,
    *,
    widths: tuple[int, ...] | str = "auto",
    max_steps: int = 100,
    seed: int = 0,
    callback: Callable[[int, dict[str, float]], bool | None] | None = None,
    monitor: Monitor | None = None,
) -> tuple[SavedModel, FitSummary]:
    """Fits a network to the training rows and scores it on the held-out rows.

    Args:
        split: The checked table.
        widths: Units of each hidden layer, or "auto", by the rows.
        max_steps: Steps at most.
        seed: Decides the initial weights.
        callback: Called as callback(step, record) after each step; True stops.
        monitor: Watches the kernel, for the summary's `kernel_history`.

    Returns:
        What a model file holds, and the summary.

    Raises:
        DataError: The estimator refuses the data.
    """
    kind = GGNRegressor if split.task.kind == "regression" else GGNClassifier
    watchers = [watcher for watcher in (callback, monitor) if watcher is not None]
    estimator = kind(hidden_widths=widths, max_steps=max_steps, random_state=seed, callback=watchers)
    pipeline = Pipeline([("preprocessor", build_preprocessor(split.columns)), ("network", estimator)])
    try:
        pipeline.fit(split.x_train, split.y_train)
    except ValueError as error:
        raise DataError(f"{split.name} cannot be fitted: {error}") from error
    estimator.set_params(callback=None)
    summary = summarize(pipeline, split)
    if monitor is not None:
        summary = replace(summary, kernel_history=monitor.history)
    return SavedModel(pipeline, split.task, split.target_name, split.columns, versions()), summary


@dataclass(frozen=True)
class Checkup:
    """What is wrong with a table and with a fit to it.

    Args:
        table: Findings on rows and columns.
        fit: Findings on the run; None where the table cannot be fitted.
        summary: The fit's scores; None likewise.
        refusal: Why the table cannot be fitted; "" where it can.
    """

    table: Diagnosis
    fit: Diagnosis | None
    summary: FitSummary | None
    refusal: str

    @property
    def serious(self) -> bool:
        """Whether anything of it is serious."""
        return bool(self.refusal) or self.table.serious or (self.fit is not None and self.fit.serious)


def check_up(
    table: Table, *, max_steps: int = 70, seed: int = 0, callback: Callable[[int, dict[str, float]], Any] | None = None
) -> Checkup:
    """Looks at a table, fits a network to it with default settings, and looks at the run.

    Args:
        table: The features and the target.
        max_steps: Steps at most.
        seed: Decides which rows are held out, and the initial weights.
        callback: Called as callback(step, record) after each step.
    """
    data = check_table(table)
    try:
        model, summary = fit_split(split_table(table, seed=seed), max_steps=max_steps, seed=seed, callback=callback)
    except DataError as error:
        return Checkup(data, None, None, str(error))
    return Checkup(data, Diagnosis([*model.pipeline[-1].explain(), *_worth(summary)]), summary, "")


def _worth(summary: FitSummary) -> list[Finding]:
    """Whether the network predicts held-out rows better than one that knows the target alone."""
    name = "RMSE" if summary.task == "regression" else "log loss"
    score = next(metric for metric in summary.metrics if metric.name == name)
    if score.baseline is None or score.value < score.baseline:
        return []
    return [
        Finding(
            "no better than guessing",
            Severity.WARNING,
            {f"held-out {name}": score.value, "without the columns": score.baseline, "rows": summary.n_test},
            "On rows that were held out the network is no better than the mean of the target, or the shares of the "
            "classes.",
            "See whether the columns say anything about the target, and look for repeated or shuffled rows.",
        )
    ]


def predict_frame(model: SavedModel, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Predicts each row of a table.

    Args:
        model: A saved model.
        frame: [m, k] a table with the model's columns; others are ignored.

    Returns:
        Columns "prediction", and "standard_deviation", "lower_95" and "upper_95" of a new observation; or "prediction"
        and "probability_<class>" for each class; and the names of the ignored columns, the target not counted.

    Raises:
        UsageError: Columns are missing.
        DataError: A value is not what its column needs, or infinite.
    """
    known = {column.name for column in model.columns} | {model.target_name}
    ignored = tuple(name for name in frame.columns if name not in known)
    x = convert(frame, model.columns)
    if model.task.kind == "regression":
        names = ("prediction", "standard_deviation", "lower_95", "upper_95")
        columns = predict_in_chunks(functools.partial(_numbers, model.pipeline), x)
        return pd.DataFrame(dict(zip(names, columns, strict=True))), ignored
    probabilities = predict_in_chunks(model.pipeline.predict_proba, x)
    classes = model.pipeline[-1].classes_
    labelled: dict[str, Any] = {"prediction": classes[np.argmax(probabilities, axis=1)]}
    labelled |= {f"probability_{label}": probabilities[:, index] for index, label in enumerate(classes)}
    return pd.DataFrame(labelled), ignored


def _numbers(pipeline: Pipeline, rows: pd.DataFrame) -> tuple[np.ndarray, ...]:
    """Medians, standard deviations and ends of the central 95 % of new observations."""
    x, estimator = pipeline[:-1].transform(rows), pipeline[-1]
    # Not the distribution's deviation: of logarithms with heavy tails that is infinite.
    return *estimator.predict(x, return_std=True), *estimator.predict_distribution(x).interval(0.95)
