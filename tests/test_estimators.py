"""Estimators: scikit-learn's own checks, weights, streams, error bars against dense references."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_iris  # noqa: E402
from sklearn.inspection import permutation_importance  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from concordax.sklearn import GGNClassifier, GGNRegressor  # noqa: E402
from concordax.sklearn.reservoir import Reservoir  # noqa: E402
from concordax.sklearn.scaling import TableScaler  # noqa: E402
from table_cases import SMALL, sine  # noqa: E402

CHECKS = """
import sys, warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import estimator_checks_generator
import concordax.sklearn
from table_cases import SMALL
estimator = getattr(concordax.sklearn, sys.argv[1])(**(SMALL if sys.argv[1].startswith("GGN") else {}))
passed = 0
for instance, check in estimator_checks_generator(estimator):
    check(instance)
    passed += 1
print(passed)
"""


def _classes(rows=90, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2))
    angle = np.arctan2(x[:, 1], x[:, 0]) + 0.2 * rng.normal(size=rows)
    return x, np.array(["left", "middle", "right", "up"])[np.floor(classes * (angle % 6.2831) / 6.2832).astype(int)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GGNRegressor", "GGNClassifier", "TableScaler"])
def test_all_checks_of_scikit_learn_pass(name):
    """None skipped, none expected to fail: a check that raises, SkipTest too, fails here.

    Of a small network, which takes a quarter of the time.
    """
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", CHECKS, name], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout.split()[-1]) > 40


# Weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["evidence", "loo", 1e-3])
def test_weights_of_the_regressor_are_counts(strength):
    x, y = sine()
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, len(x)).astype(float)
    parameters = {**SMALL, "strength": strength}
    weighted = GGNRegressor(**parameters).fit(x, y, sample_weight=weights)
    repeated = GGNRegressor(**parameters).fit(
        np.repeat(x, weights.astype(int), axis=0), np.repeat(y, weights.astype(int))
    )
    np.testing.assert_allclose(weighted.predict(x), repeated.predict(x), rtol=1e-6, atol=1e-6)
    assert weighted.noise_ == pytest.approx(repeated.noise_, rel=1e-6)
    assert weighted.degrees_of_freedom_ == pytest.approx(repeated.degrees_of_freedom_, rel=1e-4)


@pytest.mark.parametrize("class_weight", [None, "balanced", {"left": 2.0, "middle": 0.5, "right": 1.0}])
def test_weights_of_the_classifier_are_counts(class_weight):
    x, y = _classes()
    weights = np.random.default_rng(1).integers(0, 3, len(x)).astype(float)
    weighted = GGNClassifier(**SMALL, class_weight=class_weight).fit(x, y, sample_weight=weights)
    counts = weights.astype(int)
    repeated = GGNClassifier(**SMALL, class_weight=class_weight).fit(np.repeat(x, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize(("weight", "units"), [(1.0, 100), (100.0, 160), (1000.0, 300)])
def test_width_follows_the_rows_as_they_count(weight, units):
    x, y = sine(80)
    model = GGNRegressor(max_steps=1, strength=1e-3).fit(x, y, sample_weight=np.full(80, weight))
    assert len(model.networks_[0][0][1]) == units


def test_balanced_classes_weigh_the_same():
    x, y = _classes(200, classes=2)
    keep = (y == "left") | (np.arange(200) % 8 == 0)
    x, y = x[keep], y[keep]
    n, counts = len(y), {label: np.sum(y == label) for label in np.unique(y)}
    by_hand = np.array([n / (2 * counts[label]) for label in y])
    balanced = GGNClassifier(**SMALL, class_weight="balanced").fit(x, y)
    np.testing.assert_allclose(
        balanced.predict_proba(x), GGNClassifier(**SMALL).fit(x, y, sample_weight=by_hand).predict_proba(x), atol=1e-8
    )
    plain = GGNClassifier(**SMALL).fit(x, y)
    assert balanced.predict_proba(x)[:, 1].mean() > plain.predict_proba(x)[:, 1].mean() + 0.01


def test_no_weight_at_all_is_refused():
    x, y = sine(20)
    with pytest.raises(ValueError, match="eight"):
        GGNRegressor(**SMALL).fit(x, y, sample_weight=np.zeros(20))


# Error bars -----------------------------------------------------------------------------------------------------------


def _linear_fit(rows=40, strength=0.01):
    """A linear network under L2: its posterior is that of ridge regression, and known in closed form."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 2))
    y = x @ [1.0, -2.0] + 0.3 * rng.normal(size=rows)
    parameters = {"hidden_widths": (), "activation": "linear", "regularizer": "l2", "strength": strength}
    parameters["n_networks"] = 1
    return x, y, GGNRegressor(**parameters, max_steps=30, tolerance=0.0).fit(x, y)


