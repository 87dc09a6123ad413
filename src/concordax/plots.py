"""Pictures of a fit; the only file that imports matplotlib. Computes nothing beyond what drawing needs.

Every function takes plain arrays and returns a `matplotlib.figure.Figure` of its own: no pyplot, no current figure.
Curves differ by dash and marker as well as by color, so that the pictures read without color.
"""

import io
import math
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.stats import binom

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
except ImportError as error:
    raise ImportError("`concordax.plots` needs matplotlib: `pip install 'concordax[report]'`.") from error

# Blue and orange stay apart under every common color deficiency and have about the same contrast on white.
INK, MUTED, GRID, FIRST, SECOND = "#1c2127", "#5d6673", "#d8dce2", "#1f5fa9", "#b4530c"
PALETTE = {"ink": INK, "muted": MUTED, "grid": GRID, "first": FIRST, "second": SECOND}

# A vector picture holds every mark: with more rows than this it grows to megabytes and says nothing more.
MOST_ROWS = 800
# Numbers are printed in the cells of a confusion matrix up to here; more classes leave no room for them.
MOST_NUMBERED_CLASSES = 12

_SIZE = (5.0, 4.5)  # inches; at 72 dots an inch 360 wide, the width of a phone's column
_NORMAL_95 = 1.959964  # the 97.5% point of the standard normal distribution
_POINTS: dict[str, Any] = {"color": FIRST, "markersize": 3.5, "markeredgewidth": 0, "label": "held-out row"}
_EXACT: dict[str, Any] = {"color": INK, "linestyle": "--", "linewidth": 1.0, "label": "exact"}
_LINES: tuple[dict[str, Any], ...] = (
    {"color": FIRST, "linestyle": "-", "marker": "o"},
    {"color": SECOND, "linestyle": "--", "marker": "s"},
    {"color": MUTED, "linestyle": ":", "marker": "^"},
    {"color": INK, "linestyle": "-.", "marker": "D"},
)
_TICKS = ((2, (1,)), (0.9, (1, 2, 5)), (0.5, (1, 2, 3, 5, 7)), (0.3, (1, 1.5, 2, 3, 4, 5, 6, 8)))
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "concordax",
    "axes.axisbelow": True,
    "grid.color": GRID,
    **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("font.size", "axes.labelsize"), 10.5),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9.5),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("legend.frameon", "axes.spines.top", "axes.spines.right"), False),
}


@contextmanager
def _style(**changes: Any) -> Iterator[None]:
    """Sets this file's style while a figure is made or written, whatever the user's settings are."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        # A script that the measuring font lacks is still shown right by the browser, which picks its own font.
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | changes)
        yield


@contextmanager
def _canvas(heights: Sequence[int] = (1,), grid: str = "both") -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with panels one above the other; on leaving, each gets its grid and a legend above, off the data."""
    with _style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        yield figure, panels
        for axes in panels:
            axes.grid(visible=grid != "none", axis="y" if grid == "y" else "both")
            if axes.get_legend_handles_labels()[1]:
                place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2, "borderpad": 0.2}
                axes.legend(**place, ncols=3, handlelength=2.2, columnspacing=1.2)
            axes.label_outer(remove_inner_ticks=True)
        figure.align_ylabels()


def svg(figure: Figure) -> str:
    """A figure as an SVG document with real text; the same bytes for the same figure."""
    with _style(), io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()


