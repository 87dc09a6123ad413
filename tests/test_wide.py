"""The network of infinite width among the others: against dense regression, and where it predicts along."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone

import concordax as cx
from concordax import ntk
from concordax.sklearn import GGNRegressor, defaults
from concordax.sklearn.wide import WideNetwork
from table_cases import SMALL, sine

WEIGHTS = np.resize([1.0, 2.0, 0.4], 25)


def _kernel(x1, x2):
    with jax.enable_x64(True):
        model = cx.MLP(inputs=x1.shape[1], widths=(1,), activation="relu")
        return np.asarray(ntk.infinite_width(model)(jnp.asarray(x1), jnp.asarray(x2)).ntk)


@pytest.fixture(scope="module")
def case():
    """Rows, two targets and a network of infinite width that learnt them with weights."""
    x, y = sine(25)
    targets = np.stack([y, x[:, 0] ** 2 + 0.1 * y], axis=1)
    targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    return x, targets, WideNetwork(x, targets, WEIGHTS)


def _dense(case):
    """K + t D⁻¹ at the shift that was chosen, and s²."""
    x, targets, wide = case
    matrix = _kernel(x, x) + wide._shift * np.diag(1 / WEIGHTS)
    scale = np.sum(targets * np.linalg.solve(matrix, targets)) / (2 * WEIGHTS.sum())
    # A row of weight w as w rows: its spread within them is no part of yᵀ(K + tD⁻¹)⁻¹y, for they are equal.
    return matrix, scale


def test_it_is_gaussian_process_regression(case):
    x, targets, wide = case
    new = np.random.default_rng(3).normal(size=(7, 3))
    matrix, scale = _dense(case)
    cross = _kernel(new, x)
    mean = cross @ np.linalg.solve(matrix, targets)
    covariance = scale * (_kernel(new, new) - cross @ np.linalg.solve(matrix, cross.T))
    np.testing.assert_allclose(wide.outputs(new), mean, rtol=1e-8, atol=1e-10)
    outputs, blocks = wide.predict(new)
    np.testing.assert_allclose(outputs, mean, rtol=1e-8, atol=1e-10)
    expected = np.diag(covariance)[:, None, None] * np.eye(2)
    np.testing.assert_allclose(blocks, expected, rtol=1e-7, atol=1e-10)
    outputs, joint = wide.joint(new)
    np.testing.assert_allclose(outputs, mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(joint[:, 0, :, 0], covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(joint[:, 1, :, 1], covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(joint[:, 0, :, 1], 0)
    assert wide.noise_variance == pytest.approx(wide._shift * scale, rel=1e-8)


def test_its_strength_is_the_likeliest():
    x, y = sine(25)
    targets = ((y - y.mean()) / y.std())[:, None]
    wide, kernel = WideNetwork(x, targets, np.ones(25)), _kernel(x, x)

    def density(shift):
        covariance = kernel + shift * np.eye(25)
        scale = targets[:, 0] @ np.linalg.solve(covariance, targets[:, 0]) / 25
        return stats.multivariate_normal(np.zeros(25), scale * covariance).logpdf(targets[:, 0])

    best = density(wide._shift)
    assert all(best > density(factor * wide._shift) for factor in (0.9, 1.1, 0.01, 100))


def test_left_out_rows_are_predicted_by_the_rest(case):
    x, targets, wide = case
    _, scale = _dense(case)
    outputs, covariance = wide.left_out()
    for row in range(25):
        left = WEIGHTS.copy()
        left[row] -= min(left[row], 1.0)
        keep = left > 0
        matrix = _kernel(x[keep], x[keep]) + wide._shift * np.diag(1 / left[keep])
        cross = _kernel(x[row : row + 1], x[keep])
        np.testing.assert_allclose(outputs[row], (cross @ np.linalg.solve(matrix, targets[keep]))[0], rtol=1e-7)
        prior = _kernel(x[row : row + 1], x[row : row + 1])
        variance = scale * (prior - cross @ np.linalg.solve(matrix, cross.T))[0, 0]
        np.testing.assert_allclose(covariance[row], variance * np.eye(2), rtol=1e-6, atol=1e-13)


def test_it_pickles_without_its_eigenvectors(case):
    x, _, wide = case
    content = pickle.dumps(wide)
    assert len(content) < 8 * 25 * 25
    loaded = pickle.loads(content)
    for mine, theirs in zip(wide.predict(x), loaded.predict(x), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_it_predicts_along_with_half_the_weight():
    x, y = sine(60)
    parameters = {**SMALL, "n_networks": 2, "strength": 1e-3, "target_scale": "linear"}
    alone, mixed = (GGNRegressor(**parameters, infinite_width=choice).fit(x, y) for choice in (False, True))
    assert (alone.infinite_width_, mixed.infinite_width_) == (False, True)
    new = np.random.default_rng(1).uniform(-2, 2, size=(5, 3))
    scale, center = alone._target_scaler.scale_[0], alone._target_scaler.center_[0]
    outputs, covariance = mixed._wide.joint(alone._scaler.transform(new))
    wide = center + scale * outputs[:, 0], scale**2 * covariance[:, 0, :, 0]
    networks = alone.predict(new, return_cov=True, observation_noise=False)
    expected = 0.5 * (wide[0] + networks[0])
    apart = np.outer(wide[0] - networks[0], wide[0] - networks[0])
    mean, joint = mixed.predict(new, return_cov=True, observation_noise=False)
    np.testing.assert_allclose(mean, expected, rtol=1e-9)
    np.testing.assert_allclose(mixed.predict(new), expected, rtol=1e-9)
    np.testing.assert_allclose(joint, 0.5 * (wide[1] + networks[1]) + 0.25 * apart, rtol=1e-7, atol=1e-12)
    noise = 0.5 * (scale**2 * mixed._wide.noise_variance + alone.noise_**2)
    assert mixed.noise_ == pytest.approx(np.sqrt(noise), rel=1e-9)
    _, std = mixed.predict(new, return_std=True)
    np.testing.assert_allclose(std, np.sqrt(np.diag(joint) + noise), rtol=1e-7)
    left_out = y - (center + scale * mixed._wide.left_out()[0][:, 0])
    np.testing.assert_allclose(mixed.loo_residuals_, 0.5 * (left_out + alone.loo_residuals_), rtol=1e-7, atol=1e-9)


SMOOTH = sine(50)


@pytest.fixture
def quick(monkeypatch):
    """Networks that choose their own width, of ten units."""
    monkeypatch.setattr(defaults, "_FEWEST_UNITS", 10)
    return {"n_networks": 2, "max_steps": 12}


def test_it_joins_where_it_errs_no_more_on_rows_left_out(quick):
    x, y = SMOOTH
    model = GGNRegressor(**quick).fit(x, y)
    alone = GGNRegressor(**quick, infinite_width=False).fit(x, y)
    wide = GGNRegressor(**quick, infinite_width=True).fit(x, y)
    theirs = 2 * wide.loo_residuals_ - alone.loo_residuals_
    assert model.infinite_width_ == (np.mean(theirs**2) <= np.mean(alone.loo_residuals_**2))
    # One direction of six: what learns it is far ahead.
    x = np.random.default_rng(0).normal(size=(120, 6))
    y = np.tanh(4 * x @ [0.5, -0.5, 0.5, 0.5, 0.0, 0.0])
    assert not GGNRegressor(**{**quick, "max_steps": 60}).fit(x, y).infinite_width_


def test_few_rows_of_a_plane_are_for_it(quick):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 8))
    assert GGNRegressor(**quick).fit(x, x.sum(axis=1) + rng.normal(size=40)).infinite_width_


@pytest.mark.parametrize(
    "parameters",
    [
        {"infinite_width": False},
        {"hidden_widths": (10,)},
        {"strength": 1e-3},
        {"strength": "held_out"},
        {"loss": "pseudo_huber"},
    ],
    ids=str,
)
def test_it_stays_away(quick, parameters):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 8))
    model = GGNRegressor(**{**quick, **parameters}).fit(x, x.sum(axis=1) + rng.normal(size=40))
    assert not model.infinite_width_


def test_it_is_not_tried_on_many_rows(quick, monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 8))
    y = x.sum(axis=1) + rng.normal(size=40)
    monkeypatch.setattr(defaults, "_ROWS_OF_WIDE", 40)
    assert GGNRegressor(**quick).fit(x, y).infinite_width_
    assert not GGNRegressor(**quick).fit(x, y, sample_weight=np.full(40, 1.1)).infinite_width_
    monkeypatch.setattr(defaults, "_ROWS_OF_WIDE", 39)
    assert not GGNRegressor(**quick).fit(x, y, sample_weight=np.full(40, 0.1)).infinite_width_


def test_what_cannot_be_done_is_refused(monkeypatch):
    x, y = SMOOTH
    with pytest.raises(ValueError, match=r"infinite_width=True.*loss='pseudo_huber'.*only squared error"):
        GGNRegressor(**SMALL, infinite_width=True, loss="pseudo_huber").fit(x, y)
    monkeypatch.setattr("concordax.sklearn.wide.free_bytes", lambda: 1e5)
    with pytest.raises(MemoryError, match="8e-05 GB for 50 rows; 5e-05 GB may be used"):
        GGNRegressor(**SMALL, strength=1e-3, infinite_width=True).fit(x, y)


def test_weights_are_counts():
    x, y = SMOOTH
    counts = np.random.default_rng(1).integers(0, 3, len(x))
    parameters = {**SMALL, "strength": 1e-3, "infinite_width": True}
    weighted = GGNRegressor(**parameters).fit(x, y, sample_weight=counts.astype(float))
    repeated = GGNRegressor(**parameters).fit(np.repeat(x, counts, axis=0), np.repeat(y, counts))
    for mine, theirs in zip(weighted.predict(x, return_std=True), repeated.predict(x, return_std=True), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


def test_it_lives_through_copies_streams_and_precision():
    x, y = SMOOTH
    model = GGNRegressor(**SMALL, strength=1e-3, infinite_width=True, dtype="float32").fit(x, y)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict(x, return_std=True), model.predict(x, return_std=True))
    np.testing.assert_array_equal(clone(model).fit(x, y).predict(x), model.predict(x))
    rows = model._inputs(x).astype(np.float64)
    with model._computation():
        found = model._wide.outputs(rows)
    expected = _kernel(rows, model._wide._rows) @ model._wide._coefficients
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    before = model._wide
    model.partial_fit(x + 0.01, y)
    assert model._wide is not before
    assert len(model._wide.left_out()[0]) == 2 * len(x)
    assert model.sample_y(x, n_samples=3).shape == (50, 3)
