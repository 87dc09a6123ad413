"""Kernel regression: against dense algebra, SciPy's normal distribution, refits, and scikit-learn's own regressions."""

import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
from scipy.stats import multivariate_normal  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: E402
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel  # noqa: E402
from sklearn.kernel_ridge import KernelRidge  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402

import concordax as cx  # noqa: E402
from concordax import ntk  # noqa: E402
from concordax.ntk import network_kernel  # noqa: E402
from concordax.sklearn import TableScaler  # noqa: E402
from table_cases import sine  # noqa: E402

KERNEL = RBF(1.5)
CHECKS = """
import warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import estimator_checks_generator
from concordax.ntk import KernelRegression
passed = 0
for instance, check in estimator_checks_generator(KernelRegression()):
    check(instance)
    passed += 1
print(passed)
"""


def _table(rows=30, columns=2):
    x, y = sine(rows)
    targets = np.stack([y, y**2 + x[:, 2], 3 * x[:, 1]], axis=1)[:, :columns]
    return x, targets


def _scaled(x, targets, weights=None):
    """Inputs and targets as the estimator scales them, and the kernel of the rows."""
    z = TableScaler().fit(x, sample_weight=weights).transform(x)
    weights = np.ones(len(x)) if weights is None else weights
    mean = np.average(targets, axis=0, weights=weights)
    scale = np.sqrt(np.average((targets - mean) ** 2, axis=0, weights=weights))
    return z, (targets - mean) / scale, mean, scale, KERNEL(z)


