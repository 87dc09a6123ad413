"""The picture of a path over strengths."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .style import LINES, canvas, log_axis


def strength_path(path: Any) -> Figure:
    """What sparsity costs: losses against the strength, and below them the counts of what is left.

    Args:
        path: a `StrengthPath`, or an object with its `strengths`, `loss`, `validation_loss` and `counts`.

    Returns:
        The figure.
    """
    order = np.argsort(path.strengths)
    strengths = np.asarray(path.strengths, float)[order]
    losses = {"training loss": path.loss, "validation loss": path.validation_loss}
    losses = {label: np.asarray(values, float)[order] for label, values in losses.items()}
    losses = {label: values for label, values in losses.items() if np.any(np.isfinite(values) & (values > 0))}
    counts = {label: np.asarray(values, float)[order] for label, values in path.counts.items()}
    with canvas((1, 1)) as (figure, panels):
        for axes, series in zip(panels, (losses, counts), strict=True):
            for (label, values), line in zip(series.items(), LINES, strict=False):
                # A count of zero has no place on a logarithmic axis; a gap in the line says so.
                axes.plot(strengths, np.where(values > 0, values, np.nan), label=label, markersize=4.5, **line)
            log_axis(axes, "y", *series.values())
        log_axis(panels[-1], "x", strengths)
        panels[0].set_ylabel("loss")
        panels[-1].set(xlabel="strength", ylabel="number left")
    return figure