def _design(model, x):
    """The Jacobian of a network without hidden layers, from finite differences of its parameters."""
    z = model._inputs(x)
    columns = []
    for array in (array for layer in model.networks_[0] for array in layer):
        for index in np.ndindex(array.shape):
            array.flags.writeable or array.setflags(write=True)
            keep = array[index]
            array[index] = keep + 1e-4
            above = model._outputs(z)[0, :, 0]
            array[index] = keep - 1e-4
            columns.append((above - model._outputs(z)[0, :, 0]) / 2e-4)
            array[index] = keep
    return np.stack(columns, axis=1)


@pytest.fixture
def linear():
    x, y, model = _linear_fit()
    model.networks_ = [[tuple(np.array(array) for array in layer) for layer in model.networks_[0]]]
    return x, y, model


def test_covariance_draws_and_residuals_of_a_linear_model_are_those_of_ridge(linear):
    x, y, model = linear
    new = np.random.default_rng(4).normal(size=(6, 2))
    design, rows = _design(model, x), _design(model, new)
    n, tau, scale = len(x), model.strength_, model._target_scaler.scale_[0]
    inverse = np.linalg.inv(design.T @ design / n + tau * np.eye(design.shape[1]))
    noise = (model.noise_ / scale) ** 2
    latent = scale**2 * noise / n * rows @ inverse @ rows.T
    mean, covariance = model.predict(new, return_cov=True, observation_noise=False)
    np.testing.assert_allclose(covariance, latent, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(mean, model.predict(new))
    full = model.predict(new, return_cov=True)[1]
    np.testing.assert_allclose(full, latent + model.noise_**2 * np.eye(6), rtol=1e-6)
    np.testing.assert_allclose(model.predict(new, return_std=True)[1], np.sqrt(np.diag(full)), rtol=1e-9)
    draws = model.sample_y(new, n_samples=40_000, random_state=0, observation_noise=False)
    np.testing.assert_allclose(np.cov(draws), latent, atol=0.03 * latent.max())
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=5 * np.sqrt(latent.max() / 40_000))
    # Refits without each row, the scales kept: the left-out residuals of a linear model are exact.
    z = (y - model._target_scaler.center_[0]) / scale
    left_out = []
    for i in range(n):
        keep = np.arange(n) != i
        # 1/n stays that of all rows: what is left out is a row's loss, not the penalty's price.
        theta = np.linalg.solve(
            design[keep].T @ design[keep] / n + tau * np.eye(design.shape[1]), design[keep].T @ z[keep] / n
        )
        left_out.append(scale * (z[i] - design[i] @ theta))
    np.testing.assert_allclose(model.loo_residuals_, left_out, rtol=1e-4, atol=1e-6)


def test_log_evidence_is_the_density_of_the_targets(linear):
    x, y, model = linear
    design, n, tau = _design(model, x), len(x), model.strength_
    scale = model._target_scaler.scale_[0]
    noise = model.noise_**2
    # y ~ N(mean, σ² I + J J'σ²/(nτ)) in the targets' units.
    covariance = noise * (np.eye(n) + design @ design.T / (n * tau))
    deviation = y - model._target_scaler.center_[0]
    quadratic = deviation @ np.linalg.solve(covariance, deviation)
    expected = -0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + n * np.log(2 * np.pi))
    assert model.log_evidence_ == pytest.approx(expected, rel=1e-6)
    assert scale != 1.0


def test_several_targets_have_the_shapes_of_their_own():
    x, y = sine(60)
    targets = np.stack([y, 10 * y + x[:, 2]], axis=1)
    model = GGNRegressor(**SMALL).fit(x, targets)
    mean, std = model.predict(x[:5], return_std=True)
    _, covariance = model.predict(x[:5], return_cov=True)
    assert mean.shape == std.shape == (5, 2)
    assert covariance.shape == (5, 5, 2)
    np.testing.assert_allclose(np.sqrt(np.einsum("iia->ia", covariance)), std, rtol=1e-6)
    assert model.sample_y(x[:5], n_samples=7).shape == (5, 2, 7)
    assert model.noise_.shape == (2,)
    assert model.loo_residuals_.shape == (60, 2)


