"""Pictures of predictions on held-out rows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.stats import binom

from .style import (
    EXACT,
    FIRST,
    GRID,
    INK,
    MOST_NUMBERED_CLASSES,
    MUTED,
    NORMAL_95,
    POINTS,
    SECOND,
    canvas,
    clean,
    log_axis,
    percent,
    shown_rows,
)


def predictions(y_true: np.ndarray, y_pred: np.ndarray, interval: np.ndarray | None = None) -> Figure:
    """Predicted against true values with 95% error bars.

    Args:
        y_true: [m] true values of held-out rows, in target units.
        y_pred: [m] predicted values.
        interval: [m, 2] ends of the 95% intervals of a new observation, or None for no bars.

    Returns:
        The figure.
    """
    rows = shown_rows(len(y_true))
    both = np.concatenate([y_true, y_pred])
    low, high = float(both.min()), float(both.max())
    # The axes follow the points: one row with a huge error bar must not press all others together.
    margin = 0.06 * (high - low) + (0.0 if interval is None else float(np.median(np.ptp(interval, axis=1))) / 4) or 1.0
    limits = (low - margin, high + margin)
    with canvas() as (figure, [axes]):
        if interval is not None:
            bars: dict[str, Any] = {"fmt": "none", "ecolor": FIRST, "elinewidth": 0.8, "alpha": 0.35}
            lengths = np.abs(interval[rows].T - y_pred[rows])
            axes.errorbar(y_true[rows], y_pred[rows], lengths, label="95% interval", **bars)
        axes.plot(y_true[rows], y_pred[rows], "o", **POINTS)
        axes.plot(limits, limits, **EXACT)
        axes.set(xlabel="true value", ylabel="predicted value", xlim=limits, ylim=limits, aspect="equal", anchor="W")
        axes.locator_params(nbins=5)
    return figure


def residuals(y_true: np.ndarray, y_pred: np.ndarray, deviations: np.ndarray | None = None) -> Figure:
    """Residuals over predictions; [m] `deviations`, in standard deviations of a normal, take their place if given."""
    rows = shown_rows(len(y_true))
    errors = (y_true - y_pred if deviations is None else deviations)[rows]
    with canvas() as (figure, [axes]):
        axes.axhline(0.0, color=INK, linewidth=1.0)
        if deviations is not None:
            axes.axhline(NORMAL_95, color=SECOND, linestyle="--", label="95% expected between")
            axes.axhline(-NORMAL_95, color=SECOND, linestyle="--")
        axes.plot(y_pred[rows], errors, "o", **POINTS)
        limit = 1.08 * max(float(np.abs(errors).max()), 0.0 if deviations is None else 2.5) or 1.0
        unit = "" if deviations is None else ", standard deviations"
        axes.set(xlabel="predicted value", ylabel=f"true minus predicted{unit}", ylim=(-limit, limit))
        axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def coverage(points: Sequence[tuple[float, float]], rows: int) -> Figure:
    """Observed against promised coverage of central intervals, with the band chance stays in 95 times of 100.

    Args:
        points: (promised, observed) shares.
        rows: how many held-out rows the observed shares are of.

    Returns:
        The figure.
    """
    nominal, observed = np.asarray(points, float).T
    ends = np.concatenate([[0.0], nominal, [1.0]])
    low, high = (np.concatenate([[0], binom.ppf(q, rows, nominal) / rows, [1]]) for q in (0.025, 0.975))
    with canvas() as (figure, [axes]):
        axes.fill_between(ends, low, high, color=MUTED, alpha=0.2, linewidth=0, label="chance, 95%")
        axes.plot([0, 1], [0, 1], **EXACT)
        axes.plot(nominal, observed, "o-", color=FIRST, markersize=5, label="observed")
        axes.set(xlabel="promised coverage", ylabel="observed coverage", aspect="equal", anchor="W")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        percent(axes.xaxis, axes.yaxis)
    return figure


def confusion(y_true: np.ndarray, y_pred: np.ndarray, classes: Sequence[str]) -> Figure:
    """The confusion matrix: right answers on the diagonal, mistakes off it.

    Args:
        y_true: [m] true labels of held-out rows.
        y_pred: [m] predicted labels.
        classes: labels in the order to draw; labels that occur beyond these come last.

    Returns:
        The figure, with counts printed for up to `MOST_NUMBERED_CLASSES` classes.
    """
    names = [*classes, *sorted({*y_true.tolist(), *y_pred.tolist()} - set(classes))]
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, ([place[t] for t in y_true.tolist()], [place[p] for p in y_pred.tolist()]), 1)
    # The root keeps a class's few mistakes visible beside its many right answers.
    shade = np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))
    numbered = len(names) <= MOST_NUMBERED_CLASSES
    # Ink must stay readable on the deepest shade, on a light and on a dark page.
    deepest, size = (0.5, 10 if len(names) < 8 else 7.5) if numbered else (0.95, 0)
    with canvas(grid="none") as (figure, [axes]):
        for i, j in np.argwhere(counts).tolist():
            cell: dict[str, Any] = {"facecolor": FIRST if i == j else SECOND, "alpha": deepest * shade[i, j]}
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, linewidth=0, **cell))
            if numbered:
                axes.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", size=size)
        _class_ticks(axes, names)
    return figure


def _class_ticks(axes: Axes, names: Sequence[str]) -> None:
    ticks = np.arange(0, len(names), math.ceil(len(names) / 26))
    labels = [clean(names[i], 12) for i in ticks.tolist()]
    text: dict[str, Any] = {"parse_math": False, "size": 9 if len(labels) <= 12 else 7}
    upright = max(map(len, labels)) * len(labels) > 36
    axes.set_xticks(ticks, labels, rotation=90 if upright else 0, **text)
    axes.set_yticks(ticks, labels, **text)
    axes.tick_params(length=0)
    edges, end = np.arange(len(names) + 1) - 0.5, len(names) - 0.5
    axes.hlines(edges, -0.5, end, color=GRID, linewidth=0.6, zorder=0)
    axes.vlines(edges, -0.5, end, color=GRID, linewidth=0.6, zorder=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class", xlim=(-0.5, end), ylim=(end, -0.5))
    axes.set(aspect="equal", anchor="W")


def reliability(bins: Sequence[tuple[float, float, int]]) -> Figure:
    """Observed accuracy over confidence, with the number of rows in each bin below.

    Args:
        bins: (mean confidence, observed accuracy, rows) a bin; empty bins are left out.

    Returns:
        The figure.
    """
    sure, accuracy, rows = np.asarray([b for b in bins if b[2] > 0], float).reshape(-1, 3).T
    low, high = (binom.ppf(q, rows, sure) / rows for q in (0.025, 0.975))
    with canvas((3, 1)) as (figure, [axes, below]):
        # A point off its bar is more than chance: the bar is where a calibrated classifier would be.
        axes.vlines(sure, low, high, color=MUTED, alpha=0.3, linewidth=7, label="chance, 95%")
        axes.plot([0, 1], [0, 1], **EXACT)
        axes.plot(sure, accuracy, "o-", color=FIRST, markersize=5, label="observed")
        axes.set(ylabel="observed accuracy", xlim=(0, 1.02), ylim=(-0.03, 1.06))
        below.bar(sure, rows, width=0.03, color=MUTED)
        log_axis(below, "y", rows, np.ones(1))
        below.set(xlabel="confidence", ylabel="rows")
        percent(axes.yaxis, below.xaxis)
    return figure


def confidence(probabilities: np.ndarray, correct: np.ndarray) -> Figure:
    """How sure the classifier was where it was right and where it was wrong.

    Args:
        probabilities: [m, c] class probabilities of held-out rows.
        correct: [m] booleans, True where the predicted class is the true one.

    Returns:
        The figure.
    """
    highest = probabilities.max(1)
    edges = np.linspace(1 / probabilities.shape[1], 1.0, 21)
    right, wrong = (np.histogram(highest[mask], edges)[0] for mask in (correct, ~correct))
    with canvas(grid="y") as (figure, [axes]):
        axes.stairs(right, edges, fill=True, color=FIRST, alpha=0.3, baseline=0.1)
        axes.stairs(right, edges, color=FIRST, baseline=0.1, label=f"right ({right.sum():,} rows)")
        label = f"wrong ({wrong.sum():,} rows)"
        axes.stairs(wrong, edges, color=SECOND, linewidth=1.8, linestyle="--", baseline=0.1, label=label)
        log_axis(axes, "y", right, wrong, np.ones(1))
        axes.set(xlabel="confidence (highest class probability)", ylabel="rows", xlim=(edges[0], 1.0))
        percent(axes.xaxis)
    return figure
