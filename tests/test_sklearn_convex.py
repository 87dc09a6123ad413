"""Convex problems against scikit-learn and SciPy: the objective without any smoothing, to 1e-6 of its value."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import ElasticNet, LogisticRegression, PoissonRegressor, QuantileRegressor

import concordax as cx

ROWS, COLUMNS = 90, 5
# Each of these starts where the last one ended: the kinks sharpen under a point that is near them already.
SMOOTHINGS = (0.1, 1e-3, 1e-5)


def linear(params, inputs):
    return inputs @ params


def _inputs(seed):
    """Rows with a column of ones, the intercept, and a truth with zeros."""
    rng = np.random.default_rng(seed)
    inputs = np.hstack([np.ones((ROWS, 1)), rng.normal(size=(ROWS, COLUMNS - 1))])
    return rng, inputs, inputs @ np.array([0.5, 1.0, -1.5, 0.0, 0.0])


def _fit(loss, regularizer, inputs, targets, strength, start=None, weights=None):
    start = jnp.zeros((COLUMNS, 1)) if start is None else start
    data = (jnp.asarray(inputs), jnp.asarray(targets))
    result = cx.train(
        linear, loss, regularizer, start, data, strength=strength, weights=weights, solver=cx.Primal(),
        tolerance=1e-13, max_steps=300,
    )  # fmt: skip
    return result.params


def _at_least_as_good(objective, ours, theirs):
    """Both minimise the same function: neither is below the other by more than 1e-6 of it."""
    mine, reference = objective(np.asarray(ours)[:, 0]), objective(np.asarray(theirs).ravel())
    assert abs(mine - reference) <= 1e-6 * abs(reference)
    # And 0, where the run began, is no answer.
    assert objective(np.zeros(COLUMNS)) > 1.05 * reference


def test_poisson_regression():
    rng, inputs, signal = _inputs(0)
    counts = rng.poisson(np.exp(0.5 * signal)).astype(float)
    weights = rng.uniform(0.5, 2.0, ROWS)
    assert counts.min() == 0
    theirs = PoissonRegressor(alpha=0.05, fit_intercept=False, tol=1e-10, max_iter=1000)
    theirs.fit(inputs, counts, sample_weight=weights)

    def objective(w):
        eta = inputs @ w
        deviance = np.exp(eta) - counts * eta + np.where(counts > 0, counts * np.log(np.maximum(counts, 1)), 0) - counts
        return weights @ deviance / weights.sum() + 0.025 * w @ w

    ours = _fit(cx.PoissonDeviance(), cx.L2(), inputs, counts, 0.05, weights=weights)
    _at_least_as_good(objective, ours, theirs.coef_)
    np.testing.assert_allclose(ours[:, 0], theirs.coef_, atol=1e-5)


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_logistic_regression(penalty):
    rng, inputs, signal = _inputs(1)
    labels = (signal + rng.logistic(size=ROWS) > 0).astype(float)
    c = 0.3
    strength = 1 / (c * ROWS)
    # The penalty is said by `penalty` up to version 1.7, and by `l1_ratio` alone from 1.8 on.
    by_name = LogisticRegression().penalty == "l2"
    kind = {"penalty": penalty} if by_name else {"l1_ratio": float(penalty == "l1")}
    theirs = LogisticRegression(C=c, **kind, solver="saga", fit_intercept=False, tol=1e-9, max_iter=100_000)
    theirs.fit(inputs, labels)

    def objective(w):
        eta = inputs @ w
        size = np.abs(w).sum() if penalty == "l1" else 0.5 * w @ w
        return np.mean(np.logaddexp(0, eta) - labels * eta) + strength * size

    ours = None
    for regularizer in [cx.L2()] if penalty == "l2" else [cx.PseudoHuber(s) for s in SMOOTHINGS]:
        ours = _fit(cx.BinaryCrossEntropy(), regularizer, inputs, labels, strength, ours)
    _at_least_as_good(objective, ours, theirs.coef_)
    if penalty == "l1":
        assert np.sum(np.abs(theirs.coef_) < 1e-9) >= 1
        np.testing.assert_array_equal(np.abs(np.asarray(ours)[:, 0]) < 1e-3, np.abs(theirs.coef_[0]) < 1e-9)


def test_quantile_regression():
    rng, inputs, signal = _inputs(2)
    targets = signal + rng.standard_exponential(ROWS)
    q, strength = 0.8, 0.01
    theirs = QuantileRegressor(quantile=q, alpha=strength, fit_intercept=False, solver="highs").fit(inputs, targets)

    def objective(w):
        z = targets - inputs @ w
        return np.mean(np.maximum(q * z, (q - 1) * z)) + strength * np.abs(w).sum()

    ours = None
    for smoothing in SMOOTHINGS:
        ours = _fit(cx.QuantileLoss(q, smoothing), cx.PseudoHuber(smoothing), inputs, targets, strength, ours)
    _at_least_as_good(objective, ours, theirs.coef_)
    assert np.mean(targets <= inputs @ np.asarray(ours)[:, 0]) == pytest.approx(q, abs=0.05)


def test_robust_regression():
    rng, inputs, signal = _inputs(3)
    targets = signal + 0.3 * rng.standard_cauchy(ROWS)
    scale, strength = 0.4, 0.02

    def objective(w):
        z = (targets - inputs @ w) / scale
        return scale**2 * np.mean(np.sqrt(1 + z**2) - 1) + 0.5 * strength * w @ w

    theirs = minimize(objective, np.zeros(COLUMNS), method="BFGS", options={"gtol": 1e-7})
    ours = _fit(cx.PseudoHuberLoss(scale), cx.L2(), inputs, targets, strength)
    _at_least_as_good(objective, ours, theirs.x)
    np.testing.assert_allclose(ours[:, 0], theirs.x, atol=1e-4)


@pytest.mark.parametrize(("dtype", "digits"), [(jnp.float64, 1e-8), (jnp.float32, 1e-4)])
def test_elastic_net_by_the_proximal_step(dtype, digits):
    """The corner and a metric that counts, in both precisions: the same zeros, and a run that ends."""
    _, inputs, signal = _inputs(4)
    targets = signal + 0.1 * np.sin(7 * inputs[:, 1])
    strength, smooth = 0.1, 0.4
    theirs = ElasticNet(
        alpha=strength * (1 + smooth), l1_ratio=1 / (1 + smooth), fit_intercept=False, tol=1e-14, max_iter=100_000
    )
    theirs.fit(inputs, targets)
    data, start = (jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)), jnp.ones((COLUMNS, 1), dtype)
    result = cx.train(
        linear, cx.SquaredError(), smooth * cx.L2(), start, data, strength=strength, step=cx.ProximalStep(cx.L1()),
        tolerance=0.0, max_steps=12,
    )  # fmt: skip
    assert result.params.dtype == dtype
    assert 0 < (theirs.coef_ == 0).sum() < COLUMNS
    np.testing.assert_allclose(result.params[:, 0], theirs.coef_, atol=digits)
    np.testing.assert_array_equal(result.params[:, 0] == 0, theirs.coef_ == 0)
    assert result.history["kkt_residual"][-1] < digits
    # Each solve needs a few rounds of one solve each: without an end at the rounding of u it would take all 60.
    assert result.history["solver_iterations"].max() <= 12 * 3
