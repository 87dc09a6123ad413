"""From experiments to pictures, findings and a page: numbers drawn are the records', and a browser shows them."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest

plots = pytest.importorskip("concordax.plots")
import chromium  # noqa: E402
from concordax import reproduction  # noqa: E402
from concordax.errors import UsageError  # noqa: E402
from concordax.experiments import finding, registry  # noqa: E402
from concordax.experiments.datasets import DatasetError  # noqa: E402
from concordax.experiments.findings import findings  # noqa: E402
from concordax.experiments.record import Record  # noqa: E402
from concordax.plots.panels import Column, Row, panels  # noqa: E402
from test_experiments import SIZES, tiny  # noqa: E402

# Enough for a report that has all its parts.
SHORT = ("loss-curves", "strength-sweep", "widths", "uci", "step-cost")


def _records():
    return {name: tiny(name)[0] for name in SHORT}


def _record(name, cells):
    return Record(name, {}, cells, [0], {}, {}, "", [])


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_every_record_is_drawn_and_saved(tmp_path, name):
    figures = plots.experiment(tiny(name)[0])
    files = plots.save(figures, tmp_path)
    assert len(files) == len(figures) > 0
    for file in files:
        assert file.stat().st_size > 5000
        assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for figure in figures.values():
        assert all(axes.lines for axes in figure.axes)
        # Readable without color: no two lines of a panel share dash and marker.
        for axes in figure.axes:
            looks = [(line.get_linestyle(), line.get_marker()) for line in axes.lines]
            assert len(set(looks)) == len(looks)
        [legend] = figure.legends
        assert len(legend.get_texts()) == max(len(axes.lines) for axes in figure.axes)


def test_a_panel_shows_median_and_quartiles_over_the_seeds():
    cells = [{"x": x, "y": x * factor, "kind": "a"} for x in (1.0, 10.0) for factor in (1.0, 2.0, 4.0, 8.0)]
    cells += [{"x": 3.0, "y": None, "kind": "a"}, {"x": 3.0, "y": 5.0, "kind": "b"}]
    figure = panels([Column("", cells, "x", "x")], [Row("y", "y")], lambda cell: cell["kind"])
    [axes] = figure.axes
    first, second = axes.lines
    np.testing.assert_allclose(first.get_xdata(), [1.0, 10.0])
    np.testing.assert_allclose(first.get_ydata(), [3.0, 30.0])
    [path] = axes.collections[0].get_paths()
    assert {round(y, 6) for x, y in path.vertices if x == 1.0} == {1.75, 5.0}
    assert second.get_ydata().tolist() == [5.0]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_curves_of_several_seeds_meet_at_the_median_seconds():
    cells = [
        {"mode": "a", "start": "usual", "seed": seed, "iteration": [0, 1, 2], "seconds": [0.0, pace, 2 * pace],
         "train_loss": [9.0, 4.0 * pace, 1.0 * pace], "test_loss": [9.0, 1.0, 1.0]}
        for seed, pace in enumerate((1.0, 2.0, 5.0))
    ]  # fmt: skip
    figure = plots.experiment(_record("loss-curves", cells))["loss-curves-usual"]
    by_step, by_time = figure.axes[:2]
    np.testing.assert_allclose(by_step.lines[0].get_xdata(), [1, 2])
    np.testing.assert_allclose(by_time.lines[0].get_xdata(), [2.0, 4.0])
    np.testing.assert_allclose(by_time.lines[0].get_ydata(), [8.0, 2.0])


# Findings -------------------------------------------------------------------------------------------------------------


def test_every_record_has_findings():
    found = findings(_records())
    assert len(found) >= len(SHORT)
    assert all(each.verdict in (finding.HOLDS, finding.PARTLY, finding.FAILS, finding.OPEN) for each in found)
    assert all(text for each in found for text in each)


def _speed(published, corrected, trusted):
    """Loss curves in which each way is at the loss 1 after so many (steps, seconds); gradient descent at (100, 10)."""
    paces = {"published": published, "corrected": corrected, "trust region": trusted, "gradient descent": (100, 10.0)}
    return [
        {"mode": mode, "start": "usual", "seed": seed, "iteration": [0, steps], "seconds": [0.0, seconds],
         "train_loss": [5.0, 1.0], "test_loss": [5.0, 1.0]}
        for mode, (steps, seconds) in paces.items() for seed in range(3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("published", "verdict"),
    [((50, 5.0), finding.HOLDS), ((50, 20.0), finding.PARTLY), ((200, 20.0), finding.FAILS)],
)
def test_the_verdict_on_speed_follows_from_steps_and_seconds(published, verdict):
    first, _ = findings({"loss-curves": _record("loss-curves", _speed(published, (3, 1.0), (2, 0.5)))})
    assert first.verdict == verdict
    assert first.published == f"{published[0]} steps, {published[1]:.3g} s"
    assert first.ours == "2 steps, 0.5 s"
    assert "ends at 1 after 100 steps and 10 s" in first.rule


@pytest.mark.parametrize(
    ("published", "trusted", "ended", "verdict"),
    [
        (2.0, 2.0, "settled", finding.HOLDS),
        (2.0, 1.2, "settled", finding.PARTLY),
        (1.2, 2.0, "settled", finding.PARTLY),
        (1.2, 1.0, "settled", finding.FAILS),
        (2.0, 2.0, "loss floor", finding.PARTLY),
        (None, 2.0, "settled", finding.HOLDS),
        (None, 2.0, "loss floor", finding.FAILS),
    ],
)
def test_the_verdict_on_strength_follows_from_the_test_losses(published, trusted, ended, verdict):
    least = {"published": published, "corrected": 9.0, "trust region": trusted}
    cells = [
        {"mode": mode, "strength": tau, "seed": 0, "train_loss": [1.0], "test_loss": [loss], "zeros": 10 * k,
         "ended": ended if mode == "trust region" and tau < 1 else "settled"}
        for mode, first in least.items() if first
        for k, (tau, loss) in enumerate({1e-8: first, 1e-4: 1.0, 1.0: 7.0}.items())
    ]  # fmt: skip
    first, second = findings({"strength-sweep": _record("strength-sweep", cells)})
    assert first.verdict == verdict
    assert first.corrected == "best 1 at τ = 0.0001, 9x below τ → 0"
    gain = 1 if ended == "loss floor" else trusted
    assert first.ours == f"best 1 at τ = {1e-4 if trusted > 1 else 1e-8:.1g}, {gain:.3g}x below τ → 0"
    assert (second.verdict, second.ours) == (finding.HOLDS, "rank correlation 1")


def test_a_run_that_alone_was_stopped_at_the_floor_is_told_apart():
    cells = [
        {"mode": "trust region", "strength": tau, "seed": 0, "test_loss": [loss], "zeros": 1, "ended": ended}
        for tau, loss, ended in ((1e-8, 4.0, "loss floor"), (1e-4, 2.0, "settled"), (1.0, 7.0, "settled"))
    ]
    first, _ = findings({"strength-sweep": _record("strength-sweep", cells)})
    assert (first.verdict, first.ours) == (finding.HOLDS, "best 2 at τ = 0.0001, 2x below τ → 0")


def test_the_corrected_step_alone_decides_nothing_about_the_strength():
    cells = [
        {"mode": "corrected", "strength": tau, "seed": 0, "test_loss": [loss], "zeros": 1, "ended": "steps"}
        for tau, loss in ((1e-8, 9.0), (1.0, 1.0))
    ]
    first, _ = findings({"strength-sweep": _record("strength-sweep", cells)})
    assert (first.verdict, first.corrected, first.ours) == (finding.FAILS, "best 1 at τ = 1, 9x below τ → 0", "-")


def _smoothing(evidence):
    """A sweep over two smoothings: the trust region's test losses are 1 and 4, the evidence's 1 and another."""
    losses = {"published": (1.0, 2.0), "corrected": (1.0, 1e12), "trust region": (1.0, 4.0)}
    losses |= {"evidence": (1.0, evidence)} if evidence else {}
    return [
        {"mode": mode, "smoothing": mu, "seed": 0, "iteration": [0, 9], "train_loss": [1.0, loss], "zeros": 3,
         "test_loss": [1.0, loss], "steps": 10 * k + 1, "strength_chosen": 7.0, "parameters": 30,
         "ended": "diverged" if loss > 1e9 else "settled"}
        for mode, pair in losses.items() for k, (mu, loss) in enumerate(zip((0.1, 10.0), pair, strict=True))
    ]  # fmt: skip


def test_smoothing_is_judged_at_a_fixed_strength_and_one_that_the_data_choose():
    first, second, third = findings({"smoothing-sweep": _record("smoothing-sweep", _smoothing(1.5))})
    assert (first.verdict, first.ours) == (finding.HOLDS, "from 1 (μ = 0.1) to 4")
    assert first.corrected == "from 1 (μ = 0.1) to over 1e+09"
    assert second.ours == "1 steps at μ = 0.1, 11 at 10"
    assert second.corrected == "1 steps at μ = 0.1, 11 at 10; 1 of 2 runs diverge, all at μ ≤ 10"
    assert third.ours == "evidence: from 1 to 1.5, a factor of 1.5; at a fixed strength 4"
    assert len(findings({"smoothing-sweep": _record("smoothing-sweep", _smoothing(None))})) == 2


def test_what_the_evidence_chose_is_one_place_and_what_it_was_given_is_a_curve():
    [axes, *_] = plots.experiment(_record("smoothing-sweep", _smoothing(1.5)))["smoothing-sweep"].axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["evidence"].get_xdata().tolist() == [0.1, 10.0]
    swept = [
        {**cell, "strength": 1e-3} if cell["mode"] != "evidence" else {**cell, "strength_chosen": chosen}
        for cell, chosen in zip(_smoothing(1.5), (0, 0, 0, 0, 0, 0, 2.0, 5.0), strict=True)
    ]
    [axes, *_] = plots.experiment(_record("strength-sweep", swept))["strength-sweep"].axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["evidence"].get_xdata().tolist() == [5.0]


@pytest.mark.parametrize("name", ["mnist", "mnist-teacher-student"])
@pytest.mark.parametrize(
    ("published", "kept", "verdicts"),
    [
        (0.896, 0.95, (finding.HOLDS, finding.HOLDS)),
        (0.698, 0.5, (finding.PARTLY, finding.PARTLY)),
        (0.6, 0.1, (finding.FAILS, finding.PARTLY)),
    ],
)
def test_digits_are_judged_by_first_order_ways_and_by_the_signs(name, published, kept, verdicts):
    shares = {"published": published, "corrected": 0.2, "trust region": 0.3, "Adam": 0.7, "L-BFGS": 0.9}
    cells = [
        {"dataset": "digits", "mode": mode, "swept": "", "test_accuracy": [0.1, share],
         "sign_kept": kept if mode == "corrected" else 0.95}
        for mode, share in shares.items()
    ]  # fmt: skip
    first, second = findings({name: _record(name, cells)})
    assert (first.verdict, second.verdict) == verdicts
    assert "As many epochs: Adam 70.0%; on all rows" in first.rule
    assert first.rule.endswith("L-BFGS 90.0%.")
    assert ("student" in first.claim) == (name == "mnist-teacher-student")


def test_tables_are_judged_by_gradient_descent():
    def cells(published, trusted):
        shares = {"published": published, "trust region": trusted, "gradient descent": 0.8, "L-BFGS": 0.9}
        return [
            {"dataset": "letter", "mode": mode, "test_accuracy": [0.1, share], "seconds": [0.0, 3.0]}
            for mode, share in shares.items()
        ]

    for pair, verdict in (((0.9, 0.7), finding.HOLDS), ((0.7, 0.9), finding.PARTLY), ((0.7, 0.7), finding.FAILS)):
        [only] = findings({"uci": _record("uci", cells(*pair))})
        assert (only.verdict, only.published) == (verdict, f"{pair[0]:.1%} in 3 s")
        assert only.rule.endswith("gradient descent 80.0% in 3 s; L-BFGS 90.0% in 3 s.")


def test_a_loss_that_was_never_reached_is_said():
    first, _ = findings({"loss-curves": _record("loss-curves", _late(_speed((50, 5.0), (3, 1.0), (2, 0.5))))})
    assert (first.published, first.verdict) == ("not reached", finding.FAILS)
    cell = {"iteration": [0, 1], "seconds": [0.0, 1.0], "train_loss": [2.0, None]}
    assert finding.first_below(cell, 1.0) == (math.inf, math.inf)
    assert [finding.told(value) for value in (math.inf, math.nan, 0.12345, 1e10)] == [
        "never", "-", "0.123", "over 1e+09",
    ]  # fmt: skip


def _late(cells):
    """The same, but the published step never comes below 1.5."""
    return [{**c, "train_loss": [5.0, 1.5]} if c["mode"] == "published" else c for c in cells]


# The whole ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_sizes(monkeypatch):
    """Every experiment is at its tiny size."""
    original = registry.experiment
    monkeypatch.setattr(
        reproduction, "experiment", lambda name: replace(original(name), quick=original(name).tiny, seeds=1)
    )


@pytest.mark.usefixtures("tiny_sizes")
def test_a_reproduction_leaves_numbers_pictures_and_a_page(tmp_path):
    seen = []
    outcome = reproduction.reproduce(["step-cost"], tmp_path, progress=lambda what, share: seen.append((what, share)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "step-cost"]
    names = {path.name for path in (tmp_path / "step-cost").iterdir()}
    assert {"step-cost.json", "step-cost.svg", "step-cost.png"} <= names
    assert all(file.is_file() for file in outcome.files)
    assert seen[-1][1] == pytest.approx(1.0)
    assert seen[0][0].startswith("step-cost: grown width")
    # What the folder held before is part of the page.
    tiny("widths")[0].save(_folder(tmp_path / "widths") / "widths.json")
    again = reproduction.reproduce(["step-cost"], tmp_path, resume=True)
    assert list(again.records) == ["widths", "step-cost"]
    assert again.report.read_text(encoding="utf-8").count("<section id=") == 2


def _folder(path):
    path.mkdir()
    return path


@pytest.mark.usefixtures("tiny_sizes")
def test_data_that_are_not_there_leave_out_one_of_several(tmp_path, monkeypatch):
    original = reproduction.experiment
    monkeypatch.setattr(
        reproduction, "experiment",
        lambda name: replace(original(name), quick=registry.experiment(name).full) if name == "uci" else original(name),
    )  # fmt: skip
    outcome = reproduction.reproduce(["uci", "step-cost"], tmp_path, data_dir=tmp_path)
    assert list(outcome.records) == ["step-cost"]
    assert "pendigits.npz" in outcome.refused["uci"]
    assert "uci did not run" in outcome.report.read_text(encoding="utf-8")
    with pytest.raises(DatasetError, match=r"pendigits\.npz"):
        reproduction.reproduce(["uci"], tmp_path, data_dir=tmp_path)


def test_no_experiment_or_an_unknown_one_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no experiment is named"):
        reproduction.reproduce([], tmp_path)
    with pytest.raises(UsageError, match="no experiment 'figure-9'"):
        reproduction.reproduce(["widths", "figure-9"], tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_a_browser_shows_the_page_without_errors_or_overflow(tmp_path, tmp_path_factory, width, scheme):
    program = chromium.find()
    if program is None:
        pytest.skip("no Chromium on this machine")
    page = reproduction.render(_records(), {"avila": "not there"})
    assert "The digits of scikit-learn stand in" in page
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    browser = chromium.Browser(program, tmp_path_factory.mktemp("profile"))
    try:
        chromium.check(browser, path, width, scheme)
    finally:
        browser.close()