@pytest.mark.slow
def test_all_checks_of_scikit_learn_pass():
    """None skipped, none expected to fail: a check that raises, SkipTest too, fails here."""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    run = subprocess.run([sys.executable, "-c", CHECKS], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    assert int(run.stdout.split()[-1]) > 40


# Predictions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1e-4, 0.1])
def test_mean_is_that_of_kernel_ridge_regression(strength):
    x, targets = _table()
    weights = np.random.default_rng(2).uniform(0.2, 3.0, len(x))
    z, scaled, mean, scale, kernel = _scaled(x, targets, weights)
    model = ntk.KernelRegression(KERNEL, strength=strength).fit(x, targets, sample_weight=weights)
    ridge = KernelRidge(alpha=strength * weights.sum(), kernel="precomputed").fit(kernel, scaled, weights)
    new = np.random.default_rng(3).uniform(-3, 3, size=(7, 3))
    expected = ridge.predict(KERNEL(TableScaler().fit(x, sample_weight=weights).transform(new), z)) * scale + mean
    np.testing.assert_allclose(model.predict(new), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.dual_coef_, ridge.dual_coef_, rtol=1e-7, atol=1e-7)
    assert model.strength_ == pytest.approx(strength, rel=1e-14)
    assert model.effective_parameters_ == pytest.approx(
        2 * np.trace(np.linalg.solve(kernel + strength * weights.sum() * np.diag(1 / weights), kernel)), rel=1e-9
    )


@pytest.mark.parametrize("strength", ["evidence", 1e-2])
def test_error_bars_are_those_of_a_gaussian_process(strength):
    """The same kernel times s², the same noise; s² is the likeliest."""
    x, targets = _table(columns=1)
    z, scaled, _, scale, kernel = _scaled(x, targets)
    model = ntk.KernelRegression(KERNEL, strength=strength).fit(x, targets[:, 0])
    shift = model.strength_ * len(x)
    likeliest = float(scaled[:, 0] @ np.linalg.solve(kernel + shift * np.eye(len(x)), scaled[:, 0])) / len(x)
    process = GaussianProcessRegressor(
        ConstantKernel(likeliest) * KERNEL + WhiteKernel(shift * likeliest), alpha=0.0, optimizer=None
    ).fit(z, scaled[:, 0])
    new = np.random.default_rng(3).uniform(-3, 3, size=(7, 3))
    _, std = process.predict(TableScaler().fit(x).transform(new), return_std=True)
    np.testing.assert_allclose(model.predict(new, return_std=True)[1], std * scale[0], rtol=1e-8)
    without = np.sqrt((std**2 - shift * likeliest) * scale[0] ** 2)
    np.testing.assert_allclose(model.predict(new, True, observation_noise=False)[1], without, rtol=1e-7)
    assert model.noise_ == pytest.approx(np.sqrt(shift * likeliest) * scale[0], rel=1e-9)
    expected = process.log_marginal_likelihood_value_ - len(x) * np.log(scale[0])
    assert model.log_evidence_ == pytest.approx(expected, abs=1e-7)


def test_one_gauss_newton_step_on_a_linear_model_is_this_regression():
    """From θ = 0 with H = I, where the gradient of g is zero: f = k(x, X)(K + nτI)⁻¹ y, k the product of features."""
    x, targets = _table()
    rng = np.random.default_rng(0)
    frequencies, phases = rng.normal(size=(3, 50)), rng.uniform(0, 2 * np.pi, 50)
    features = lambda z: np.cos(z @ frequencies + phases)
    z, scaled, mean, scale, _ = _scaled(x, targets)
    model = ntk.KernelRegression(lambda a, b: features(a) @ features(b).T, strength=1e-3).fit(x, targets)
    run = cx.train(
        lambda params, inputs: inputs @ params, cx.SquaredError(), cx.L2(), jax.numpy.zeros((50, 2)),
        (features(z), scaled), strength=1e-3, step=cx.FixedStep(1.0), max_steps=1,
    )  # fmt: skip
    new = rng.uniform(-3, 3, size=(7, 3))
    expected = features(TableScaler().fit(x).transform(new)) @ np.asarray(run.params) * scale + mean
    np.testing.assert_allclose(model.predict(new), expected, rtol=1e-10, atol=1e-10)


# The strength ---------------------------------------------------------------------------------------------------------


def test_evidence_is_the_density_of_the_targets_and_at_its_maximum():
    x, targets = _table()
    _, scaled, _, scale, kernel = _scaled(x, targets)
    model = ntk.KernelRegression(KERNEL).fit(x, targets)

    def density(shift, variance):
        covariance = variance * (kernel + shift * np.eye(len(x)))
        return np.sum(multivariate_normal(np.zeros(len(x)), covariance).logpdf(scaled.T))

    shift = model.strength_ * len(x)
    variance = (model.noise_ / scale) ** 2 / shift
    np.testing.assert_allclose(variance[0], variance[1], rtol=1e-12)
    best = density(shift, variance[0])
    assert model.log_evidence_ == pytest.approx(best - len(x) * np.log(scale).sum(), abs=1e-7)
    grid = [density(shift * 10**a, variance[0] * 10**b) for a in np.linspace(-4, 4, 25) for b in np.linspace(-3, 3, 19)]
    assert max(grid) <= best + 1e-9
    # Where the slope is zero, and not on a plateau: a tenth away in either direction is lower.
    for a, b in ((1.1, 1.0), (1.0, 1.1)):
        up, down = density(shift * a, variance[0] * b), density(shift / a, variance[0] / b)
        assert max(up, down) < best - 1e-3
    for a, b in ((1.001, 1.0), (1.0, 1.001)):
        slope = density(shift * a, variance[0] * b) - density(shift / a, variance[0] / b)
        assert abs(slope) < 1e-6


def _refits(kernel, targets, weights, shift):
    """Targets minus predictions, each row left out of the algebra in turn; of one of weight w > 1, one copy."""
    left_out = np.empty_like(targets)
    for row in range(len(targets)):
        rest = weights.copy()
        rest[row] = max(rest[row] - 1, 0.0)
        keep = rest > 0
        matrix = kernel[np.ix_(keep, keep)] + shift * np.diag(1 / rest[keep])
        left_out[row] = targets[row] - kernel[row, keep] @ np.linalg.solve(matrix, targets[keep])
    return left_out


def test_left_out_residuals_are_those_of_refits():
    x, targets = _table()
    weights = np.random.default_rng(4).choice([0.0, 0.4, 1.0, 2.0, 3.5], len(x))
    model = ntk.KernelRegression(KERNEL, strength="loo").fit(x, targets, sample_weight=weights)
    present = weights > 0
    _, scaled, _, scale, kernel = _scaled(x[present], targets[present], weights[present])
    shift = model.strength_ * weights.sum()
    expected = _refits(kernel, scaled, weights[present], shift)
    np.testing.assert_allclose(model.loo_residuals_, expected * scale, rtol=1e-8, atol=1e-8)

    def squares(shift):
        return np.sum(weights[present, None] * _refits(kernel, scaled, weights[present], shift) ** 2)

    best = squares(shift)
    assert min(squares(shift * 10**a) for a in np.linspace(-5, 4, 28)) >= best * (1 - 1e-9)
    assert squares(1.1 * shift) > best * (1 + 1e-6)
    assert squares(0.9 * shift) > best * (1 + 1e-6)
    assert abs(squares(1.001 * shift) - squares(shift / 1.001)) < 1e-6 * (squares(1.1 * shift) - best)


@pytest.mark.parametrize("strength", ["evidence", "loo", 1e-3])
def test_weight_two_is_the_row_twice(strength):
    x, targets = _table()
    weights = np.random.default_rng(1).integers(0, 4, len(x))
    weighted = ntk.KernelRegression(KERNEL, strength=strength).fit(x, targets, sample_weight=weights)
    repeated = ntk.KernelRegression(KERNEL, strength=strength)
    repeated.fit(np.repeat(x, weights, axis=0), np.repeat(targets, weights, axis=0))
    for mine, theirs in zip(weighted.predict(x, True), repeated.predict(x, True), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8)
    for name in ("strength_", "noise_", "effective_parameters_", "log_evidence_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-8)
    copies = weights[weights > 0]
    np.testing.assert_allclose(np.repeat(weighted.loo_residuals_, copies, axis=0), repeated.loo_residuals_, atol=1e-7)


# Kernels of networks --------------------------------------------------------------------------------------------------


def test_kernel_of_infinite_width_is_the_arc_cosine():
    """One hidden layer of relu with biases: k = E[φφ] + 1 + E[φ'φ'] (x·x'/d + 1)."""
    x, targets = _table(columns=1)
    z = TableScaler().fit(x).transform(x)
    inner = z @ z.T / 3 + 1
    size = np.sqrt(np.outer(np.diag(inner), np.diag(inner)))
    angle = np.arccos(np.clip(inner / size, -1, 1))
    hidden = size / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
    kernel = hidden + 1 + (np.pi - angle) / (2 * np.pi) * inner
    scaled = (targets[:, 0] - targets.mean()) / targets.std()
    expected = kernel @ np.linalg.solve(kernel + 30 * 1e-2 * np.eye(30), scaled) * targets.std() + targets.mean()
    model = ntk.KernelRegression(strength=1e-2).fit(x, targets[:, 0])
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-7)


def test_kernel_of_a_finite_width_is_that_of_the_drawn_network():
    """f = v·φ(Vx/√d + b)/√h + c by hand: derivatives by c, v, b and V."""
    x, targets = _table(columns=1)
    model = ntk.KernelRegression(width=40, activation="tanh", strength=1e-2, random_state=5).fit(x, targets[:, 0])
    seed = int(check_random_state(5).randint(2**31 - 1))
    (inner, bias), (outer, _) = cx.MLP(3, (40,)).init(jax.random.key(seed))
    inner, bias, outer = (np.asarray(part) for part in (inner, bias, outer[0]))
    z, scaled = TableScaler().fit(x).transform(x), (targets[:, 0] - targets.mean()) / targets.std()
    hidden = np.tanh(z @ inner.T / np.sqrt(3) + bias)
    taps = outer * (1 - hidden**2) / np.sqrt(40)
    kernel = 1 + hidden @ hidden.T / 40 + taps @ taps.T * (1 + z @ z.T / 3)
    expected = kernel @ np.linalg.solve(kernel + 0.3 * np.eye(30), scaled) * targets.std() + targets.mean()
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-7)
    # The variance needs k(x, x) alone: σ²-free, at the training rows, s² (k − k(K + t)⁻¹k).
    variance = scaled @ np.linalg.solve(kernel + 0.3 * np.eye(30), scaled) / 30
    spread = np.diag(kernel - kernel @ np.linalg.solve(kernel + 0.3 * np.eye(30), kernel))
    found = model.predict(x, True, observation_noise=False)[1]
    np.testing.assert_allclose(found, np.sqrt(variance * spread) * targets.std(), rtol=1e-6)
    other = clone(model).set_params(random_state=6).fit(x, targets[:, 0])
    assert np.abs(other.predict(x) - model.predict(x)).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"kernel": "two_layer", "width": 7}, {"depth": 2, "activation": "erf"}])
