"""Targets on linear and logarithmic scales: which is taken, and what is predicted on each."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

pytest.importorskip("sklearn")
from concordax.sklearn import GGNRegressor
from concordax.sklearn.linear_evidence import linear_evidence
from concordax.sklearn.targets import TargetScaler
from concordax.summary import _deviations
from table_cases import sine

ONE = {"hidden_widths": (8,), "n_networks": 2, "max_steps": 12, "strength": 1e-3}
NORMAL = np.random.default_rng(0).normal(size=(400, 2))


def _takes_logarithm(y, x, weights=None, scale="auto"):
    return TargetScaler(scale).fit(y[:, None], np.ones(len(y)) if weights is None else weights, x).is_log_[0]


# Which is taken -------------------------------------------------------------------------------------------------------


def test_the_logarithm_is_for_positive_targets_that_it_makes_linear_or_symmetric():
    x, noise = NORMAL[:, :1], NORMAL[:, 1]
    assert _takes_logarithm(np.exp(noise), x)
    assert _takes_logarithm(1e-200 * np.exp(noise), x)
    assert _takes_logarithm(1e200 * np.exp(noise), x)
    assert _takes_logarithm(np.exp(x[:, 0] + 0.3 * noise), x)
    assert not _takes_logarithm(np.exp(noise), x, scale="linear")
    assert not _takes_logarithm(np.exp(noise) - 0.1, x)
    assert not _takes_logarithm(10 + noise, x)
    assert not _takes_logarithm(100 + np.exp(noise), x)
    assert not _takes_logarithm(np.full(400, 3.0), x)
    # Skewed, but linear in a column that is.
    skewed = np.exp(noise)
    assert not _takes_logarithm(1 + skewed + 0.01 * x[:, 0] ** 2, skewed[:, None])


def test_what_may_be_chance_takes_no_logarithm():
    """The same gain a row from few rows and from many."""
    y = np.exp(0.7 * stats.norm.ppf((np.arange(10) + 0.5) / 10))
    x = np.zeros((10, 1))
    assert not _takes_logarithm(y, x)
    assert _takes_logarithm(np.tile(y, 10), np.tile(x, (10, 1)))
    assert _takes_logarithm(y, x, np.full(10, 10.0))


def test_columns_choose_for_themselves():
    x, noise = NORMAL[:, :1], NORMAL[:, 1:]
    scaler = TargetScaler().fit(np.concatenate([np.exp(noise), noise, -np.exp(noise)], axis=1), np.ones(400), x)
    assert scaler.is_log_.tolist() == [True, False, False]


@pytest.mark.parametrize("columns", [2, 9])
def test_the_evidence_is_the_density_of_a_linear_model(columns):
    """Both sides of the Gram against the dense density under the best prior of the same path and its best noise."""
    rng = np.random.default_rng(columns)
    x, t = rng.normal(size=(6, columns)), rng.normal(size=6)
    weights = np.array([1.0, 2.0, 1.0, 1.0, 3.0, 1.0])
    rows, targets = (np.repeat(array, weights.astype(int), axis=0) for array in (x, t))
    rows, targets = rows - rows.mean(axis=0), targets - targets.mean()
    n = len(targets)
    mean = np.linalg.eigvalsh(rows.T @ rows)[-min(columns, 6):].sum() / min(columns, 6)
    found = []
    for precision in mean * np.logspace(-6, 4, 21):
        covariance = np.eye(n) + rows @ rows.T / precision
        noise = targets @ np.linalg.solve(covariance, targets) / n
        found.append(stats.multivariate_normal(np.zeros(n), noise * covariance).logpdf(targets) / n)
    assert linear_evidence(x, t, weights) == pytest.approx(max(found), rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(sum), st.sampled_from(["linear", "log", "auto"]))
def test_weights_are_counts(weights, scale):
    y = np.exp(np.random.default_rng(1).normal(size=(12, 2)))
    counts = np.array(weights)
    x = np.random.default_rng(2).normal(size=(12, 2))
    weighted = TargetScaler(scale).fit(y, counts.astype(float), x)
    y_many, x_many = np.repeat(y, counts, axis=0), np.repeat(x, counts, axis=0)
    repeated = TargetScaler(scale).fit(y_many, np.ones(counts.sum()), x_many)
    np.testing.assert_array_equal(weighted.is_log_, repeated.is_log_)
    np.testing.assert_allclose(weighted.transform(y), repeated.transform(y), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=20), st.sampled_from(["linear", "log"]))
def test_inverse_undoes_transform_and_the_slope_is_its_derivative(values, scale):
    y = np.array(values)[:, None]
    assume(y.std() > 1e-3 * y.max())
    scaler = TargetScaler(scale).fit(y, np.ones(len(y)), y)
    z = scaler.transform(y)
    np.testing.assert_allclose(scaler.inverse(z), y, rtol=1e-9, atol=1e-9 * np.abs(y).max())
    difference = (scaler.inverse(z + 1e-5) - scaler.inverse(z - 1e-5)) / 2e-5
    np.testing.assert_allclose(np.exp(scaler.log_slope(z)), difference, rtol=1e-4)


# What is predicted ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both():
    """A fit to targets as logarithms, and one to their logarithms as they are."""
    x, y = sine(80)
    bent = GGNRegressor(**ONE, target_scale="log").fit(x, np.exp(y))
    plain = GGNRegressor(**ONE, target_scale="linear").fit(x, y)
    assert bent.target_is_log_
    assert not plain.target_is_log_
    return x, y, bent, plain


def test_numbers_are_those_of_the_log_normal(both):
    _, y, bent, plain = both
    new = np.random.default_rng(1).uniform(-2, 2, size=(6, 3))
    mean, std = plain.predict(new, return_std=True)
    expected = stats.lognorm(s=std, scale=np.exp(mean))
    median, deviation = bent.predict(new, return_std=True)
    np.testing.assert_allclose(median, np.exp(mean), rtol=1e-9)
    np.testing.assert_allclose(bent.predict(new), median, rtol=1e-12)
    np.testing.assert_allclose(deviation, expected.std(), rtol=1e-8)
    found, logarithm = bent.predict_distribution(new), plain.predict_distribution(new)
    np.testing.assert_allclose(np.log(found.interval(0.9)), logarithm.interval(0.9), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.logpdf(2.0), logarithm.logpdf(np.log(2.0)) - np.log(2.0), rtol=1e-6)
    assert bent.degrees_of_freedom_ == pytest.approx(plain.degrees_of_freedom_, rel=1e-5)
    _, covariance = bent.predict(new, return_cov=True)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), deviation, rtol=1e-8)
    draws = {"n_samples": 3, "random_state": 5}
    np.testing.assert_allclose(np.log(bent.sample_y(new, **draws)), plain.sample_y(new, **draws), rtol=1e-6, atol=1e-8)
    assert bent.noise_ == pytest.approx(plain.noise_, rel=1e-9)
    assert bent.log_evidence_ == pytest.approx(plain.log_evidence_ - y.sum(), rel=1e-9)
    np.testing.assert_allclose(bent.loo_residuals_, np.exp(y) - np.exp(y - plain.loo_residuals_), rtol=1e-7, atol=1e-9)


def test_the_joint_covariance_is_that_of_draws(both):
    _, _, bent, plain = both
    new = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [1.9, -1.9, 1.9]])
    rng = np.random.default_rng(0)
    for noise in (True, False):
        mean, logarithms = plain.predict(new, return_cov=True, observation_noise=noise)
        draws = plain.sample_y(new, n_samples=200_000, random_state=0, observation_noise=noise)
        np.testing.assert_allclose(np.cov(draws), logarithms, atol=0.03 * np.diag(logarithms).max())
        _, covariance = bent.predict(new, return_cov=True, observation_noise=noise)
        log_normal = np.exp(rng.multivariate_normal(mean, logarithms, size=200_000)).T
        np.testing.assert_allclose(np.cov(log_normal), covariance, atol=0.03 * np.diag(covariance).max())


def test_the_distribution_of_linear_targets_has_their_moments(both):
    x, _, _, plain = both
    mean, std = plain.predict(x, return_std=True)
    found = plain.predict_distribution(x)
    np.testing.assert_allclose([found.mean(), found.std()], [mean, std], rtol=1e-12)
    _, latent = plain.predict(x, return_std=True, observation_noise=False)
    np.testing.assert_allclose(plain.predict_distribution(x, observation_noise=False).std(), latent, rtol=1e-12)
    alone = plain.predict_distribution(x, parameter_uncertainty=False)
    np.testing.assert_allclose(alone.std(), plain.noise_, rtol=1e-12)
    np.testing.assert_allclose(std**2, latent**2 + plain.noise_**2, rtol=1e-10)
    with pytest.raises(ValueError, match="a point is no distribution"):
        plain.predict_distribution(x, parameter_uncertainty=False, observation_noise=False)


def test_several_targets_have_a_distribution_each():
    x, y = sine(100)
    skewed = np.exp(1.5 * y)
    model = GGNRegressor(**ONE).fit(x, np.stack([y, skewed], axis=1))
    assert model.target_is_log_.tolist() == [False, True]
    mean, std = model.predict(x, return_std=True)
    linear, bent = model.predict_distribution(x)
    np.testing.assert_allclose([linear.median(), bent.median()], mean.T, rtol=1e-12)
    np.testing.assert_allclose(linear.std(), std[:, 0], rtol=1e-9)
    assert (model.sample_y(x, n_samples=4)[:, 1] > 0).all()
    assert model.noise_.shape == (2,)
    assert model.loo_residuals_.shape == (100, 2)


def test_numbers_stay_numbers_far_away(both):
    _, _, bent, _ = both
    far = np.array([[1e6, -1e6, 1e6], [-1e9, 1e9, 1e9]])
    for result in (bent.predict(far, return_std=True), bent.predict(far, return_cov=True), [bent.sample_y(far)]):
        assert all(np.isfinite(part).all() for part in result)
    scaler = TargetScaler("log").fit(np.exp(np.linspace(0, 9, 20))[:, None], np.ones(20), np.ones((20, 1)))
    assert np.isfinite(scaler.std(np.array([[300.0]]), np.array([[900.0]]))).all()
    assert np.isfinite(scaler.inverse(np.array([[1e5]]))).all()


def test_prices_that_vary_in_proportion_get_intervals_that_do():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(300, 2))
    y = np.exp(1.5 * x[:, 0] + 0.3 * rng.normal(size=300))
    new = rng.uniform(-2, 2, size=(2000, 2))
    truth = np.exp(1.5 * new[:, 0] + 0.3 * rng.normal(size=2000))
    found = {
        scale: GGNRegressor(hidden_widths=(20,), target_scale=scale).fit(x, y).predict_distribution(new)
        for scale in ("auto", "linear")
    }
    assert found["auto"].logpdf(truth).mean() > found["linear"].logpdf(truth).mean() + 0.5
    small = truth < np.median(truth)
    for rows in (small, ~small):
        low, high = (end[rows] for end in found["auto"].interval(0.9))
        assert 0.85 < np.mean((low <= truth[rows]) & (truth[rows] <= high)) < 0.95


def test_robust_scales_are_those_of_the_bulk():
    y = np.exp(np.random.default_rng(0).normal(size=(101, 1)))
    spoilt = y.copy()
    spoilt[0] = 1e60
    rest = np.ones(101), np.ones((101, 1))
    clean, found = (TargetScaler("log", robust=True).fit(each, *rest) for each in (y, spoilt))
    assert found.scale_[0] == pytest.approx(clean.scale_[0], rel=0.1)
    assert TargetScaler("log").fit(spoilt, *rest).scale_[0] > 5 * clean.scale_[0]


# Going on, and refusals -----------------------------------------------------------------------------------------------


def test_streams_take_no_logarithm_by_themselves_and_refuse_what_has_none():
    x, y = sine(60)
    skewed = np.exp(2 * y)
    stream = GGNRegressor(**ONE).partial_fit(x, skewed)
    assert not stream.target_is_log_
    stream.partial_fit(x, -skewed)
    for begun in (
        GGNRegressor(**ONE, target_scale="log").partial_fit(x, skewed),
        GGNRegressor(**ONE, target_scale="log").fit(x, skewed),
    ):
        begun.partial_fit(x, skewed)
        with pytest.raises(ValueError, match="-1, and the fit that this goes on from learnt logarithms"):
            begun.partial_fit(x, np.maximum(-skewed, -1.0))


def test_a_warm_start_on_other_targets_begins_anew():
    x, y = sine(60)
    model = GGNRegressor(**ONE, warm_start=True).fit(x, np.exp(2 * y))
    assert model.target_is_log_
    np.testing.assert_array_equal(model.fit(x, y).predict(x), GGNRegressor(**ONE).fit(x, y).predict(x))


def test_another_scale_begins_anew():
    x, y = sine(60)
    model = GGNRegressor(**ONE, target_scale="linear", warm_start=True).fit(x, np.exp(y))
    model.set_params(target_scale="log").fit(x, np.exp(y))
    cold = GGNRegressor(**ONE, target_scale="log").fit(x, np.exp(y))
    np.testing.assert_array_equal(model.predict(x), cold.predict(x))


@pytest.mark.filterwarnings("error")
def test_rows_of_weight_zero_may_hold_anything():
    x, y = sine(60)
    skewed, weights = np.exp(2 * y), np.ones(60)
    skewed[:5], weights[:5] = -1.0, 0.0
    model = GGNRegressor(**ONE).fit(x, skewed, sample_weight=weights)
    assert model.target_is_log_
    without = GGNRegressor(**ONE).fit(x[5:], skewed[5:])
    np.testing.assert_allclose(model.predict(x), without.predict(x), rtol=1e-6)
    model.set_params(target_scale="log").partial_fit(x, skewed, sample_weight=weights)


def test_refusals_say_what_to_do():
    x, y = sine(40)
    with pytest.raises(ValueError, match=r'target_scale="log".*the targets hold -?\d.*"linear"'):
        GGNRegressor(**ONE, target_scale="log").fit(x, y)
    with pytest.raises(ValueError, match="target_scale"):
        GGNRegressor(**ONE, target_scale="logarithmic").fit(x, np.exp(y))


def test_deviations_keep_their_digits_in_both_tails():
    deviations = np.array([-35.0, -3.0, -1e-9, 0.0, 2.0, 30.0])
    np.testing.assert_allclose(_deviations(stats.norm(2.0, 3.0), 2 + 3 * deviations), deviations, atol=1e-8)
    bent = stats.lognorm(s=0.5, scale=2.0)
    np.testing.assert_allclose(_deviations(bent, 2 * np.exp(0.5 * deviations)), deviations, atol=1e-8)