def clean(text: str, limit: int = 24) -> str:
    """A label of at most `limit` characters, none of which a drawing cannot hold; both ends of a long one stay."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= limit else f"{shown[: limit - 5]}…{shown[-4:]}"


def shown_rows(rows: int) -> np.ndarray:
    """Indices of the rows to draw: all, or `MOST_ROWS` evenly spaced ones."""
    return np.arange(rows) if rows <= MOST_ROWS else np.linspace(0, rows - 1, MOST_ROWS).round().astype(int)


def superscript(power: int) -> str:
    """An exponent in characters every font has."""
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _power_label(value: float, _position: object = None) -> str:
    """A tick of a logarithmic axis, as 0.01, 20 or 3·10⁻⁵."""
    if value <= 0 or 9.9e-4 < value < 1e4:
        return f"{value:.4g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = f"{value / 10.0**exponent:.3g}·"
    return f"{mantissa if mantissa != '1·' else ''}10{superscript(exponent)}"


def _percent(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))


def _log_axis(axes: Axes, which: str, *values: np.ndarray) -> None:
    """Makes the "x" or "y" axis logarithmic over the positive values, with a few labels whatever the range."""
    together = np.concatenate([np.ravel(v) for v in values])
    together = together[np.isfinite(together) & (together > 0)]
    if not together.size:
        return
    decades = math.log10(together.max() / together.min())
    margin = 10 ** max(0.06 * decades, 0.08)
    axes.set(**{f"{which}scale": "log", f"{which}lim": (together.min() / margin, together.max() * margin)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    # The finer the ticks within a decade, the fewer decades they serve; below a third, plain round numbers do best.
    fine = next((subs for least, subs in _TICKS if decades > least), None)
    axis.set_major_locator(LogLocator(subs=fine, numticks=6 if fine == (1,) else 12) if fine else MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(_power_label))
    axis.set_minor_locator(NullLocator())


def predictions(y_true: np.ndarray, y_pred: np.ndarray, y_std: np.ndarray | None = None) -> Figure:
    """Predicted against true values with 95% error bars.

    Args:
        y_true: [m] true values of held-out rows, in target units.
        y_pred: [m] predicted values.
        y_std: [m] standard deviations of a new observation, or None for no bars.

    Returns:
        The figure.
    """
    rows = shown_rows(len(y_true))
    both = np.concatenate([y_true, y_pred])
    low, high = float(both.min()), float(both.max())
    # The axes follow the points: one row with a huge error bar must not press all others together.
    margin = 0.06 * (high - low) + (0.0 if y_std is None else float(np.median(y_std))) or 1.0
    limits = (low - margin, high + margin)
    with _canvas() as (figure, [axes]):
        if y_std is not None:
            bars: dict[str, Any] = {"fmt": "none", "ecolor": FIRST, "elinewidth": 0.8, "alpha": 0.35}
            axes.errorbar(y_true[rows], y_pred[rows], _NORMAL_95 * y_std[rows], label="95% interval", **bars)
        axes.plot(y_true[rows], y_pred[rows], "o", **_POINTS)
        axes.plot(limits, limits, **_EXACT)
        axes.set(xlabel="true value", ylabel="predicted value", xlim=limits, ylim=limits, aspect="equal", anchor="W")
        axes.locator_params(nbins=5)
    return figure


def residuals(y_true: np.ndarray, y_pred: np.ndarray, y_std: np.ndarray | None = None) -> Figure:
    """Residuals over predictions, in standard deviations where they are given; arguments as for `predictions`."""
    rows = shown_rows(len(y_true))
    errors = (y_true - y_pred if y_std is None else (y_true - y_pred) / y_std)[rows]
    with _canvas() as (figure, [axes]):
        axes.axhline(0.0, color=INK, linewidth=1.0)
        if y_std is not None:
            axes.axhline(_NORMAL_95, color=SECOND, linestyle="--", label="95% expected between")
            axes.axhline(-_NORMAL_95, color=SECOND, linestyle="--")
        axes.plot(y_pred[rows], errors, "o", **_POINTS)
        limit = 1.08 * max(float(np.abs(errors).max()), 0.0 if y_std is None else 2.5) or 1.0
        unit = "" if y_std is None else ", standard deviations"
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
    with _canvas() as (figure, [axes]):
        axes.fill_between(ends, low, high, color=MUTED, alpha=0.2, linewidth=0, label="chance, 95%")
        axes.plot([0, 1], [0, 1], **_EXACT)
        axes.plot(nominal, observed, "o-", color=FIRST, markersize=5, label="observed")
        axes.set(xlabel="promised coverage", ylabel="observed coverage", aspect="equal", anchor="W")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        _percent(axes.xaxis, axes.yaxis)
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
    with _canvas(grid="none") as (figure, [axes]):
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
    with _canvas((3, 1)) as (figure, [axes, below]):
        # A point off its bar is more than chance: the bar is where a calibrated classifier would be.
        axes.vlines(sure, low, high, color=MUTED, alpha=0.3, linewidth=7, label="chance, 95%")
        axes.plot([0, 1], [0, 1], **_EXACT)
        axes.plot(sure, accuracy, "o-", color=FIRST, markersize=5, label="observed")
        axes.set(ylabel="observed accuracy", xlim=(0, 1.02), ylim=(-0.03, 1.06))
        below.bar(sure, rows, width=0.03, color=MUTED)
        _log_axis(below, "y", rows, np.ones(1))
        below.set(xlabel="confidence", ylabel="rows")
        _percent(axes.yaxis, below.xaxis)
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
    with _canvas(grid="y") as (figure, [axes]):
        axes.stairs(right, edges, fill=True, color=FIRST, alpha=0.3, baseline=0.1)
        axes.stairs(right, edges, color=FIRST, baseline=0.1, label=f"right ({right.sum():,} rows)")
        label = f"wrong ({wrong.sum():,} rows)"
        axes.stairs(wrong, edges, color=SECOND, linewidth=1.8, linestyle="--", baseline=0.1, label=label)
        _log_axis(axes, "y", right, wrong, np.ones(1))
        axes.set(xlabel="confidence (highest class probability)", ylabel="rows", xlim=(edges[0], 1.0))
        _percent(axes.xaxis)
    return figure


def history(record: Mapping[str, np.ndarray], panels: Sequence[Mapping[str, str]]) -> Figure | None:
    """Series over the steps of a run on logarithmic axes, in panels one above the other.

    Args:
        record: 1-d arrays of one length by name.
        panels: for each panel the label of every series by its name in the record; a series that is missing or
            nowhere positive is left out.

    Returns:
        The figure, or None where nothing is left to draw.
    """
    drawn = []
    for panel in panels:
        held = {label: np.asarray(record[name], float) for name, label in panel.items() if name in record}
        held = {label: values for label, values in held.items() if np.any(np.isfinite(values) & (values > 0))}
        drawn += [held] if held else []
    if not drawn:
        return None
    with _canvas((4, 3)[: len(drawn)], grid="y") as (figure, all_axes):
        for axes, held in zip(all_axes, drawn, strict=True):
            for (label, values), line in zip(held.items(), _LINES, strict=False):
                every = max(1, len(values) // 25)
                axes.plot(np.arange(1, len(values) + 1), values, label=label, markersize=4, markevery=every, **line)
            _log_axis(axes, "y", *held.values())
        all_axes[-1].set_xlabel("step")
        all_axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    return figure


def spectrum(eigenvalues: np.ndarray, strength: float, effective: float) -> Figure:
    """The kernel's eigenvalues with the strength as a line.

    Args:
        eigenvalues: [N] eigenvalues, descending; what is within rounding of zero is left out.
        strength: regularization strength, in the same units.
        effective: effective number of parameters.

    Returns:
        The figure.
    """
    values = np.asarray(eigenvalues, float)
    values = values[values > np.finfo(float).eps * values.max(initial=0.0)]
    # On a logarithmic axis 400 indices show the curve of thousands.
    index = np.unique(np.geomspace(1, max(values.size, 1), 400).round().astype(int))[: values.size]
    with _canvas() as (figure, [axes]):
        axes.plot(index, values[index - 1], color=FIRST, label="eigenvalue")
        axes.axhline(strength, color=SECOND, linestyle="--", label="strength")
        axes.axvline(effective, color=MUTED, linestyle=":", label="effective number")
        _log_axis(axes, "x", index, np.asarray([effective]))
        _log_axis(axes, "y", values, np.asarray([strength]))
        axes.set(xlabel="number of the eigenvalue", ylabel="eigenvalue of the kernel")
    return figure


def _median_curves(curves: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """The median over the seeds of each mode, up to the length of its shortest run."""
    modes: dict[str, dict[str, np.ndarray]] = {}
    for mode in dict.fromkeys(curve["mode"] for curve in curves):
        mine = [curve for curve in curves if curve["mode"] == mode]
        length = min(len(curve["iteration"]) for curve in mine)
        names = ("iteration", "seconds", "train_loss", "test_loss")
        modes[mode] = {n: np.median([np.asarray(c[n], float)[:length] for c in mine], axis=0) for n in names}
    return modes


def loss_curves(record: Any, path: pathlib.Path) -> Figure:
    """Draws training and test loss against iterations and seconds, and saves PNG and SVG.

    Args:
        record: a mapping or an object with `curves`: a list of mappings with mode, seed, iteration, seconds,
            train_loss, test_loss. One line a mode: the median over its seeds.
        path: where to save; its suffix is replaced by .png and .svg.

    Returns:
        The figure.
    """
    modes = _median_curves(record["curves"] if isinstance(record, Mapping) else record.curves)
    labels = {"train_loss": "training loss", "test_loss": "test loss"}
    with _style(**{"svg.fonttype": "path", "legend.fontsize": 10.0}):
        figure = Figure(figsize=(8.4, 6.2), layout="constrained")
        panels = figure.subplots(2, 2, sharex="col", sharey="row")
        for row, loss in zip(panels, labels, strict=True):
            for axes, x in zip(row, ("iteration", "seconds"), strict=True):
                for number, (mode, curve) in enumerate(modes.items()):
                    line = _LINES[number % len(_LINES)]
                    axes.plot(curve[x], curve[loss], label=clean(mode), markersize=4, markevery=0.12, **line)
                _log_axis(axes, "x", *(curve[x] for curve in modes.values()))
                _log_axis(axes, "y", *(curve[loss] for curve in modes.values()))
                axes.grid()
            row[0].set_ylabel(labels[loss])
        panels[1, 0].set_xlabel("iteration")
        panels[1, 1].set_xlabel("seconds")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4, handlelength=3.0)
        figure.savefig(path.with_suffix(".png"), dpi=160, facecolor="white")
        figure.savefig(path.with_suffix(".svg"), facecolor="white", metadata={"Date": None})
    return figure