def test_blocks_of_rows_are_no_part_of_the_answer(options, monkeypatch):
    x, targets = _table(70)
    whole = ntk.KernelRegression(**options, strength=1e-2).fit(x, targets)
    expected = whole.predict(x[:50], True)
    monkeypatch.setattr(network_kernel, "_LARGEST", 32)
    monkeypatch.setattr(sys.modules["concordax.ntk.regression"], "_ROWS", 33)
    for found in (whole.predict(x[:50], True), clone(whole).fit(x, targets).predict(x[:50], True)):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_precision_is_double_without_its_switch_and_pickles_agree():
    x, targets = _table()
    model = ntk.KernelRegression(width=20).fit(x, targets)
    with jax.enable_x64(False):
        single = ntk.KernelRegression(width=20).fit(x, targets)
        np.testing.assert_array_equal(single.predict(x, True), model.predict(x, True))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x, True), model.predict(x, True))


# Odd tables and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", ["evidence", "loo", 1e-3])
def test_a_constant_target_is_predicted(strength):
    x, _ = _table()
    model = ntk.KernelRegression(KERNEL, strength=strength).fit(x, np.full(len(x), 7.0))
    mean, std = model.predict(x, return_std=True)
    np.testing.assert_allclose(mean, 7.0, rtol=1e-14)
    assert np.all((std >= 0) & (std < 1e-12))
    assert np.isfinite([model.log_evidence_, model.noise_, model.strength_]).all()
    np.testing.assert_allclose(model.loo_residuals_, 0.0, atol=1e-12)
    # Nothing is learnt of the rows where there is nothing to learn.
    assert strength == 1e-3 or model.effective_parameters_ < 1e-2


