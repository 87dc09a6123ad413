"""Pictures of what a fit went through and what it rests on."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import FIRST, INK, LINES, MOST_BARS, MUTED, SECOND, canvas, clean, log_axis


def importance(columns: Sequence[tuple[str, float, float]], unit: str) -> Figure:
    """Bars of what shuffling a column costs.

    Args:
        columns: (name, mean, standard deviation), most important first; the first `MOST_BARS` are drawn.
        unit: what rises.

    Returns:
        The figure.
    """
    names, means, stds = zip(*columns[:MOST_BARS], strict=True)
    places = np.arange(len(names))
    with canvas() as (figure, [axes]):
        axes.barh(places, means, xerr=stds, color=FIRST, height=0.65, error_kw={"ecolor": INK, "elinewidth": 1.2})
        axes.set_yticks(places, [clean(name, 18) for name in names], parse_math=False)
        axes.invert_yaxis()
        axes.set(xlabel=f"rise of the {unit}", xlim=(min(0.0, *means), None))
        axes.xaxis.set_major_locator(MaxNLocator(5))
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
    with canvas((4, 3)[: len(drawn)], grid="y") as (figure, all_axes):
        for axes, held in zip(all_axes, drawn, strict=True):
            for (label, values), line in zip(held.items(), LINES, strict=False):
                every = max(1, len(values) // 25)
                axes.plot(np.arange(1, len(values) + 1), values, label=label, markersize=4, markevery=every, **line)
            log_axis(axes, "y", *held.values())
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
    with canvas() as (figure, [axes]):
        axes.plot(index, values[index - 1], color=FIRST, label="eigenvalue")
        axes.axhline(strength, color=SECOND, linestyle="--", label="strength")
        axes.axvline(effective, color=MUTED, linestyle=":", label="effective number")
        log_axis(axes, "x", index, np.asarray([effective]))
        log_axis(axes, "y", values, np.asarray([strength]))
        axes.set(xlabel="number of the eigenvalue", ylabel="eigenvalue of the kernel")
    return figure
