"""What the paper leaves open, beside the records."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from . import methods
from .finding import MODES, OPEN, Cell, Finding, by, found, last, of, told


def widths(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Networks that are not overparameterised."""
    free = [cell for cell in cells if "strength" not in cell]
    curves = {mode: by(of(free, mode=mode), "width", "test_loss") for mode in (*MODES, methods.EVIDENCE)}
    weak = by([cell for cell in cells if "strength" in cell], "width", "test_loss")
    peak = max(weak, key=weak.__getitem__)

    def word(curve: Mapping[float, float]) -> str:
        ends = [f"{told(curve[pick(curve)])} at {pick(curve):g}" for pick in (min, max) if curve]
        return ", ".join(ends) or "-"

    yield found(
        "Networks that are not overparameterised (left open).", "assumption of the theory",
        *(word(curves[mode]) for mode in MODES[:2]),
        f"trust region {word(curves[methods.TRUST_REGION])}; evidence {word(curves[methods.EVIDENCE])}", OPEN,
        "Test loss at the least and the largest width. "
        f"Next to no strength peaks at width {peak:g}: {told(weak[peak])}.",
    )  # fmt: skip


def regularizers(cells: Sequence[Cell]) -> Iterator[Finding]:
    """The kinds of regularizers at equal curvature."""
    best = {}
    for name in dict.fromkeys(cell["regularizer"] for cell in cells):
        mine = of(cells, regularizer=name)
        best[name] = min(
            min(by(of(mine, smoothing=s), "curvature", "test_loss").values()) for s in {c["smoothing"] for c in mine}
        )
    order = sorted(best, key=best.__getitem__)
    yield found(
        "Does the kind of regularizer matter? (left open)", "the paper has pseudo-Huber alone", "-", "-",
        "best test loss: " + ", ".join(f"{name} {told(best[name])}" for name in order), OPEN,
        "Each regularizer at the best of the same curvatures at zero and smoothings.",
    )  # fmt: skip


def architectures(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Depth and activation."""
    modes = (*MODES, methods.EVIDENCE, methods.ADAM)
    kinds = sorted({(cell["depth"], cell["activation"]) for cell in cells})
    losses = {
        mode: [last(of(cells, mode=mode, depth=depth, activation=name), "train_loss") for depth, name in kinds]
        for mode in modes
    }
    wins = sum(ours <= adam for ours, adam in zip(losses[methods.TRUST_REGION], losses[methods.ADAM], strict=True))
    words = {
        mode: f"{told(min(values))} to {told(max(values))}" if not all(map(math.isnan, values)) else "-"
        for mode, values in losses.items()
    }
    yield found(
        "Deeper networks and other activations (left open).", "the paper has one hidden layer, silu and relu",
        *(f"training loss {words[mode]}" for mode in MODES), OPEN,
        f"Over depths and activations; the trust region is at or below Adam's training loss in {wins} of {len(kinds)}.",
    )  # fmt: skip


def class_losses(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Softmax in the place of squared error."""
    parts = []
    for name in dict.fromkeys(cell["dataset"] for cell in cells):
        pair = [last(of(cells, dataset=name, loss=loss, mode=methods.TRUST_REGION), "test_accuracy")
                for loss in ("squared error", "softmax cross-entropy")]  # fmt: skip
        parts.append(f"{name} {pair[0]:.1%} and {pair[1]:.1%}")
    yield found(
        "Softmax cross-entropy instead of squared error (left open).", "the paper has squared error alone", "-", "-",
        "; ".join(parts), OPEN, "Test accuracy of the trust region with squared error and with softmax.",
    )  # fmt: skip


def step_cost(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Seconds a step as the network grows."""
    widths = of(cells, grown="width")
    seconds = {
        mode: by(of(widths, mode=mode), "width", "step_seconds") for mode in dict.fromkeys(c["mode"] for c in widths)
    }
    largest = max(next(iter(seconds.values())))
    ratios = {mode: curve[largest] / seconds[methods.GRADIENT_DESCENT][largest] for mode, curve in seconds.items()}
    slopes = {mode: _slope(curve) for mode, curve in seconds.items()}
    words = {
        mode: f"{told(ratios[mode])} steps of gradient descent, grows as width^{told(slopes[mode])}" for mode in seconds
    }
    yield found(
        "Cost a step at scale (left open).", "the paper's step holds the whole Jacobian",
        words.get("materialized", "-"), words[methods.CORRECTED], words[methods.TRUST_REGION], OPEN,
        f"Seconds a step at width {largest:g}; the first column is the step from the materialised Jacobian.",
    )  # fmt: skip


def _slope(curve: Mapping[float, float]) -> float:
    """The power with which a quantity grows: a line through the logarithms; NaN from one place."""
    if len(curve) < 2:
        return math.nan
    return float(np.polyfit(np.log(list(curve)), np.log(list(curve.values())), 1)[0])
