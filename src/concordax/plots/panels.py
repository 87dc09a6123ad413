"""Panels of one grammar: quantities against a name, a line a kind, medians with quartiles over the seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import LINES, clean, log_axis, percent, style

Cells = Sequence[Mapping[str, Any]]
# The largest value that an axis is made for, over the smallest.
_DECADES = 1e9
# A run that diverged leaves the frame at any number; larger ones overflow where they are drawn.
_LARGEST = 1e30


class Column(NamedTuple):
    """One column of panels.

    Attributes:
        title: above it.
        cells: what it shows.
        x: the name on its axis.
        label: of the axis.
        log: whether the axis is logarithmic.
    """

    title: str
    cells: Cells
    x: str
    label: str
    log: bool = True


class Row(NamedTuple):
    """One row of panels.

    Attributes:
        y: the name on its axis.
        label: of the axis.
        scale: "log", "percent" or "linear".
    """

    y: str
    label: str
    scale: str = "log"


def band(axes: Axes, cells: Cells, x: str, y: str, label: str, line: Mapping[str, Any]) -> None:
    """The median of y at each x, and the quartiles round it; a number alone where x is the same throughout."""
    there = [cell for cell in cells if cell.get(x) is not None and cell.get(y) is not None]
    places = sorted({cell[x] for cell in there})
    if not places:
        return
    groups = [[min(cell[y], _LARGEST) for cell in there if cell[x] == place] for place in places]
    low, middle, high = (np.array([np.quantile(group, q) for group in groups]) for q in (0.25, 0.5, 0.75))
    every = max(1, len(places) // 12)
    axes.plot(places, middle, label=label, markersize=4, markevery=every, linewidth=1.2, **line)
    axes.fill_between(places, low, high, color=line["color"], alpha=0.15, linewidth=0)


def panels(columns: Sequence[Column], rows: Sequence[Row], kind: Callable[[Mapping[str, Any]], str]) -> Figure:
    """A grid of panels that share the axes of their column and row, and one legend above.

    Args:
        columns: what goes from left to right.
        rows: what goes from top to bottom.
        kind: the line that a cell belongs to.

    Returns:
        The figure.
    """
    kinds = list(dict.fromkeys(kind(cell) for column in columns for cell in column.cells))
    lines = {name: LINES[number % len(LINES)] for number, name in enumerate(kinds)}
    with style(**{"svg.fonttype": "path"}):
        size = (0.9 + max(3.4 * len(columns), 4.6), 0.9 + 2.5 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), len(columns), sharex="col", sharey="row", squeeze=False)
        for place, row in enumerate(rows):
            for axes, column in zip(grid[place], columns, strict=True):
                for name in kinds:
                    mine = [cell for cell in column.cells if kind(cell) == name]
                    band(axes, mine, column.x, row.y, clean(name), lines[name])
                _dress(axes, column, row, columns, first=place == 0)
        labelled = [pair for axes in grid.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
        handles = {label: handle for handle, label in labelled}
        # An entry takes some two inches; a browser's font may be wider than the one that measured it.
        across = min(4, int(size[0] / 1.9))
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=across, handlelength=3.0)
    return figure


def _dress(axes: Axes, column: Column, row: Row, columns: Sequence[Column], *, first: bool) -> None:
    """Axes, grid and names of one panel."""
    if column.log:
        log_axis(axes, "x", _numbers(column.cells, column.x))
    if row.scale == "log":
        log_axis(axes, "y", _within(np.concatenate([_numbers(each.cells, row.y) for each in columns])))
    elif row.scale == "percent":
        percent(axes.yaxis)
    if first:
        axes.set_title(column.title, fontsize=10.0, loc="left")
    axes.grid()
    axes.set(xlabel=column.label, ylabel=row.label)
    axes.label_outer()


def _numbers(cells: Cells, name: str) -> np.ndarray:
    return np.array([cell[name] for cell in cells if cell.get(name) is not None], float)


def _within(values: np.ndarray) -> np.ndarray:
    """Values of the lowest decades: lines of runs that diverge leave the frame instead of flattening all others."""
    positive = values[np.isfinite(values) & (values > 0)]
    return positive[positive <= _DECADES * positive.min()] if positive.size else positive


def split(cells: Cells, name: str) -> dict[Any, list[Mapping[str, Any]]]:
    """Cells by the value of a name, in the order of their first appearance."""
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault(cell.get(name), []).append(cell)
    return found


def ends(cells: Cells, *names: str) -> list[dict[str, Any]]:
    """Cells with the last numbers of these curves in their place."""
    return [{**cell, **{name: cell[name][-1] for name in names}} for cell in cells]


def courses(cells: Cells, *names: str) -> list[dict[str, Any]]:
    """One cell a point of the curves of these names, the start left out."""
    return [
        {**cell, **dict(zip(names, point, strict=True)), "point": number}
        for cell in cells
        for number, point in enumerate(zip(*(cell[name] for name in names), strict=True))
        if number
    ]
