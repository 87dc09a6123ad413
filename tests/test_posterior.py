"""Error bars against dense NumPy, Bayesian linear regression in closed form, and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from concordax import laplace

SOLVERS = {"dual": cx.Dual(), "primal": cx.Primal()}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("loss", "regularizer"), [("squared", "pseudo-huber 0.3"), ("softmax", "l2")])
def test_covariance_equals_dense_numpy(loss, regularizer, solver):
    case, strength = helpers.make_case("tall", loss), 1e-2
    new = np.random.default_rng(7).normal(size=(4, 3))
    fitted = cx.posterior(
        case.model,
        helpers.LOSSES[loss],
        helpers.REGULARIZERS[regularizer],
        case.params,
        (jnp.asarray(case.inputs), jnp.asarray(case.targets)),
        strength=strength,
        solver=SOLVERS[solver],
        weights=jnp.asarray(case.weights),
    )
    outputs, covariance = fitted.predict(jnp.asarray(new))
    layers, scales = helpers.as_layers(case.params), helpers.scales_of(case.model)
    seen, jacobian = helpers.network(layers, case.inputs, scales, "tanh")
    predicted, rows = helpers.network(layers, new, scales, "tanh")
    share, examples = case.weights / case.weights.sum(), case.weights.sum()
    hessian = helpers.REFERENCE_LOSSES[loss].hessian(seen, case.targets)
    curvature = np.einsum("i,iap,iab,ibq->pq", share, jacobian, hessian, jacobian, optimize=True)
    prior = np.diag(helpers.REFERENCE_REGULARIZERS[regularizer].diagonal(helpers.flatten(case.params)))
    inverse = np.linalg.inv(curvature + strength * prior)
    gamma = np.trace(curvature @ inverse)
    variance = 1.0
    if loss == "squared":
        variance = (case.weights[:, None] * (seen - case.targets) ** 2).sum() / (3 * examples - gamma)
    expected = variance / examples * np.einsum("iap,pq,ibq->iab", rows, inverse, rows)
    np.testing.assert_allclose(outputs, predicted, rtol=1e-12)
    np.testing.assert_allclose(covariance, expected, rtol=1e-7, atol=1e-8 * np.abs(expected).max())
    assert float(fitted.effective_parameters) == pytest.approx(gamma, rel=1e-8)
    assert float(fitted.noise_variance) == pytest.approx(variance, rel=1e-8)
    determined = helpers.flatten(fitted.determination())
    np.testing.assert_allclose(determined, 1 - strength * np.diag(prior) * np.diag(inverse), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(covariance, np.swapaxes(covariance, 1, 2))
    eigenvalues = np.asarray(fitted.eigenvalues())
    assert np.all(np.diff(eigenvalues) <= 0)
    root = 1 / np.sqrt(np.diag(prior))
    np.testing.assert_allclose(
        eigenvalues[:5], np.linalg.eigvalsh(root[:, None] * curvature * root)[::-1][:5], rtol=1e-8
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_without_a_row_equals_dense_numpy(loss, solver):
    """One row less in the curvature, or what it counts if that is less, and one Newton step of the rest."""
    case, strength = helpers.make_case("tall", loss), 1e-2
    weights = np.resize([1.0, 0.4, 3.0, 0.0, 1.7], len(case.weights))
    fitted = cx.posterior(
        case.model,
        helpers.LOSSES[loss],
        cx.L2(),
        case.params,
        (jnp.asarray(case.inputs), jnp.asarray(case.targets)),
        strength=strength,
        solver=SOLVERS[solver],
        weights=jnp.asarray(weights),
    )
    outputs, covariance = fitted.left_out()
    layers, scales = helpers.as_layers(case.params), helpers.scales_of(case.model)
    seen, jacobian = helpers.network(layers, case.inputs, scales, "tanh")
    reference, examples = helpers.REFERENCE_LOSSES[loss], weights.sum()
    hessian, slopes = reference.hessian(seen, case.targets), reference.gradient(seen, case.targets)
    products = np.einsum("iap,iab,ibq->ipq", jacobian, hessian, jacobian, optimize=True)
    full = np.tensordot(weights, products, 1) / examples + strength * np.eye(jacobian.shape[2])
    gradient = np.einsum("i,iap,ia->p", weights / examples, jacobian, slopes)
    gradient += strength * helpers.flatten(case.params)
    # Softmax does not see a common shift of its outputs: any may be added.
    centre = np.eye(3) - (1 / 3 if loss == "softmax" else 0)
    for row in np.flatnonzero(weights):
        less, rows = min(weights[row], 1.0) / examples, jacobian[row]
        inverse = np.linalg.inv(full - less * products[row])
        shift = -rows @ inverse @ (gradient - less * rows.T @ slopes[row])
        np.testing.assert_allclose(centre @ outputs[row], centre @ (seen[row] + shift), rtol=1e-7, atol=1e-9)
        spread = float(fitted.noise_variance) / examples * centre @ rows @ inverse @ rows.T @ centre
        found = centre @ covariance[row] @ centre
        np.testing.assert_allclose(found, spread, rtol=1e-7, atol=1e-8 * np.abs(spread).max())


@pytest.mark.parametrize("solver", SOLVERS)
def test_bayesian_linear_regression(solver):
    """θ ~ N(0, σ²/(nτ) I) and y = Φθ + N(0, σ²) have mean and covariance in closed form."""
    rng = np.random.default_rng(0)
    n, p, strength = 25, 4, 0.02
    features, new = rng.normal(size=(n, p)), rng.normal(size=(5, p))
    targets = features @ rng.normal(size=p) + 0.3 * rng.normal(size=n)
    normal = features.T @ features + n * strength * np.eye(p)
    mean = np.linalg.solve(normal, features.T @ targets)
    fitted = cx.posterior(
        lambda params, x: (x @ params)[:, None],
        cx.SquaredError(),
        cx.L2(),
        jnp.asarray(mean),
        (jnp.asarray(features), jnp.asarray(targets)),
        strength=strength,
        solver=SOLVERS[solver],
    )
    outputs, covariance = fitted.predict(jnp.asarray(new))
    np.testing.assert_allclose(outputs[:, 0], new @ mean, rtol=1e-12)
    variance = float(fitted.noise_variance)
    expected = variance * np.einsum("ip,pq,iq->i", new, np.linalg.inv(normal), new)
    np.testing.assert_allclose(covariance[:, 0, 0], expected, rtol=1e-8)
    assert 0.04 < variance < 0.2


def _squared_posterior(case, strength):
    data = jnp.asarray(case.inputs), jnp.asarray(case.targets)
    return cx.posterior(case.model, cx.SquaredError(), cx.L2(), case.params, data, strength=strength)


def test_blocks_do_not_change_the_result(monkeypatch):
    case = helpers.make_case("wide", "squared")
    fitted = _squared_posterior(case, 1e-2)
    new = jnp.asarray(np.random.default_rng(7).normal(size=(11, 3)))
    whole = fitted.predict(new)
    np.testing.assert_allclose(whole[0], case.model(case.params, new), rtol=1e-12)
    for one, other in zip(whole, fitted.predict(new[::-1]), strict=True):
        np.testing.assert_allclose(other[::-1], one, rtol=1e-9, atol=1e-12)
    for rows in (1, 4, 10):
        monkeypatch.setattr(laplace, "_ROWS", rows)
        for one, other in zip(whole, fitted.predict(new), strict=True):
            assert other.shape == one.shape
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


def test_variance_is_small_at_the_data_and_never_negative():
    case = helpers.make_case("wide", "squared")
    fitted = _squared_posterior(case, 1e-10)
    seen = np.einsum("iaa->ia", fitted.predict(jnp.asarray(case.inputs))[1])
    far = np.einsum("iaa->ia", fitted.predict(jnp.asarray(10 * case.inputs))[1])
    assert np.all(seen >= 0)
    assert seen.max() < 1e-3 * far.min()


def test_binary_probabilities_are_close_to_the_integral():
    """E σ(o), o ~ N(m, v), by quadrature: the probit correction is within 0.02."""
    grid = np.linspace(-12, 12, 20001)
    normal = np.exp(-0.5 * grid**2)
    normal /= normal.sum()
    means, variances = np.meshgrid(np.linspace(-4, 4, 9), [0.01, 1.0, 4.0, 25.0])
    exact = (helpers.sigmoid(means.ravel()[:, None] + np.sqrt(variances.ravel()[:, None]) * grid) * normal).sum(axis=1)
    found = cx.class_probabilities(
        cx.BinaryCrossEntropy(), jnp.asarray(means.reshape(-1, 1)), jnp.asarray(variances.reshape(-1, 1, 1))
    )
    np.testing.assert_allclose(found[:, 1], exact, atol=0.02)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)
    # The correction is not idle: without it the probabilities are off by more than ten times that.
    assert np.abs(helpers.sigmoid(means.ravel()) - exact).max() > 0.2


def _covariances(rng, rows, classes):
    factors = rng.normal(size=(rows, classes, classes))
    return factors @ np.swapaxes(factors, 1, 2)


def test_softmax_does_not_see_a_common_shift():
    rng = np.random.default_rng(0)
    outputs, covariance = 2 * rng.normal(size=(6, 4)), _covariances(rng, 6, 4)
    loss = cx.SoftmaxCrossEntropy()
    base = np.asarray(cx.class_probabilities(loss, jnp.asarray(outputs), jnp.asarray(covariance)))
    # A common random shift of all logits adds one number to every entry of the covariance, and one to the outputs.
    moved = cx.class_probabilities(loss, jnp.asarray(outputs + 3.0), jnp.asarray(covariance + 50.0))
    np.testing.assert_allclose(moved, base, rtol=1e-10)
    np.testing.assert_allclose(base.sum(axis=1), 1, rtol=1e-13)
    plain = helpers.softmax(outputs)
    assert np.abs(base - plain).max() > 0.05
    zero = cx.class_probabilities(loss, jnp.asarray(outputs), jnp.zeros((6, 4, 4)))
    np.testing.assert_allclose(zero, plain, rtol=1e-12)


def test_softmax_probabilities_are_close_to_the_mean_over_samples():
    rng = np.random.default_rng(0)
    outputs, covariance = 2 * rng.normal(size=(6, 4)), 0.5 * _covariances(rng, 6, 4)
    samples = outputs[:, None] + np.einsum(
        "mab,msb->msa", np.linalg.cholesky(covariance), rng.normal(size=(6, 20000, 4))
    )
    exact = helpers.softmax(samples).mean(axis=1)
    found = np.asarray(cx.class_probabilities(cx.SoftmaxCrossEntropy(), jnp.asarray(outputs), jnp.asarray(covariance)))
    assert np.abs(found - exact).max() < 0.1
    assert np.abs(found - exact).sum() < 0.7 * np.abs(helpers.softmax(outputs) - exact).sum()


def test_probabilities_of_a_regression_are_refused():
    with pytest.raises(
        TypeError,
        match=r"`class_probabilities\(SquaredError\(\)\)`: needs BinaryCrossEntropy\(\) or SoftmaxCrossEntropy",
    ):
        cx.class_probabilities(cx.SquaredError(), jnp.zeros((2, 1)), jnp.zeros((2, 1, 1)))


def test_float32():
    case = helpers.make_case("wide", "squared")
    params = jax.tree.map(lambda x: x.astype(jnp.float32), case.params)
    fitted = cx.posterior(
        case.model,
        cx.SquaredError(),
        cx.L2(),
        params,
        (jnp.asarray(case.inputs, jnp.float32), jnp.asarray(case.targets, jnp.float32)),
        strength=1e-2,
    )
    outputs, covariance = fitted.predict(jnp.asarray(case.inputs, jnp.float32))
    assert outputs.dtype == covariance.dtype == jnp.float32


def test_what_rounding_makes_negative_is_zero():
    # τ far below the rounding of k(x, x): the dual side's difference is noise, of either sign.
    case = helpers.make_case("wide", "squared")
    data = jnp.asarray(case.inputs), jnp.asarray(case.targets)
    fitted = cx.posterior(case.model, cx.SquaredError(), cx.L2(), case.params, data, strength=1e-18, solver=cx.Dual())
    variances = np.einsum("iaa->ia", fitted.predict(data[0])[1])
    assert np.all(variances >= 0)
    assert np.any(variances == 0)
