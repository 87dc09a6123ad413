"""Pictures of experiments."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .style import LINES, clean, log_axis, style


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
    with style(**{"svg.fonttype": "path", "legend.fontsize": 10.0}):
        figure = Figure(figsize=(8.4, 6.2), layout="constrained")
        panels = figure.subplots(2, 2, sharex="col", sharey="row")
        for row, loss in zip(panels, labels, strict=True):
            for axes, x in zip(row, ("iteration", "seconds"), strict=True):
                for number, (mode, curve) in enumerate(modes.items()):
                    line = LINES[number % len(LINES)]
                    axes.plot(curve[x], curve[loss], label=clean(mode), markersize=4, markevery=0.12, **line)
                log_axis(axes, "x", *(curve[x] for curve in modes.values()))
                log_axis(axes, "y", *(curve[loss] for curve in modes.values()))
                axes.grid()
            row[0].set_ylabel(labels[loss])
        panels[1, 0].set_xlabel("iteration")
        panels[1, 1].set_xlabel("seconds")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4, handlelength=3.0)
        figure.savefig(path.with_suffix(".png"), dpi=160, facecolor="white")
        figure.savefig(path.with_suffix(".svg"), facecolor="white", metadata={"Date": None})
    return figure
