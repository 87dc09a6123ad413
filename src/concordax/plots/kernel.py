"""Pictures of the kernel while a network trains."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import LINES, canvas, log_axis, percent


def kernel_spectrum(record: Mapping[str, np.ndarray]) -> Figure:
    """Largest and smallest eigenvalue with the strength, and below them the effective dimension.

    Args:
        record: 1-d arrays of one length: `step`, `largest`, `smallest`, `strength`, `effective_dimension`.

    Returns:
        The figure.
    """
    with canvas((3, 2), grid="y") as (figure, [above, below]):
        names = {"largest": "largest eigenvalue", "strength": "strength", "smallest": "smallest"}
        log_axis(above, "y", *_drawn(above, record, names, positive=True))
        _drawn(below, record, {"effective_dimension": "effective dimension"})
        below.set_ylim(bottom=0)
        _steps(below)
    return figure


def kernel_change(record: Mapping[str, np.ndarray]) -> Figure:
    """Drift of the kernel and linearization error of the steps, and below them alignment and signs that stayed.

    Args:
        record: 1-d arrays of one length: `step`, `drift`, `linearization_error`, `alignment`, `invariance`.

    Returns:
        The figure.
    """
    with canvas((1, 1), grid="y") as (figure, [above, below]):
        names = {"drift": "drift", "linearization_error": "linearization error"}
        log_axis(above, "y", *_drawn(above, record, names, positive=True))
        _drawn(below, record, {"alignment": "alignment", "invariance": "same signs"})
        below.set_ylim(-0.03, 1.03)
        percent(below.yaxis)
        _steps(below)
    return figure


def _drawn(axes: Axes, record: Mapping[str, np.ndarray], names: Mapping[str, str], *, positive: bool = False):
    """Draws the series that hold something to draw; returns them."""
    steps, drawn = np.asarray(record["step"], float), []
    for (name, label), line in zip(names.items(), LINES, strict=False):
        values = np.asarray(record[name], float)
        shown = np.isfinite(values) & ((values > 0) | (not positive))
        if np.any(shown):
            # Zero has no place on a logarithmic axis; a gap in the line says so.
            axes.plot(steps, np.where(shown, values, np.nan), label=label, markersize=4, **line)
            drawn.append(values)
    return drawn or [np.ones(1)]


def _steps(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
