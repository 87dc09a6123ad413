"""The shape of the distribution of new observations: Student's t against quadrature, grids and draws."""

import numpy as np
import pytest
from scipy import integrate, special, stats

pytest.importorskip("sklearn")
from concordax.sklearn import GGNRegressor
from concordax.sklearn.tails import degrees_of_freedom, log_student_t, unit_scale
from table_cases import SMALL, sine


def _most_likely(z, weights):
    """By a grid over the density, written out with gamma functions, and its prior."""
    z = z / np.sqrt(weights @ z**2 / weights.sum())
    nu = 2 + np.geomspace(0.011, 197, 40_000)[:, None]
    density = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(np.pi * (nu - 2))
    density = density - (nu + 1) / 2 * np.log1p(z**2 / (nu - 2))
    return nu[np.argmax(density @ weights + np.log(nu[:, 0]) - 0.1 * nu[:, 0]), 0]


@pytest.mark.parametrize("nu", [3.0, 8.0, np.inf])
@pytest.mark.parametrize("rows", [30, 300])
def test_the_shape_is_the_likeliest(nu, rows):
    rng = np.random.default_rng(rows)
    z = 1e3 * (rng.standard_normal(rows) if np.isinf(nu) else rng.standard_t(nu, rows))
    weights = rng.uniform(0.3, 2, rows)
    assert degrees_of_freedom(z, weights) == pytest.approx(_most_likely(z, weights), rel=1e-3)


def test_the_shape_of_many_draws_is_theirs():
    rng = np.random.default_rng(0)
    assert degrees_of_freedom(rng.standard_t(5, 100_000), np.ones(100_000)) == pytest.approx(5, rel=0.05)
    assert degrees_of_freedom(rng.standard_normal(100_000), np.ones(100_000)) > 60


def test_weights_count_rows():
    z, counts = np.random.default_rng(1).standard_t(4, 60), np.random.default_rng(2).integers(1, 4, 60)
    repeated = degrees_of_freedom(np.repeat(z, counts), np.ones(counts.sum()))
    assert degrees_of_freedom(z, counts.astype(float)) == pytest.approx(repeated, rel=1e-6)


def test_odd_deviations_have_a_shape():
    ones = np.ones(5)
    assert degrees_of_freedom(np.zeros(5), ones) == 10
    plain = degrees_of_freedom(np.array([1.0, -2.0, 0.5, 0.1, -1.0]), ones)
    for scale in (1e-300, 1e300):
        assert degrees_of_freedom(scale * np.array([1.0, -2.0, 0.5, 0.1, -1.0]), ones) == pytest.approx(plain, rel=1e-6)
    assert 2 < degrees_of_freedom(np.array([0.0] * 99 + [1.0]), np.ones(100)) < 3


def test_the_logarithm_of_a_log_student_t_is_student_t():
    found, t = log_student_t(df=3.5, s=0.4, scale=2.0), stats.t(3.5, np.log(2.0), 0.4)
    q = np.array([1e-9, 0.025, 0.3, 0.5, 0.9, 1 - 1e-9])
    x = np.exp(t.ppf(q))
    np.testing.assert_allclose(found.ppf(q), x, rtol=1e-9)
    np.testing.assert_allclose(found.isf(q), np.exp(t.isf(q)), rtol=1e-9)
    np.testing.assert_allclose(found.cdf(x), q, rtol=1e-9)
    np.testing.assert_allclose(found.sf(x), t.sf(np.log(x)), rtol=1e-9)
    np.testing.assert_allclose(found.logcdf(x), np.log(q), rtol=1e-9)
    np.testing.assert_allclose(found.logsf(x), np.log(t.sf(np.log(x))), rtol=1e-7)
    np.testing.assert_allclose(found.pdf(x), np.exp(found.logpdf(x)), rtol=1e-12)
    assert integrate.quad(found.pdf, 1.0, 5.0)[0] == pytest.approx(found.cdf(5.0) - found.cdf(1.0), rel=1e-9)
    assert found.cdf(0.0) == found.pdf(-1.0) == 0
    assert found.mean() == found.var() == np.inf