def test_a_covariance_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    x, y = sine(20)
    model = GGNRegressor(**SMALL).fit(x, y)
    monkeypatch.setattr("concordax.sklearn.predictions.free_bytes", lambda: 20_000)
    with pytest.raises(MemoryError, match="20 rows"):
        model.predict(x, return_cov=True)
    assert model.predict(x[:5], return_cov=True)[1].shape == (5, 5)


def test_only_one_kind_of_uncertainty_at_a_time():
    x, y = sine(20)
    with pytest.raises(ValueError, match="one of the two"):
        GGNRegressor(**SMALL).fit(x, y).predict(x, return_std=True, return_cov=True)


# Ways to the strength -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["evidence", "loo", "gcv", "held_out"])
def test_every_way_to_the_strength_learns_a_sine(way):
    x, y = sine(300)
    new, truth = sine(400, seed=5)
    model = GGNRegressor(hidden_widths=(30,), strength=way).fit(x, y)
    assert np.sqrt(np.mean((model.predict(new) - truth) ** 2)) < 0.2
    assert 1e-7 < model.strength_ < 1e-1


def test_cross_validated_strength_of_a_linear_model_is_the_best_of_a_grid():
    """Left-out squares by refits on a grid of strengths: the vertex is found within a grid step."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS := 60, COLUMNS := 20))
    y = x @ (0.3 * rng.normal(size=COLUMNS)) + 1.5 * rng.normal(size=ROWS)
    parameters = {"hidden_widths": (), "activation": "linear", "regularizer": "l2", "max_steps": 60}
    z = TableScaler().fit(x).transform(x) / np.sqrt(COLUMNS)
    z = np.concatenate([z, np.ones((ROWS, 1))], axis=1)
    target = (y - y.mean()) / y.std()
    grid = np.logspace(-4, 1, 101)

    def score(tau):
        hat = z @ np.linalg.solve(z.T @ z / ROWS + tau * np.eye(COLUMNS + 1), z.T / ROWS)
        residual = target - hat @ target
        return np.mean((residual / (1 - np.diag(hat))) ** 2), np.mean(residual**2) / (1 - np.trace(hat) / ROWS) ** 2

    best = grid[np.argmin([score(tau) for tau in grid], axis=0)]
    for way, expected in zip(("loo", "gcv"), best, strict=True):
        found = GGNRegressor(**parameters, strength=way).fit(x, y).strength_
        assert abs(np.log(found / expected)) < 0.25, way


def test_batches_need_a_number_as_strength():
    x, y = sine(400)
    with pytest.raises(ValueError, match="pass a number as strength"):
        GGNRegressor(batch_size=100).fit(x, y)
    assert GGNRegressor(batch_size=100, strength=1e-4, hidden_widths=(20,), max_steps=60).fit(x, y).score(x, y) > 0.9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_that_of_the_computation(dtype):
    x, y = sine(40)
    model = GGNRegressor(**SMALL, dtype=dtype).fit(x, y)
    assert model.networks_[0][0][0].dtype == dtype
    assert model.predict(x).dtype == np.float64


# Going on -------------------------------------------------------------------------------------------------------------


def test_warm_start_goes_on():
    x, y = sine(60)
    model = GGNRegressor(hidden_widths=(10,), max_steps=4, strength=1e-5, warm_start=True, tolerance=0.0).fit(x, y)
    first = model.history_["loss"][-1]
    model.fit(x, y)
    assert model.history_["loss"][0] < first
    cold = clone(model).set_params(warm_start=False).fit(x, y)
    assert model.history_["loss"][-1] < cold.history_["loss"][-1]


def test_a_stream_is_learnt():
    x, y = sine(300)
    model = GGNRegressor(hidden_widths=(20,), max_steps=15)
    for start in range(0, 300, 50):
        model.partial_fit(x[start : start + 50], y[start : start + 50])
    whole = GGNRegressor(hidden_widths=(20,), max_steps=60).fit(x, y)
    new, truth = sine(300, seed=9)
    error = lambda fitted: np.sqrt(np.mean((fitted.predict(new) - truth) ** 2))
    assert error(model) < 1.2 * error(whole)
    assert model._reservoir.seen == 300


def test_a_stream_of_classes_needs_them_all_at_first():
    x, y = _classes()
    with pytest.raises(ValueError, match="needs all labels"):
        GGNClassifier(**SMALL).partial_fit(x, y)
    order = np.argsort(y)
    model = GGNClassifier(hidden_widths=(20,), max_steps=20)
    for part in np.array_split(order, 3):
        model.partial_fit(x[part], y[part], classes=["left", "middle", "right"])
    assert model.score(x, y) > 0.8
    with pytest.raises(ValueError, match="not the same"):
        model.partial_fit(x, y, classes=["left", "right"])
    with pytest.raises(ValueError, match="not among the classes"):
        model.partial_fit(x[:2], ["left", "down"])


def test_a_reservoir_is_a_uniform_sample():
    counts = np.zeros(40)
    for seed in range(600):
        reservoir = Reservoir(10, seed)
        for start in range(0, 40, 8):
            reservoir.add(np.arange(start, start + 8))
        kept = reservoir.rows[0]
        assert len(np.unique(kept)) == 10
        counts[kept] += 1
    # 600 draws of probability 1/4: a standard deviation of 10.6.
    assert np.abs(counts - 150).max() < 4.5 * 10.6


# With the rest of scikit-learn ----------------------------------------------------------------------------------------


def test_clones_pickles_and_seeds_agree_to_the_bit():
    x, y = sine(60)
    model = GGNRegressor(**SMALL).fit(x, y)
    for other in (clone(model).fit(x, y), pickle.loads(pickle.dumps(model))):
        for mine, theirs in zip(model.predict(x, return_std=True), other.predict(x, return_std=True), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(model.predict(x), clone(model).set_params(random_state=1).fit(x, y).predict(x))


def test_search_cross_validation_pipelines_calibration_and_importance():
    x, y = load_breast_cancer(return_X_y=True)
    x, y = x[:200, :6], y[:200]
    scores = cross_val_score(make_pipeline(StandardScaler(), GGNClassifier(**SMALL)), x, y, cv=3, n_jobs=2)
    assert scores.mean() > 0.85
    search = GridSearchCV(GGNClassifier(**SMALL), {"strength": [1e-3, 1e-1]}, cv=2).fit(x, y)
    assert search.best_score_ > 0.85
    calibrated = CalibratedClassifierCV(GGNClassifier(**SMALL), cv=2, method="sigmoid").fit(x, y)
    assert calibrated.score(x, y) > 0.85
    x, y = sine(120)
    importance = permutation_importance(GGNRegressor(**SMALL).fit(x, y), x, y, random_state=0, n_repeats=3)
    assert importance.importances_mean[0] > importance.importances_mean[2] + 0.1


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_bring_their_names(library):
    frames = pytest.importorskip(library)
    x, y = sine(40)
    frame = frames.DataFrame({name: x[:, i] for i, name in enumerate(("a", "b", "c"))})
    model = GGNRegressor(**SMALL).fit(frame, frames.Series(y))
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(model.predict(frame), GGNRegressor(**SMALL).fit(x, y).predict(x))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_pipeline_may_hand_over_frames(library):
    frames = pytest.importorskip(library)
    x, y = sine(40)
    frame = frames.DataFrame({name: x[:, i] for i, name in enumerate(("a", "b", "c"))})
    pipeline = make_pipeline(StandardScaler(), GGNRegressor(**SMALL)).set_output(transform=library).fit(frame, y)
    assert list(pipeline[-1].feature_names_in_) == ["a", "b", "c"]
    plain = make_pipeline(StandardScaler(), GGNRegressor(**SMALL)).fit(x, y)
    # Sums over columns of a frame are taken in another order.
    np.testing.assert_allclose(pipeline.predict(frame), plain.predict(x), rtol=1e-8)


def test_two_classes_have_one_logit():
    x, y = _classes(classes=2)
    model = GGNClassifier(**SMALL).fit(x, y)
    logits = model.decision_function(x)
    assert logits.shape == (len(x),)
    np.testing.assert_allclose(model.predict_proba(x)[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(x), model.classes_[(logits > 0).astype(int)])
    x, y = load_iris(return_X_y=True)
    many = GGNClassifier(**SMALL).fit(x, y)
    exponentials = np.exp(many.decision_function(x))
    np.testing.assert_allclose(many.predict_proba(x), exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-6)
