"""The report's section on the kernel while training: from the fit into the page, and what the pictures draw."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

import pandas as pd

from concordax import ntk, plots, report
from concordax.sklearn import GGNRegressor
from concordax.tabular import split_table, split_target
from concordax.workflow import fit_split
from report_cases import regression

STEPS = np.array([0, 7, 20, 31])
RECORD = {
    "step": STEPS,
    "strength": np.array([1e-3, 2e-3, 1e-3, 1e-3]),
    "largest": np.array([3.0, 4.0, 5.0, 6.0]),
    "smallest": np.array([1e-5, 0.0, 1e-6, 1e-7]),
    "condition": np.array([3e5, np.inf, 5e6, 6e7]),
    "shifted_condition": np.array([3e3, 2e3, 5e3, 6e3]),
    "effective_dimension": np.array([40.0, 31.0, 22.0, 20.5]),
    "alignment": np.array([0.1, 0.2, 0.5, 0.6]),
    "drift": np.array([0.0, 0.2, 0.4, 0.41]),
    "linearization_error": np.array([np.nan, 0.5, 1e-2, np.nan]),
    "invariance": np.array([1.0, 0.9, 0.85, 0.85]),
}


def _series(figure):
    """What is drawn, by its label: steps, values, dash and marker; one panel after the other."""
    look = lambda line: (*map(np.asarray, line.get_data()), line.get_linestyle(), line.get_marker())
    return [{line.get_label(): look(line) for line in axes.lines} for axes in figure.axes]


def test_the_pictures_draw_the_record():
    figures = plots.kernel_spectrum(RECORD), plots.kernel_change(RECORD)
    drawn = [
        ({"largest eigenvalue": "largest", "strength": "strength", "smallest": "smallest"},
         {"effective dimension": "effective_dimension"}),
        ({"drift": "drift", "linearization error": "linearization_error"},
         {"alignment": "alignment", "same signs": "invariance"}),
    ]  # fmt: skip
    for figure, panels in zip(figures, drawn, strict=True):
        assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
        for found, names in zip(_series(figure), panels, strict=True):
            assert list(found) == list(names)
            # Without color, too, each curve is another.
            assert len({(dash, marker) for *_, dash, marker in found.values()}) == len(found)
            for label, name in names.items():
                steps, values = found[label][:2]
                expected = np.where(RECORD[name] > 0, RECORD[name], np.nan)
                np.testing.assert_array_equal(steps, STEPS)
                np.testing.assert_array_equal(values, expected)


def test_what_is_nowhere_is_not_drawn():
    nowhere = dict.fromkeys(("drift", "linearization_error", "invariance"), np.full(4, np.nan))
    above, below = _series(plots.kernel_change(RECORD | nowhere))
    assert list(above) == []
    assert list(below) == ["alignment"]
    assert "<svg" in plots.svg(plots.kernel_change(RECORD | nowhere))


def test_the_section_is_there_where_a_monitor_was():
    without = report.render(regression())
    page = report.render(dataclasses.replace(regression(), kernel_history=RECORD))
    title = "<h2>The kernel while training</h2>"
    assert title in page
    assert page.count("<svg") == without.count("<svg") + 2
    assert all(name in page for name in ("Spectrum of the kernel", "Change of the kernel"))
    # A run that was interrupted at its first step has nothing to draw a line between.
    start = {name: values[:1] for name, values in RECORD.items()}
    for summary in (regression(), dataclasses.replace(regression(), kernel_history=start)):
        assert title not in report.render(summary)


def test_a_fit_is_watched():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    frame["y"] = np.sin(frame["a"]) + 0.1 * rng.normal(size=60)
    monitor, seen = ntk.Monitor(every=2, share=1.0), []
    split = split_table(split_target(frame, "y", name="table"), seed=0)
    model, summary = fit_split(
        split, widths=(4,), max_steps=5, monitor=monitor,
        callback=lambda step, record: seen.append(step) if record["network"] == 1 else None,
    )
    assert summary.kernel_history is not None
    assert summary.kernel_history["step"].tolist() == [0, 2, 4, 5] == [0, *seen[1::2], seen[-1]]
    assert model.pipeline[-1].callback is None
    # The same fit without: the same network, and no record.
    alone, summary = fit_split(split, widths=(4,), max_steps=5)
    assert summary.kernel_history is None
    for ours, theirs in zip(alone.pipeline[-1].networks_, model.pipeline[-1].networks_, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine[0], other[0])


def test_an_estimator_takes_an_observer_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 2))
    monitor = ntk.Monitor()
    GGNRegressor(hidden_widths=(4,), max_steps=5, callback=monitor).fit(x, x[:, 0])
    assert monitor.history["step"].tolist() == [0, 5]
