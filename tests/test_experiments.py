"""Experiments: the stored numbers, transcriptions in NumPy, the problem, and records as files."""

import json
import os
import platform
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from concordax.experiments import loss_curves
from concordax.experiments.loss_curves import LossCurves
from concordax.experiments.record import ExperimentError, Record
from concordax.experiments.synthetic import sphere, teacher_student
from experiment_cases import MODES, TINY, uninterrupted
from helpers import as_layers, network, sigmoid

# Final training and test loss of a run that was looked at. The relative tolerances grow where rounding does: the
# corrected mode rises and falls, and the trust region's losses are small beside what they start from.
STORED = {
    "published": (0.01597328084073325, 0.015371248319432887, 1e-9),
    "corrected": (0.007201739798687052, 0.0047443795846008625, 1e-6),
    "trust region": (4.060000548273045e-06, 3.301397931835231e-06, 1e-4),
    "gradient descent": (0.0022711038540381766, 0.0023410447218168767, 1e-9),
}


def problem(seed=0):
    """Data [n, d], [n] and the student's start as NumPy arrays."""
    with jax.enable_x64(True):
        data_key, start_key = jax.random.split(jax.random.key(seed))
        data = teacher_student(data_key, train_rows=40, test_rows=60, inputs=4, teacher_width=2)
        params = loss_curves._model(TINY).init(start_key)
    return data, as_layers(params)


def student(theta, inputs):
    """Outputs [n] and Jacobian [n, p] of (1/4) Σ_j v_j silu(w_j·x), 16 hidden units."""
    layers = [(theta[:64].reshape(16, 4), None), (theta[64:].reshape(1, 16), None)]
    outputs, jacobian = network(layers, np.asarray(inputs), [1.0, 0.25], "silu")
    return outputs[:, 0], jacobian[:, 0]


def transcription(step, steps):
    """Losses [steps, 2] of θ ← step(θ, J, residual)."""
    data, layers = problem()
    theta, losses = np.concatenate([w.ravel() for w, _ in layers]), []
    for _ in range(steps):
        outputs, jacobian = student(theta, data.inputs)
        theta = step(theta, jacobian, outputs - np.asarray(data.targets)[:, 0])
        pairs = ((data.inputs, data.targets), (data.test_inputs, data.test_targets))
        losses.append([0.5 * np.mean((student(theta, x)[0] - np.asarray(y)[:, 0]) ** 2) for x, y in pairs])
    return np.array(losses)


def gauss_newton(damping, strength=1e-4, smoothing=4.0, scale=0.95):
    """The published step on the parameters' side, by a general solver."""

    def step(theta, jacobian, residual):
        n, p = jacobian.shape
        root = np.sqrt(smoothing**2 + theta**2)
        slope, curvature = theta / root, smoothing**2 / root**3
        matrix = jacobian.T @ jacobian / n + (strength + damping) * np.diag(curvature)
        delta = -np.linalg.solve(matrix, jacobian.T @ residual / n + strength * slope)
        eta = np.sqrt(np.sum((strength * slope) ** 2 / curvature))
        constant = 2 * p**0.2 * smoothing**-0.7
        return theta + min(1.0, scale / (1 + constant * eta)) * delta

    return step


def losses_of(curve):
    return np.array([curve["train_loss"], curve["test_loss"]]).T


# Numbers --------------------------------------------------------------------------------------------------------------


def test_final_losses_are_the_stored_ones():
    result = uninterrupted().record
    assert [curve["mode"] for curve in result.curves] == MODES == list(STORED)
    for curve in result.curves:
        train, test, tolerance = STORED[curve["mode"]]
        np.testing.assert_allclose(curve["train_loss"][-1], train, rtol=tolerance)
        np.testing.assert_allclose(curve["test_loss"][-1], test, rtol=tolerance)