def test_targets_without_noise_are_interpolated():
    x, _ = _table(40)
    y = np.sin(x[:, 0]) + x[:, 1]
    model = ntk.KernelRegression(KERNEL).fit(x, y)
    assert np.abs(model.predict(x) - y).max() < 1e-4
    assert model.noise_ < 1e-4


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({}, 1, "minimum of 2"),
        ({"kernel": "mpl"}, 30, "must be a str among"),
        ({"width": 0}, 30, "'width' parameter .* must be an int in the range"),
        ({"strength": 0.0}, 30, "'strength' parameter"),
        ({"strength": "gcv"}, 30, "'strength' parameter"),
        ({"kernel": "two_layer", "depth": 2}, 30, "has no depth to choose"),
        ({"kernel": KERNEL, "width": 9}, 30, "has no width to choose"),
        ({"kernel": KERNEL, "activation": "erf"}, 30, "has no activation to choose"),
        ({"kernel": lambda a, b: a @ b[:5].T}, 30, r"must give \[n1, n2\].*got shape \(30, 5\)"),
        ({"kernel": lambda a, b: (a @ b.T, a @ b.T)}, 30, "got tuple"),
        ({"kernel": lambda a, b: np.full((len(a), len(b)), np.nan)}, 30, "not finite"),
        ({"kernel": lambda a, b: a[:, :1] + 2 * b[:, 0]}, 30, "not symmetric"),
        ({"kernel": lambda a, b: -(a @ b.T)}, 30, "not positive semidefinite"),
    ],
)
def test_errors_say_what_to_do(options, rows, message):
    x, targets = _table()
    with pytest.raises(ValueError, match=message):
        ntk.KernelRegression(**options).fit(x[:rows], targets[:rows])


def test_data_are_checked():
    x, targets = _table()
    with pytest.raises(ValueError, match="contains NaN"):
        ntk.KernelRegression().fit(np.where(x > 1, np.nan, x), targets)
    with pytest.raises(ValueError, match="eight"):
        ntk.KernelRegression().fit(x, targets, sample_weight=np.zeros(len(x)))
    model = ntk.KernelRegression(KERNEL).fit(x, targets)
    with pytest.raises(ValueError, match="expecting 3 features"):
        model.predict(x[:, :2])
    with pytest.raises(NotFittedError):
        ntk.KernelRegression().predict(x)
