"""What all pictures share: colors, axes, labels."""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Blue and orange stay apart under every common color deficiency and have about the same contrast on white.
INK, MUTED, GRID, FIRST, SECOND = "#1c2127", "#5d6673", "#d8dce2", "#1f5fa9", "#b4530c"
PALETTE = {"ink": INK, "muted": MUTED, "grid": GRID, "first": FIRST, "second": SECOND}

# A vector picture holds every mark: with more rows than this it grows to megabytes and says nothing more.
MOST_ROWS = 800
# Columns in the picture of importances: more are too small to read.
MOST_BARS = 15
# Numbers are printed in the cells of a confusion matrix up to here; more classes leave no room for them.
MOST_NUMBERED_CLASSES = 12

_SIZE = (5.0, 4.5)  # inches; at 72 dots an inch 360 wide, the width of a phone's column
NORMAL_95 = 1.959964  # the 97.5% point of the standard normal distribution
POINTS: dict[str, Any] = {"color": FIRST, "markersize": 3.5, "markeredgewidth": 0, "label": "held-out row"}
EXACT: dict[str, Any] = {"color": INK, "linestyle": "--", "linewidth": 1.0, "label": "exact"}
LINES: tuple[dict[str, Any], ...] = (
    {"color": FIRST, "linestyle": "-", "marker": "o"},
    {"color": SECOND, "linestyle": "--", "marker": "s"},
    {"color": MUTED, "linestyle": ":", "marker": "^"},
    {"color": INK, "linestyle": "-.", "marker": "D"},
    {"color": FIRST, "linestyle": "--", "marker": "v"},
    {"color": SECOND, "linestyle": "-", "marker": "P"},
    {"color": MUTED, "linestyle": "-.", "marker": "X"},
    {"color": INK, "linestyle": ":", "marker": "*"},
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
def style(**changes: Any) -> Iterator[None]:
    """Sets this file's style while a figure is made or written, whatever the user's settings are."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        # A script that the measuring font lacks is still shown right by the browser, which picks its own font.
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | changes)
        yield


@contextmanager
def canvas(heights: Sequence[int] = (1,), grid: str = "both") -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with panels one above the other; on leaving, each gets its grid and a legend above, off the data."""
    with style():
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
    with style(), io.StringIO() as buffer:
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


def percent(*axes: Axis) -> None:
    """Labels the axes in percent."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))


def log_axis(axes: Axes, which: str, *values: np.ndarray) -> None:
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