@pytest.mark.parametrize(
    ("index", "step", "steps", "tolerance"),
    [
        (0, gauss_newton(damping=1 - 1e-4), 12, 1e-10),
        (1, gauss_newton(damping=0.0), 8, 1e-6),
        (3, lambda theta, jacobian, residual: theta - 5.0 * jacobian.T @ residual / len(residual), 60, 1e-10),
    ],
    ids=["published", "corrected", "gradient descent"],
)
def test_curves_agree_with_a_transcription(index, step, steps, tolerance):
    curve = uninterrupted().record.curves[index]
    expected = transcription(step, steps)[np.array(curve["iteration"]) - 1]
    np.testing.assert_allclose(losses_of(curve), expected, rtol=tolerance)


def test_the_trust_region_is_far_below_the_published_mode():
    published, _, trusted, _ = (losses_of(curve)[:, 0] for curve in uninterrupted().record.curves)
    assert trusted[-1] < 1e-3 * published[-1]


def test_the_best_rate_is_kept_and_all_are_recorded():
    curve = uninterrupted().record.curves[3]
    assert [tried["rate"] for tried in curve["tried"]] == [1.0, 5.0, 1000.0]
    assert [tried["diverged"] for tried in curve["tried"]] == [False, False, True]
    assert curve["rate"] == 5.0
    assert curve["tried"][1]["train_loss"] == curve["train_loss"][-1] < curve["tried"][0]["train_loss"]


def test_a_search_in_which_every_rate_diverges_leaves_no_curve(tmp_path):
    config = replace(TINY, published=1, corrected=1, trust_region=1, rates=(1000.0,))
    assert [curve["mode"] for curve in loss_curves.run(tmp_path, config=config).curves] == MODES[:3]


@pytest.mark.parametrize(("steps", "points"), [(1, 200), (20, 200), (4000, 200), (10_000, 200), (60, 20)])
def test_points_are_few_and_hold_the_first_and_last_step(steps, points):
    chosen = loss_curves._points(steps, points)
    assert chosen[0] == 1
    assert chosen[-1] == steps
    assert len(chosen) <= points
    assert np.all(np.diff(chosen) > 0)
    assert np.all(chosen[1:] / chosen[:-1] <= 2)


def test_iterations_are_the_points_and_seconds_rise():
    steps = (TINY.published, TINY.corrected, TINY.trust_region, TINY.gradient_descent)
    for curve, total in zip(uninterrupted().record.curves, steps, strict=True):
        assert curve["iteration"] == loss_curves._points(total, TINY.points).tolist()
        assert np.all(np.diff([0.0, *curve["seconds"]]) > 0)


def test_nothing_is_compiled_on_the_clock():
    assert uninterrupted().on_the_clock == []


def test_the_evaluation_of_losses_is_not_on_the_clock(tmp_path, monkeypatch):
    original = loss_curves._losses
    monkeypatch.setattr(loss_curves, "_losses", lambda *data: time.sleep(0.05) or original(*data))
    config = replace(TINY, corrected=1, trust_region=1, gradient_descent=1, rates=(1.0,))
    curve = loss_curves.run(tmp_path, config=config).curves[0]
    assert curve["seconds"][-1] < 0.05 * len(curve["seconds"])


def test_full_and_quick_are_the_published_problem():
    full, quick = LossCurves.full(), LossCurves.quick()
    assert (full.train_rows, full.test_rows, full.inputs, full.teacher_width, full.width) == (1000, 2000, 20, 5, 500)
    assert (full.strength, full.scale) == (1e-4, 0.95)
    assert (full.published, full.corrected, full.trust_region, full.gradient_descent) == (4000, 4000, 4000, 10_000)
    steps = {name: getattr(full, name) for name in ("published", "corrected", "trust_region", "gradient_descent")}
    assert replace(quick, **steps) == full
    assert all(getattr(quick, name) < count for name, count in steps.items())


