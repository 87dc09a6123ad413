"""Pictures of the experiment `ntk`: a quantity against width or rows, with medians and quartiles over the seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .panels import band
from .style import LINES, MUTED, log_axis, style

_Cells = Sequence[Mapping[str, Any]]


def _cells(record: Any, question: str, quantity: str) -> list[Mapping[str, Any]]:
    """The measurements of one question that have a positive number."""
    curves = record["curves"] if isinstance(record, Mapping) else record.curves
    return [cell for cell in curves if cell["question"] == question and (cell[quantity] or 0) > 0]


def _values(cells: _Cells, name: str) -> list[Any]:
    return sorted({cell[name] for cell in cells})


def _falling(axes: Axes, cells: _Cells, x: str, y: str) -> None:
    """A line of slope −1/2 through the first median: what theory promises."""
    places = np.array(_values(cells, x), float)
    first = np.median([cell[y] for cell in cells if cell[x] == places[0]])
    axes.plot(places, first * (places / places[0]) ** -0.5, color=MUTED, linewidth=0.8, label="slope −½")


def _grid(
    cells: _Cells, columns: str, rows: str, x: str, y: str, names: tuple[str, str], draw: Callable[[Axes, _Cells], None]
) -> Figure:
    """Panels for each value of two names, with shared logarithmic axes and one legend above."""
    across, down = _values(cells, columns), _values(cells, rows)
    with style(**{"svg.fonttype": "path"}):
        size = (0.9 + 3.6 * len(across), 0.9 + 2.6 * len(down))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(down), len(across), sharex=True, sharey=True, squeeze=False)
        for row, below in enumerate(down):
            for column, beside in enumerate(across):
                axes = panels[row, column]
                here = [cell for cell in cells if cell[columns] == beside and cell[rows] == below]
                if here:
                    draw(axes, here)
                axes.set_title(f"{columns} {beside}, {rows} {below}", fontsize=10.0, loc="left")
                log_axis(axes, "x", np.array([cell[x] for cell in cells], float))
                log_axis(axes, "y", np.array([cell[y] for cell in cells], float))
                axes.grid()
                axes.set(xlabel=names[0], ylabel=names[1])
                axes.label_outer()
        labelled = [pair for axes in panels.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
        handles = {label: handle for handle, label in labelled}
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5, handlelength=3.0)
    return figure


def _styled(values: Sequence[Any]):
    return zip(values, (LINES[number % len(LINES)] for number in range(len(values))), strict=True)


def against_width(record: Any, quantity: str) -> Figure:
    """Distance from kernel regression, or drift of the kernel, against width, a line a depth.

    Args:
        record: a mapping or an object with `curves`, as the experiment writes it.
        quantity: "distance" or "drift".

    Returns:
        The figure.
    """
    cells = _cells(record, "distance", quantity)

    def draw(axes: Axes, here: _Cells) -> None:
        for depth, line in _styled(_values(cells, "depth")):
            mine = [cell for cell in here if cell["depth"] == depth]
            if mine:
                band(axes, mine, "width", quantity, f"depth {depth}", line)
        _falling(axes, here, "width", quantity)

    names = {"distance": "distance from kernel regression", "drift": "drift of the kernel"}
    return _grid(cells, "activation", "regularizer", "width", quantity, ("width", names[quantity]), draw)


def smallest_eigenvalue(record: Any) -> Figure:
    """The smallest eigenvalue of the kernel against the number of rows, a line a width and one for the infinite one."""
    cells = _cells(record, "eigenvalue", "smallest")
    widths = _values([cell for cell in cells if cell["depth"] == min(_values(cells, "depth"))], "width")
    # Three widths and the limit: more lines lie upon each other.
    shown = [widths[index] for index in sorted({0, len(widths) // 2, len(widths) - 1})]

    def draw(axes: Axes, here: _Cells) -> None:
        for width, line in _styled(shown):
            mine = [cell for cell in here if cell["width"] == width]
            if mine:
                band(axes, mine, "rows", "smallest", f"width {width}", line)
        band(axes, here, "rows", "limit", "infinite width", LINES[3])

    return _grid(cells, "activation", "depth", "rows", "smallest", ("rows", "smallest eigenvalue"), draw)


def curve_error(record: Any) -> Figure:
    """How far a run's loss is from the one that the linearised model predicts, against width, a line a target scale."""
    cells = _cells(record, "curve", "error")

    def draw(axes: Axes, here: _Cells) -> None:
        for scale, line in _styled(_values(cells, "scale")):
            mine = [cell for cell in here if cell["scale"] == scale]
            band(axes, mine, "width", "error", f"targets × {scale:g}", line)
        _falling(axes, here, "width", "error")

    return _grid(cells, "activation", "depth", "width", "error", ("width", "largest relative error of √loss"), draw)


def figures(cells: _Cells) -> Iterator[tuple[str, Figure]]:
    """All four pictures of the experiment, by the names of their files."""
    record = {"curves": cells}
    yield "ntk-distance", against_width(record, "distance")
    yield "ntk-drift", against_width(record, "drift")
    yield "ntk-eigenvalue", smallest_eigenvalue(record)
    yield "ntk-curve", curve_error(record)