@pytest.fixture(scope="module")
def heavy():
    """A fit to targets whose noise is Student's t of 3 degrees, and 4000 new ones."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-2, 2, size=(4300, 3))
    y = x[:, 0] - x[:, 1] + 0.3 * rng.standard_t(3, size=4300)
    parameters = {**SMALL, "hidden_widths": (), "activation": "linear", "strength": 1e-3, "target_scale": "linear"}
    return GGNRegressor(**parameters).fit(x[:300], y[:300]), x[300:], y[300:]


def test_intervals_hold_what_they_promise_where_noise_has_heavy_tails(heavy):
    model, x, y = heavy
    assert 2 < model.degrees_of_freedom_ < 6
    mean, std = model.predict(x, return_std=True)
    found, normal = model.predict_distribution(x), stats.norm(mean, std)
    np.testing.assert_allclose([found.mean(), found.std()], [mean, std], rtol=1e-9)

    def held(distribution):
        low, high = distribution.interval(0.5)
        return np.mean((low < y) & (y < high))

    assert abs(held(found) - 0.5) < 0.03 < 0.07 < held(normal) - 0.5
    assert found.logpdf(y).mean() > normal.logpdf(y).mean() + 0.05


def test_draws_have_the_tails(heavy):
    model, x, _ = heavy
    draws = model.sample_y(x[:1], n_samples=100_000)[0]
    found = model.predict_distribution(x[:1])
    for level in (0.5, 0.95):
        low, high = found.interval(level)
        assert np.mean((low[0] < draws) & (draws < high[0])) == pytest.approx(level, abs=0.01)
    functions = model.sample_y(x[:1], n_samples=100_000, observation_noise=False)[0]
    _, latent = model.predict(x[:1], return_std=True, observation_noise=False)
    assert stats.kurtosis(functions / latent) == pytest.approx(0, abs=0.1)


def test_what_the_networks_do_not_know_is_normal(heavy):
    model, x, _ = heavy
    found = model.predict_distribution(x[:5], observation_noise=False)
    mean, std = model.predict(x[:5], return_std=True, observation_noise=False)
    np.testing.assert_allclose(found.ppf(0.9), stats.norm(mean, std).ppf(0.9), rtol=1e-12)
    noise = model.predict_distribution(x[:5], parameter_uncertainty=False)
    expected = stats.t(model.degrees_of_freedom_, mean, model.noise_ * unit_scale(model.degrees_of_freedom_))
    np.testing.assert_allclose(noise.ppf(0.9), expected.ppf(0.9), rtol=1e-9)


def test_the_shape_is_that_of_refits_without_each_row():
    """A linear network under L2: each row left out of the normal equations, scales and noise as they were."""
    x, y = sine(60)
    y = y + np.random.default_rng(0).standard_t(2.5, 60)
    parameters = {"hidden_widths": (), "activation": "linear", "regularizer": "l2", "n_networks": 1}
    model = GGNRegressor(**parameters, strength=0.01, target_scale="linear", max_steps=30, tolerance=0.0).fit(x, y)
    z = (x - model._scaler.center_) / model._scaler.scale_
    np.testing.assert_allclose(model._inputs(x), z, rtol=1e-9)
    design = np.concatenate([z / np.sqrt(3), np.ones((60, 1))], axis=1)
    target = (y - y.mean()) / y.std()
    deviations = []
    for row in range(60):
        others = np.delete(design, row, axis=0)
        normal = others.T @ others + 60 * 0.01 * np.eye(4)
        fitted = np.linalg.solve(normal, others.T @ np.delete(target, row))
        leverage = design[row] @ np.linalg.solve(normal, design[row])
        deviations.append((target[row] - design[row] @ fitted) / np.sqrt(1 + leverage))
    expected = _most_likely(np.array(deviations), np.ones(60))
    assert model.degrees_of_freedom_ == pytest.approx(expected, rel=1e-3)


def test_several_targets_have_a_shape_each():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    y = x + 0.1 * np.stack([rng.standard_normal(300), rng.standard_t(2.5, 300)], axis=1)
    model = GGNRegressor(**{**SMALL, "target_scale": "linear"}).fit(x, y)
    assert model.degrees_of_freedom_[0] > 10 > 5 > model.degrees_of_freedom_[1]
    light, heavy = model.predict_distribution(x)
    np.testing.assert_allclose([light.args[0], heavy.args[0]], model.degrees_of_freedom_)
    assert model.sample_y(x, n_samples=3).shape == (300, 2, 3)
