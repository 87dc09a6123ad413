"""One full step on a model linear in its parameters is kernel ridge regression with the empirical tangent kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers

ROWS, NEW, FEATURES = 15, 6, 40


def _features(x):
    """Random Fourier features, fixed: 2 inputs to FEATURES numbers."""
    rng = np.random.default_rng(0)
    frequencies, phases = rng.normal(size=(2, FEATURES)), rng.uniform(0, 2 * np.pi, FEATURES)
    return np.cos(np.asarray(x) @ frequencies + phases)


@pytest.mark.parametrize("solver", [cx.Dual(), cx.Primal()], ids=["dual", "primal"])
@pytest.mark.parametrize("strength", [1e-6, 1e-2])
def test_one_step_is_kernel_ridge_regression(strength, solver):
    """f(x) = k(x, X)(k(X, X) + n τ I)⁻¹ y from θ = 0, where the gradient of g is zero and H = I."""
    rng = np.random.default_rng(1)
    train, new = rng.normal(size=(ROWS, 2)), rng.normal(size=(NEW, 2))
    targets = rng.normal(size=(ROWS, 2))
    features, columns = _features(train), targets.shape[1]
    model = lambda params, x: x @ params
    start = jnp.zeros((FEATURES, columns))
    optimizer = cx.ggn_score(
        model, cx.SquaredError(), cx.L2(), strength=strength, step=cx.FixedStep(1.0), solver=solver
    )
    update = jax.jit(lambda p, x, y: optimizer.update(None, optimizer.init(p), p, inputs=x, targets=y)[0])
    params = optax.apply_updates(start, update(start, jnp.asarray(features), jnp.asarray(targets)))
    found = model(params, jnp.asarray(_features(new)))
    # k is the tangent kernel, the inner product of features; both columns share it. In long double, for in float64 the
    # reference itself would lose the digits to be compared (a condition of 1e7).
    wide = np.asarray(features, np.longdouble)
    ridge = wide @ wide.T + ROWS * np.longdouble(strength) * np.eye(ROWS)
    dual = np.stack([helpers.least_squares(ridge, column) for column in targets.T.astype(np.longdouble)], axis=1)
    expected = (_features(new) @ wide.T @ dual).astype(float)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.1


def test_one_step_from_anywhere_with_unit_ridge_on_the_change():
    """With damping for strength, δ regularizes the change: f + k (k + n λ I)⁻¹ (y − f), for a curved network too."""
    model = cx.MLP(inputs=2, widths=(30,))
    params = model.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    inputs, targets, new = (jnp.asarray(rng.normal(size=s)) for s in ((ROWS, 2), (ROWS, 1), (NEW, 2)))
    tiny, damping = 1e-14, 1e-3
    delta = jax.jit(
        lambda p: (
            cx.direction(
                model, cx.SquaredError(), cx.L2(), p, inputs, targets, strength=tiny, damping=damping, solver=cx.Dual()
            ).direction
        )
    )(params)
    linear = lambda x: jax.jit(lambda p, d: jax.jvp(lambda q: model(q, x), (p,), (d,)))(params, delta)
    outputs, change = linear(new)
    flat, unravel = ravel_pytree(params)
    jacobian = jax.jit(lambda x: jax.jacrev(lambda v: model(unravel(v), x)[:, 0])(flat))
    near, far = np.asarray(jacobian(inputs)), np.asarray(jacobian(new))
    residual = np.asarray(targets - model(params, inputs))
    expected = far @ near.T @ np.linalg.solve(near @ near.T + ROWS * damping * np.eye(ROWS), residual)
    np.testing.assert_allclose(change, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(outputs, model(params, new), rtol=1e-13)
