"""The picture of a path: every series is there, told apart without color, a count of zero as a gap."""

import types

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from concordax import plots

PATH = types.SimpleNamespace(
    strengths=np.array([1e-1, 1e-3, 1e-2]),
    loss=np.array([0.5, 0.01, 0.1]),
    validation_loss=np.array([0.6, 0.2, 0.1]),
    counts={"nonzeros": np.array([1, 99, 50]), "units": np.array([0, 9, 7])},
)


def test_losses_above_and_counts_below_over_the_strength():
    figure = plots.strength_path(PATH)
    above, below = figure.axes
    drawn = {line.get_label(): line for axes in (above, below) for line in axes.lines}
    assert list(drawn) == ["training loss", "validation loss", "nonzeros", "units"]
    for label, values in {"training loss": [0.01, 0.1, 0.5], "units": [9, 7, np.nan]}.items():
        np.testing.assert_array_equal(drawn[label].get_xdata(), [1e-3, 1e-2, 1e-1])
        np.testing.assert_array_equal(drawn[label].get_ydata(), values)
    for axes in (above, below):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        looks = [(line.get_linestyle(), line.get_marker()) for line in axes.lines]
        assert len(set(looks)) == 2
        assert axes.get_legend() is not None
    assert (above.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == ("loss", "number left", "strength")
    assert "number left" in plots.svg(figure)


def test_what_was_not_measured_is_not_drawn():
    path = types.SimpleNamespace(**vars(PATH) | {"validation_loss": np.full(3, np.nan)})
    above, _ = plots.strength_path(path).axes
    assert [line.get_label() for line in above.lines] == ["training loss"]
