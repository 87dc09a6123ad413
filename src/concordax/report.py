"""A fit as one HTML file that needs no network: what was fitted, how good it is, pictures, how it was fitted.

Computes nothing: every number is one of the summary's, every picture one of `plots.py`.
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from . import pages, plots
from ._status import RunStatus
from .pages import Picture, picture
from .summary import FitSummary, Metric

_UNITS = {"target": "in units of the target", "nats": "nats a row", "share": "share"}
_TITLES = {"R2": "R²"}
# What each score is to be read beside; "trivial" is the score of the trivial predictor itself.
_TRIVIAL = {
    "RMSE": "by always predicting the mean",
    "accuracy": "by always predicting the most frequent class",
    "log likelihood": "by the mean and spread of the training rows",
    "log loss": "by the class frequencies",
}
_HEADLINES = {
    "regression": (("RMSE", None), ("log likelihood", "log likelihood, noise only"), ("95% interval coverage", None)),
    "classification": (("accuracy", None), ("log loss", None), ("expected calibration error", None)),
}


class Headline(NamedTuple):
    """A score to see first.

    Attributes:
        metric: the score.
        beside: numbers to compare it with, each with the words that follow it.
    """

    metric: Metric
    beside: tuple[tuple[float, str], ...]


def write(summary: FitSummary, path: pathlib.Path) -> pathlib.Path:
    """Writes the report as `pages.write` does, which has the errors.

    Args:
        summary: the fit.
        path: where to; its folder must exist.

    Returns:
        The path.
    """
    return pages.write(render(summary), path)


def render(summary: FitSummary) -> str:
    """The report as one HTML document.

    Args:
        summary: the fit.

    Returns:
        HTML without any reference to another file.
    """
    environment = pages.environment()
    environment.filters["title"] = lambda name: _TITLES.get(name, name[:1].upper() + name[1:])
    return environment.get_template("report.html.j2").render(
        fit=summary,
        units=_UNITS,
        headlines=list(_headlines(summary)),
        held_out=list(_held_out_pictures(summary)),
        run=list(_run_pictures(summary)),
        kernel=list(_kernel_pictures(summary)),
        failed=summary.status in {s.name.lower().replace("_", " ") for s in RunStatus if not s.succeeded},
    )


def _headlines(summary: FitSummary) -> Iterator[Headline]:
    metrics = {metric.name: metric for metric in summary.metrics}
    for name, other in _HEADLINES[summary.task]:
        if name not in metrics:
            continue
        metric, beside = metrics[name], []
        if other in metrics:
            beside.append((metrics[other].value, "without the parameters' uncertainty"))
        if metric.baseline is not None:
            beside.append((metric.baseline, _TRIVIAL[name]))
        yield Headline(metric, tuple(beside))


def _sample_note(summary: FitSummary) -> str:
    drawn, rows = len(plots.shown_rows(len(summary.y_true))), len(summary.y_true)
    return "" if drawn == rows else f" Drawn are {drawn:,} of {rows:,} rows, evenly spaced."


def _held_out_pictures(summary: FitSummary) -> Iterator[Picture]:
    """Pictures of the predictions on held-out rows."""
    if not len(summary.y_true):
        return
    if summary.task == "regression":
        yield from _regression_pictures(summary)
    else:
        yield from _classification_pictures(summary)
    yield from _importance_picture(summary)


def _importance_picture(summary: FitSummary) -> Iterator[Picture]:
    if summary.importance:
        unit = "RMSE" if summary.task == "regression" else "log loss"
        shown = min(len(summary.importance), plots.MOST_BARS)
        rest = "" if shown == len(summary.importance) else f" The first {shown} of {len(summary.importance)} columns."
        yield picture(
            plots.importance(summary.importance, unit),
            "Importance of the columns",
            f"By how much the {unit} of held-out rows rises when the values of one column are shuffled; the lines are "
            "one standard deviation. Columns that say the same hide each other." + rest,
            "Bars of the rise of the score by column: "
            + ", ".join(f"{name} {mean:.3g}" for name, mean, _ in summary.importance[:shown]),
        )


def _regression_pictures(summary: FitSummary) -> Iterator[Picture]:
    y_true, y_pred = summary.y_true, summary.y_pred
    note = _sample_note(summary)
    yield picture(
        plots.predictions(y_true, y_pred, summary.y_interval),
        "Predicted against true",
        "Each point is a held-out row; on the dashed line the prediction is exact. About 19 of 20 bars should reach "
        "that line." + note,
        f"Scatter of predicted against true {summary.target} for held-out rows",
    )
    yield picture(
        plots.residuals(y_true, y_pred, summary.y_deviations),
        "Residuals",
        "A good fit is a shapeless cloud about zero. A slope or bend means something was not learnt; a cloud that "
        "widens or leaves the dashed lines means the error bars are wrong there." + note,
        "Scatter of residuals in predicted standard deviations over predictions for held-out rows",
    )
    if summary.coverage:
        yield picture(
            plots.coverage(summary.coverage, len(y_true)),
            "Coverage of the intervals",
            "How often the truth lies in an interval that promises the share below. Under the dashed line the "
            "intervals are too narrow, over it too wide; within the gray band it may be chance.",
            "Observed against promised coverage: "
            + ", ".join(f"{observed:.3g} for {nominal:.3g}" for nominal, observed in summary.coverage),
        )


def _classification_pictures(summary: FitSummary) -> Iterator[Picture]:
    yield picture(
        plots.confusion(summary.y_true, summary.y_pred, summary.classes),
        "Confusion matrix",
        "Rows are true classes, columns predicted ones. The diagonal is right (blue); all else are mistakes (orange), "
        "stronger the larger their share of the true class.",
        "Matrix of counts of held-out rows by true and predicted class",
    )
    if summary.reliability:
        yield picture(
            plots.reliability(summary.reliability),
            "Reliability",
            "When the classifier says 80%, it should be right in 80 of 100 rows: on the dashed line. Points below it "
            "are overconfident; within their gray bar it may be chance. Below: the rows in each group.",
            "Observed accuracy by confidence: "
            + ", ".join(f"{seen:.3g} at {sure:.3g} ({rows} rows)" for sure, seen, rows in summary.reliability),
        )
    if summary.probabilities is not None:
        yield picture(
            plots.confidence(summary.probabilities, summary.y_true == summary.y_pred),
            "Confidence where right and wrong",
            "Mistakes (dashed) should lie to the left, where the classifier itself is in doubt. Mistakes at the far "
            "right are rows worth a look: they may be mislabeled.",
            "Histogram of confidence for rows predicted rightly and wrongly, logarithmic counts",
        )


def _run_pictures(summary: FitSummary) -> Iterator[Picture]:
    """Pictures of how the fit went."""
    names = {"objective": "objective", "loss": "training loss", "validation_loss": "validation loss"}
    figure = plots.history(summary.history, (names, {"damping": "damping", "step_size": "step size"}))
    if figure is not None:
        yield picture(
            figure,
            "Training",
            "The objective is the loss plus the strength times the penalty; where it is flat, the fit has settled. "
            "It may jump while the strength still changes. Damping that falls means the steps can be trusted.",
            "Objective, training loss, damping and step size over the steps, logarithmic",
        )
    panels = ({"strength": "strength"}, {"effective_parameters": "effective parameters"})
    figure = plots.history(summary.history, panels)
    if figure is not None:
        yield picture(
            figure,
            "Strength and effective parameters",
            "The strength holds the network back; the effective parameters are those the data determine. What is kept "
            "are the parameters of the step named below, where evidence and leave-one-out score are best.",
            "Strength and effective number of parameters over the steps, logarithmic",
        )
    eigenvalues = summary.kernel_eigenvalues
    effective = summary.effective_parameters
    if eigenvalues is not None and effective is not None and np.any(np.asarray(eigenvalues) > 0):
        yield picture(
            plots.spectrum(eigenvalues, summary.strength, effective),
            "Kernel spectrum",
            "Eigenvalues of the neural tangent kernel at the solution. Directions above the dashed line (the strength) "
            "are learnt from the data, those below are held back; about as many are above as there are effective "
            "parameters (dotted).",
            "Eigenvalues of the kernel in descending order with the strength as a line, logarithmic",
        )


def _kernel_pictures(summary: FitSummary) -> Iterator[Picture]:
    """Pictures of the kernel while training."""
    record = summary.kernel_history
    if record is None or len(record["step"]) < 2:
        return
    yield picture(
        plots.kernel_spectrum(record),
        "Spectrum of the kernel",
        "Eigenvalues of the neural tangent kernel on a sample of the training rows. What lies above the strength "
        "(dashed) is learnt from the data; the effective dimension counts how many such directions the sample has.",
        "Largest and smallest eigenvalue of the kernel, strength and effective dimension over the steps",
    )
    yield picture(
        plots.kernel_change(record),
        "Change of the kernel",
        "A drift far below 1 means the network is trained as if it were linear, by kernel regression; a larger one, "
        "that it learns features. Alignment is how well the kernel's large directions fit the target. The "
        "linearization error is by how much a step missed what the linear model promised; the signs are those of "
        "hidden units that are as at the start.",
        "Drift of the kernel, linearization error, alignment and unchanged signs over the steps",
    )
