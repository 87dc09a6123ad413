"""The experiment on tangent kernels: its numbers by other means, its slopes, its pictures."""

import functools
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

import concordax as cx
from concordax import plots
from concordax.experiments import ntk as experiment
from concordax.experiments.record import Record

TINY = experiment.EXPERIMENT.tiny


@functools.cache
def _record() -> Record:
    with tempfile.TemporaryDirectory() as folder:
        return experiment.EXPERIMENT.run(Path(folder), seeds=1, config=TINY)


def _cell(**wanted):
    [cell] = [c for c in _record().curves if all(c.get(name) == value for name, value in wanted.items())]
    return cell


def _jacobian(model, params, inputs):
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.jacrev(lambda at: model(unravel(at), inputs)[:, 0])(flat))


def test_every_cell_is_measured():
    record = _record()
    assert len(record.curves) == 2 * (3 + 1 + 1)
    assert record.seeds == [0]
    assert json.loads(json.dumps(record.config))["widths"] == [8, 64]


@pytest.mark.parametrize("regularizer", ["none", "L2 of the change", "L2 of the parameters"])
def test_distance_and_drift_by_a_dense_solve(regularizer, monkeypatch):
    """Kernel regression by J, in NumPy; the trained network by a run of another solver."""
    cell = _cell(question="distance", width=64, regularizer=regularizer, seed=0)
    if regularizer == "none":
        # Measured without the bending of the model, taken in float32: next to no strength makes much of its rounding.
        monkeypatch.setattr("concordax.optimizer.TrustRegion", functools.partial(cx.TrustRegion, corrections=0))
        cell = cell | experiment.measure(TINY, cell)
    setting = experiment._setting(TINY, cell, TINY.rows)
    model, params, inputs, targets, test = setting
    strength = 1e-10 if regularizer == "none" else 1e-3
    flat, unravel = ravel_pytree(params)
    anchor = np.zeros(flat.size) if regularizer == "L2 of the parameters" else np.asarray(flat)
    jacobian, test_jacobian = _jacobian(model, params, inputs), _jacobian(model, params, test)
    n = len(inputs)
    residual = np.asarray(model(params, inputs) - targets)[:, 0]
    gradient = jacobian.T @ residual / n + strength * (flat - anchor)
    move = -np.linalg.solve(jacobian.T @ jacobian / n + strength * np.eye(flat.size), gradient)
    start = np.asarray(model(params, test))[:, 0]
    expected = start + test_jacobian @ move
    # A function of flat parameters has no layers: its Jacobian is made another way, and the system solved on its side.
    run = cx.train(
        lambda at, rows: model(unravel(anchor + at), rows), cx.SquaredError(), cx.L2(), jnp.asarray(flat - anchor),
        (inputs, targets), strength=strength, max_steps=TINY.steps, solver=cx.Primal(),
    )  # fmt: skip
    trained_at = unravel(anchor + run.params)
    trained = np.asarray(model(trained_at, test))[:, 0]
    distance = np.linalg.norm(trained - expected) / np.linalg.norm(expected - start)
    assert cell["distance"] == pytest.approx(distance, rel=1e-3)
    kernels = [j @ j.T for j in (jacobian, _jacobian(model, trained_at, inputs))]
    drift = np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[0])
    assert cell["drift"] == pytest.approx(drift, rel=1e-3)
    assert cell["loss"] == pytest.approx(run.history["loss"][-1], rel=1e-3, abs=1e-11)


def test_eigenvalues_by_a_dense_kernel():
    cell = _cell(question="eigenvalue", width=64, rows=8, seed=0)
    model, params, inputs, *_ = experiment._setting(TINY, cell, 8)
    jacobian = _jacobian(model, params, inputs)
    assert cell["smallest"] == pytest.approx(np.linalg.eigvalsh(jacobian @ jacobian.T)[0], rel=1e-9)
    # Many networks' mean kernel is that of the infinite width.
    keys = jax.random.split(jax.random.key(5), 400)
    kernel = jax.jit(jax.vmap(lambda key: _gram(model, model.init(key), inputs)))(keys).mean(axis=0)
    assert cell["limit"] == pytest.approx(np.linalg.eigvalsh(kernel)[0], rel=0.2)


def _gram(model, params, inputs):
    flat, unravel = ravel_pytree(params)
    jacobian = jax.jacrev(lambda at: model(unravel(at), inputs)[:, 0])(flat)
    return jacobian @ jacobian.T


def test_predicted_curve_by_the_powers_of_the_kernel():
    cell = _cell(question="curve", width=64, seed=0)
    model, params, inputs, targets, _ = experiment._setting(TINY, cell, TINY.rows)
    jacobian = _jacobian(model, params, inputs)
    kernel = jacobian @ jacobian.T / len(inputs)
    step = TINY.step_size * np.linalg.solve(kernel + TINY.strength * np.eye(len(kernel)), kernel)
    residual = np.asarray(model(params, inputs) - targets)[:, 0]
    for loss in cell["predicted"]:
        residual = residual - step @ residual
        assert loss == pytest.approx(0.5 * np.mean(residual**2), rel=1e-5)
    errors = np.abs(np.sqrt(np.array(cell["predicted"]) / cell["measured"]) - 1)
    assert cell["error"] == pytest.approx(errors.max(), rel=1e-12)
    assert cell["error"] < 0.2


def test_slopes_of_a_law_that_is_known():
    cells = [
        {"question": "distance", "depth": 1, "activation": "silu", "regularizer": "none", "width": width,
         "distance": 3.0 * width**-0.5 * factor, "drift": width**-1.0}
        for width in (16, 64, 256, 1024) for factor in (0.9, 1 / 0.9)
    ]  # fmt: skip
    cells += [{"question": "eigenvalue", "depth": 1, "activation": "silu", "width": 64, "from_limit": 0.0}]
    found = {row["quantity"]: row for row in experiment.slopes(cells)}
    assert found["distance"]["slope"] == pytest.approx(-0.5)
    # s² = log(0.9)²·6/4 over Σ(x − mean)² = 2·2·log(4)².
    assert found["distance"]["error"] == pytest.approx(abs(np.log(0.9)) * np.sqrt(6 / 4) / np.sqrt(4) / np.log(4))
    assert found["drift"]["slope"] == pytest.approx(-1.0)
    assert "from_limit" not in found


def test_pictures(tmp_path):
    files = plots.save(plots.experiment(_record()), tmp_path)
    assert [file.name for file in files] == ["ntk-distance.svg", "ntk-drift.svg", "ntk-eigenvalue.svg", "ntk-curve.svg"]
    assert all(file.stat().st_size > 5000 and file.with_suffix(".png").stat().st_size > 5000 for file in files)
    figure = plots.against_width(_record(), "distance")
    assert isinstance(figure, Figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "activation silu, regularizer L2 of the change", "activation silu, regularizer L2 of the parameters",
        "activation silu, regularizer none",
    ]  # fmt: skip
    line = figure.axes[2].lines[0]
    cells = [c for c in _record().curves if c["question"] == "distance" and c["regularizer"] == "none"]
    expected = [np.median([c["distance"] for c in cells if c["width"] == width]) for width in (8, 64)]
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert jnp.asarray(line.get_xdata()).tolist() == [8, 64]
