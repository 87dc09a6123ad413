"""Experiments: stored numbers, transcriptions in NumPy, the problem, and records as files."""

import functools
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from concordax.errors import UsageError
from concordax.experiments import methods, students, traced
from concordax.experiments.loss_curves import EXPERIMENT, LAZY, USUAL
from concordax.experiments.names import ENTRIES
from concordax.experiments.record import ExperimentError, Record
from concordax.experiments.registry import experiment
from concordax.experiments.synthetic import sphere, teacher_student
from helpers import as_layers, network, sigmoid

TINY = EXPERIMENT.tiny
# The tangent kernels have tests of their own; clothes are the digits' experiment at other smoothings.
ELSEWHERE = ("ntk", "fashion-mnist")
SIZES = [name for name in ENTRIES if name not in ELSEWHERE]
STORED = json.loads(Path(__file__).with_name("stored_experiments.json").read_text(encoding="utf-8"))


def tiny(name="loss-curves"):
    """The record of an experiment at its tiny size, its file's content, and the folder it was in."""
    return _tiny(name)


@functools.cache
def _tiny(name):
    made = experiment(name)
    with tempfile.TemporaryDirectory() as folder:
        record = made.run(Path(folder), seeds=1, config=made.tiny)
        return record, Path(folder, f"{name}.json").read_text(encoding="utf-8"), folder


def curve(mode, start=USUAL):
    [found] = [cell for cell in tiny()[0].curves if cell["mode"] == mode and cell["start"] == start]
    return found


def problem(seed=0, shrunk=1.0):
    """Data [n, d], [n] and the student's start as NumPy arrays."""
    with jax.enable_x64(True):
        data_key, start_key, _ = jax.random.split(jax.random.key(seed), 3)
        data = teacher_student(data_key, train_rows=40, test_rows=60, inputs=4, teacher_width=2)
        params = students._network(TINY, {}, TINY.width).init(start_key)
    return data, [(shrunk * weight, bias) for weight, bias in as_layers(params)]


def student(theta, inputs):
    """Outputs [n] and Jacobian [n, p] of (1/4) Σ_j v_j silu(w_j·x), 16 hidden units."""
    layers = [(theta[:64].reshape(16, 4), None), (theta[64:].reshape(1, 16), None)]
    outputs, jacobian = network(layers, np.asarray(inputs), [1.0, 0.25], "silu")
    return outputs[:, 0], jacobian[:, 0]


def transcription(step, steps, shrunk):
    """Losses [steps + 1, 2] of θ ← step(θ, J, residual), from the start on."""
    data, layers = problem(shrunk=shrunk)
    theta, losses = np.concatenate([w.ravel() for w, _ in layers]), []
    pairs = ((data.inputs, data.targets), (data.test_inputs, data.test_targets))
    for _ in range(steps + 1):
        losses.append([0.5 * np.mean((student(theta, x)[0] - np.asarray(y)[:, 0]) ** 2) for x, y in pairs])
        outputs, jacobian = student(theta, data.inputs)
        theta = step(theta, jacobian, outputs - np.asarray(data.targets)[:, 0])
    return np.array(losses)


def gauss_newton(damping, scale, strength=1e-4, smoothing=4.0):
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


def losses_of(cell):
    return np.array([cell["train_loss"], cell["test_loss"]]).T


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "shrunk", "scale"), [(USUAL, 1.0, 0.95), (LAZY, 0.2, 0.25)])
@pytest.mark.parametrize(
    ("mode", "tolerance"), [(methods.PUBLISHED, 1e-9), (methods.CORRECTED, 1e-5), (methods.GRADIENT_DESCENT, 1e-9)]
)
def test_curves_agree_with_a_transcription(mode, tolerance, start, shrunk, scale):
    found = curve(mode, start)
    step = {
        methods.PUBLISHED: gauss_newton(1 - 1e-4, scale),
        methods.CORRECTED: gauss_newton(0.0, scale),
        methods.GRADIENT_DESCENT: lambda theta, jacobian, residual: (
            theta - found["rate"] * jacobian.T @ residual / len(residual)
        ),
    }[mode]
    assert found["steps"] == (TINY.first_order_steps if mode == methods.GRADIENT_DESCENT else TINY.steps)
    expected = transcription(step, found["steps"], shrunk)[found["iteration"]]
    np.testing.assert_allclose(losses_of(found), expected, rtol=tolerance)


def test_the_trust_region_is_far_below_the_published_mode():
    published, trusted = (losses_of(curve(mode))[:, 0] for mode in (methods.PUBLISHED, methods.TRUST_REGION))
    assert trusted[-1] < 1e-2 * published[-1]


def test_the_best_rate_is_kept_and_all_are_recorded():
    found = curve(methods.GRADIENT_DESCENT)
    assert [tried["rate"] for tried in found["tried"]] == [1.0, 5.0, 1000.0]
    losses = [tried["train_loss"] for tried in found["tried"]]
    assert found["rate"] == found["tried"][int(np.argmin(losses))]["rate"] == 5.0
    assert found["train_loss"][-1] == min(losses)
    assert found["search_seconds"] >= found["seconds"][-1]


@pytest.mark.parametrize("name", SIZES)
def test_final_numbers_are_the_stored_ones(name):
    """Each experiment at its tiny size. What is stored was written by `python tests/stored_experiments.py`."""
    found, stored = summary(tiny(name)[0]), STORED[name]
    assert list(found) == list(stored)
    for kind, numbers in stored.items():
        assert list(found[kind]) == list(numbers), kind
        for key, value in numbers.items():
            # A digit that another processor rounds otherwise grows over the steps.
            assert found[kind][key] == pytest.approx(value, rel=2e-2, abs=1e-7), (kind, key)