def test_quick_and_full_choose_the_configuration(tmp_path, monkeypatch):
    seen = []

    def stop(config, *_):
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(loss_curves, "_trace", stop)
    for quick in (True, False):
        with pytest.raises(KeyboardInterrupt):
            loss_curves.run(tmp_path, quick=quick)
    assert seen == [LossCurves.quick(), LossCurves.full()]


# The problem ----------------------------------------------------------------------------------------------------------


def test_rows_are_uniform_on_the_sphere():
    rows = np.asarray(sphere(jax.random.key(0), 5000, 3))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-12)
    # Archimedes: every coordinate of a point on the sphere in three dimensions is uniform.
    for column in rows.T:
        np.testing.assert_allclose(np.quantile(column, [0.1, 0.5, 0.9]), [-0.8, 0.0, 0.8], atol=0.06)


def test_a_teacher_of_one_unit_is_plus_or_minus_silu_of_a_unit_row():
    grid = np.linspace(-1.0, 1.0, 200_001)
    signs = set()
    for seed in range(6):
        data = teacher_student(jax.random.key(seed), train_rows=40, test_rows=60, inputs=4, teacher_width=1)
        fits = []
        for sign in (-1, 1):
            # silu rises on [-1, 1], so its inverse can be read off a table.
            z = np.interp(sign * np.asarray(data.targets)[:, 0], grid * sigmoid(grid), 1.0 * grid)
            row, *_ = np.linalg.lstsq(np.asarray(data.inputs), z, rcond=None)
            predicted = np.asarray(data.test_inputs) @ row
            error = np.abs(sign * predicted * sigmoid(predicted) - np.asarray(data.test_targets)[:, 0]).max()
            fits.append((error, sign, np.linalg.norm(row)))
        error, sign, norm = min(fits)
        assert error < 1e-8
        assert norm == pytest.approx(1.0, abs=1e-8)
        signs.add(sign)
    assert signs == {-1, 1}


# Records --------------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_from_its_file(tmp_path):
    result, path = uninterrupted().record, tmp_path / "record.json"
    result.save(path)
    assert path.read_text(encoding="utf-8") == uninterrupted().text
    loaded = Record.load(path)
    # NaN, the loss of the rate that diverged, is written as null.
    diverged = result.curves[3]["tried"][2]
    assert np.isnan(diverged["train_loss"])
    assert loaded.curves[3]["tried"][2] == {**diverged, "train_loss": None, "test_loss": None}
    loaded.curves[3]["tried"][2] = result.curves[3]["tried"][2] = None
    try:
        assert loaded == result
    finally:
        result.curves[3]["tried"][2] = diverged


def test_a_record_file_is_strict_json_and_names_what_it_depends_on():
    result, text, folder, _ = uninterrupted()

    def refuse(token):
        raise AssertionError(token)

    stored = json.loads(text, parse_constant=refuse)
    assert stored["config"]["width"] == 16
    assert stored["seeds"] == [0]
    assert set(stored["versions"]) == {"python", "concordax", "jax", "jaxlib", "numpy", "optax", "equinox"}
    assert set(stored["machine"]) == {"platform", "processor", "cores", "backend"}
    assert platform.node() not in stored["machine"].values()
    assert stored["started"][:4].isdigit()
    assert any("compilation" in note for note in result.notes)
    assert folder not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "is no record"),
        ('{"format": "other"}', "is no record"),
        ('{"format": "concordax record", "format_version": 9}', "has format version 9"),
        ('{"format": "concordax record", "format_version": 1, "name": "x"}', "config, curves"),
        (b"\xff\xfe", "damaged"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, content, message):
    path = tmp_path / "record.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ExperimentError, match=message):
        Record.load(path)


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    uninterrupted().record.save(path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace(uninterrupted().record, name="other").save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_record_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from concordax import plots

    figure = plots.loss_curves(uninterrupted().record, tmp_path / "loss-curves.svg")
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == MODES
    assert (tmp_path / "loss-curves.svg").stat().st_size > 1000
