"""Pictures of experiments: for each, what its question asks for. No line differs from another by its color alone."""

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from . import kernel_sweep
from .panels import Cells, Column, Row, courses, ends, panels, split

_LOSSES = (Row("train_loss", "training loss"), Row("test_loss", "test loss"))
_POINT = ("iteration", "seconds")


def _mode(cell: Mapping[str, Any]) -> str:
    return cell["mode"]


def _medians(cells: Cells, names: Sequence[str], by: str = "mode") -> list[dict[str, Any]]:
    """Points of curves whose seconds are those of the median seed, so that the points of all seeds lie together."""
    found = []
    for mine in split(courses(cells, *names), by).values():
        for point in split(mine, "point").values():
            seconds = sorted(cell["seconds"] for cell in point)[len(point) // 2]
            found += [{**cell, "seconds": seconds} for cell in point]
    return found


def _loss_curves(cells: Cells) -> Iterator[tuple[str, Figure]]:
    for start, mine in split(cells, "start").items():
        points = _medians(mine, (*_POINT, "train_loss", "test_loss"))
        columns = [Column(f"{start} start", points, "iteration", "iteration"), Column("", points, "seconds", "seconds")]
        yield f"loss-curves-{start}", panels(columns, _LOSSES, _mode)


def _sweep(name: str, label: str) -> Callable[[Cells], Iterator[tuple[str, Figure]]]:
    """A sweep's picture: losses, share of zeros and steps against what was swept."""

    def draw(cells: Cells) -> Iterator[tuple[str, Figure]]:
        # Where the evidence chose what is swept, one place for all seeds.
        chosen = sorted(cell["strength_chosen"] for cell in cells if name not in cell)
        place = chosen[len(chosen) // 2] if chosen else None
        shown = [
            {name: place, **cell, "zeros": cell["zeros"] / cell["parameters"]}
            for cell in ends(cells, "train_loss", "test_loss")
        ]
        rows = (*_LOSSES, Row("zeros", "zeros", "percent"), Row("steps", "steps"))
        yield f"{name}-sweep", panels([Column("", shown, name, label)], rows, _mode)

    return draw


def _digits(cells: Cells) -> Iterator[tuple[str, Figure]]:
    shown = [
        {**cell, "zeros": cell["zeros"] / cell["parameters"]}
        for cell in ends(cells, "train_loss", "test_loss", "train_accuracy", "test_accuracy")
    ]
    for dataset, mine in split(shown, "dataset").items():
        swept = {name: [cell for cell in mine if cell["swept"] == name] for name in ("strength", "smoothing")}
        columns = [
            Column(str(dataset), swept["strength"], "strength", "strength τ"),
            Column("", swept["smoothing"], "smoothing", "smoothing μ"),
        ]
        rows = (
            Row("test_loss", "test loss"), Row("test_accuracy", "test accuracy", "percent"),
            Row("zeros", "zeros", "percent"), Row("sign_kept", "signs kept", "percent"),
        )  # fmt: skip
        yield f"sweeps-{dataset}", panels(columns, rows, _mode)


def _tables(cells: Cells) -> Iterator[tuple[str, Figure]]:
    for dataset, mine in split(cells, "dataset").items():
        points = _medians(mine, (*_POINT, "train_loss", "test_loss", "test_accuracy"))
        points = [{**cell, "test_error": 1 - cell["test_accuracy"]} for cell in points]
        title = Column(str(dataset), points, "iteration", "iteration")
        rows = (*_LOSSES, Row("test_error", "test error"))
        yield f"course-{dataset}", panels([title, Column("", points, "seconds", "seconds")], rows, _mode)


def _class_losses(cells: Cells) -> Iterator[tuple[str, Figure]]:
    points = _medians(cells, (*_POINT, "test_accuracy"))
    points = [{**cell, "test_error": 1 - cell["test_accuracy"]} for cell in points]
    columns = [Column(str(name), mine, "iteration", "iteration") for name, mine in split(points, "dataset").items()]
    rows = (Row("test_error", "test error"),)
    yield "losses", panels(columns, rows, lambda cell: f"{cell['mode']}, {cell['loss'].split()[0]}")


def _widths(cells: Cells) -> Iterator[tuple[str, Figure]]:
    shown = ends(cells, "train_loss", "test_loss")

    def kind(cell: Mapping[str, Any]) -> str:
        return f"{cell['mode']}, τ = {cell['strength']:g}" if "strength" in cell else cell["mode"]

    yield "widths", panels([Column("", shown, "width", "hidden units")], _LOSSES, kind)


def _regularizers(cells: Cells) -> Iterator[tuple[str, Figure]]:
    shown = [
        {**cell, "zeros": cell["zeros"] / cell["parameters"]} for cell in ends(cells, "train_loss", "test_loss")
    ]
    alone = [cell for cell in shown if cell["regularizer"] == "L2"]
    columns = []
    for smoothing, mine in split([c for c in shown if c["regularizer"] != "L2"], "smoothing").items():
        columns.append(Column(f"smoothing {smoothing:g}", [*alone, *mine], "curvature", "τ h″(0)"))
    rows = (Row("test_loss", "test loss"), Row("zeros", "zeros", "percent"))
    yield "regularizers", panels(columns, rows, lambda cell: cell["regularizer"])


def _architectures(cells: Cells) -> Iterator[tuple[str, Figure]]:
    shown = ends(cells, "train_loss", "test_loss")
    columns = [Column(str(n), mine, "depth", "depth", log=False) for n, mine in split(shown, "activation").items()]
    yield "architectures", panels(columns, _LOSSES, _mode)


def _step_cost(cells: Cells) -> Iterator[tuple[str, Figure]]:
    columns = [Column("", mine, str(name), str(name)) for name, mine in split(cells, "grown").items()]
    yield "step-cost", panels(columns, (Row("step_seconds", "seconds a step"),), _mode)


_DRAW: Mapping[str, Callable[[Cells], Iterator[tuple[str, Figure]]]] = {
    "loss-curves": _loss_curves,
    "strength-sweep": _sweep("strength", "strength τ"),
    "smoothing-sweep": _sweep("smoothing", "smoothing μ"),
    "mnist": _digits,
    "fashion-mnist": _digits,
    "mnist-teacher-student": _digits,
    "uci": _tables,
    "widths": _widths,
    "regularizers": _regularizers,
    "architectures": _architectures,
    "classification-losses": _class_losses,
    "step-cost": _step_cost,
    "ntk": kernel_sweep.figures,
}


def experiment(record: Any) -> dict[str, Figure]:
    """The pictures of an experiment by their names.

    Args:
        record: an object with `name` and `curves`, as the experiment writes it.

    Returns:
        Figures.
    """
    return dict(_DRAW[record.name](record.curves))


def save(figures: Mapping[str, Figure], folder: pathlib.Path) -> list[pathlib.Path]:
    """Saves each figure as PNG and SVG.

    Args:
        figures: by the names of their files.
        folder: where to.

    Returns:
        The SVG files.
    """
    for name, figure in figures.items():
        dots = min(160.0, 1600 / max(math.ceil(figure.get_figwidth()), 1))
        figure.savefig(folder / f"{name}.png", dpi=dots, facecolor="white")
        figure.savefig(folder / f"{name}.svg", facecolor="white", metadata={"Date": None})
    return [folder / f"{name}.svg" for name in figures]