def summary(record):
    """The last numbers of each cell, by what the cell is of; no times, and none that hang on the last digit."""
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "parameters", "sign_kept", "rate")
    found = {}
    for cell in record.curves:
        kind = ", ".join(f"{k} {v}" for k, v in cell.items() if k in _KINDS and not isinstance(v, list))
        last = {name: cell[name] for name in names if name in cell}
        found[kind] = {name: value[-1] if isinstance(value, list) else value for name, value in last.items()}
    return found


_KINDS = (
    "mode", "start", "strength", "smoothing", "width", "depth", "activation", "regularizer", "curvature", "dataset",
    "loss", "swept", "grown", "rows", "outputs",
)  # fmt: skip


@pytest.mark.parametrize(("steps", "points"), [(1, 200), (20, 200), (4000, 200), (10_000, 200), (60, 20)])
def test_points_are_few_and_hold_the_first_and_last_step(steps, points):
    chosen = np.array(traced.points_up_to(steps, points))
    assert chosen[0] == 1
    assert chosen[-1] == steps
    assert len(chosen) <= points
    assert np.all(np.diff(chosen) > 0)
    assert np.all(chosen[1:] / chosen[:-1] <= 2)


def test_iterations_are_the_points_and_seconds_rise():
    for cell in tiny()[0].curves:
        assert cell["iteration"][0] == 0
        if cell["ended"] == "steps":
            assert cell["iteration"][1:] == traced.points_up_to(cell["steps"], TINY.points)
        assert cell["seconds"][0] == 0.0
        assert np.all(np.diff(cell["seconds"]) > 0)


def test_the_evaluation_of_losses_is_not_on_the_clock(monkeypatch):
    original = students._losses
    monkeypatch.setattr(students, "_losses", lambda *data: time.sleep(0.2) or original(*data))
    found = students.measure(TINY, {"mode": methods.PUBLISHED, "seed": 0})
    assert len(found["seconds"]) > 5
    assert found["seconds"][-1] < 0.2 * len(found["seconds"])


def test_runs_end_where_nothing_moves_or_at_the_loss_floor():
    config = replace(TINY, steps=400)
    settled = students.measure(config, {"mode": methods.TRUST_REGION, "strength": 0.1, "seed": 0})
    assert settled["ended"] == "settled"
    assert settled["iteration"][-1] == settled["steps"] < 400
    floor = students.measure(config, {"mode": methods.TRUST_REGION, "strength": 1e-9, "seed": 0})
    assert floor["ended"] == "loss floor"
    assert floor["train_loss"][-1] <= config.loss_floor < floor["train_loss"][-2]


def test_runs_end_where_they_have_left_for_good():
    left = students.measure(replace(TINY, steps=50), {"mode": methods.CORRECTED, "smoothing": 0.1, "seed": 0})
    assert left["ended"] == "diverged"
    assert left["iteration"][-1] == left["steps"] < 50
    assert left["train_loss"][-1] > traced.DIVERGED > left["train_loss"][-2]


def test_full_is_the_published_problem():
    full = EXPERIMENT.full
    assert (full.train_rows, full.test_rows, full.inputs, full.teacher_width, full.width) == (1000, 2000, 20, 5, 500)
    assert (full.strength, full.scale, full.steps, full.first_order_steps) == (1e-4, 0.95, 4000, 10_000)
    sweep = experiment("strength-sweep")
    assert (sweep.full.train_rows, sweep.full.test_rows, sweep.full.inputs, sweep.full.width) == (500, 1000, 5, 500)
    assert len(sweep.full.strengths) == len(experiment("smoothing-sweep").full.smoothings) == 41
    assert (sweep.full.steps, sweep.seeds) == (1600, 10)
    assert sum(cell["mode"] == methods.CORRECTED for cell in sweep.cells(sweep.full, 10)) == 410


def test_no_repetition_is_refused(tmp_path):
    with pytest.raises(UsageError, match="seeds=0"):
        EXPERIMENT.run(tmp_path, seeds=0)


def test_an_unknown_experiment_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'widths'"):
        experiment("width")


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
    result, text, _ = tiny()
    path = tmp_path / "record.json"
    result.save(path)
    assert path.read_text(encoding="utf-8") == text
    loaded = Record.load(path)
    # Tuples come back as lists.
    assert loaded == replace(result, config=json.loads(json.dumps(result.config)))
    replace(result, curves=[{"loss": [1.0, float("nan"), -float("inf")]}]).save(path)
    assert Record.load(path).curves == [{"loss": [1.0, None, None]}]


def test_a_record_file_is_strict_json_and_names_what_it_depends_on():
    result, text, folder = tiny()

    def refuse(token):
        raise AssertionError(token)

    stored = json.loads(text, parse_constant=refuse)
    assert stored["config"]["width"] == 16
    assert stored["seeds"] == [0]
    assert set(stored["versions"]) == {"python", "concordax", "jax", "jaxlib", "numpy", "optax", "equinox"}
    assert set(stored["machine"]) == {"platform", "processor", "cores", "backend"}
    assert platform.node() not in stored["machine"].values()
    assert stored["started"][:4].isdigit()
    assert any("PublishedStep" in note for note in result.notes)
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
    tiny()[0].save(path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace(tiny()[0], name="other").save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["record.json"]
