"""Losses against independent formulas, finite differences, and at logits where naive ones overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import concordax as cx
import helpers
import loss_cases
from loss_cases import LOSSES, REFERENCE_LOSSES

ROWS, OUTPUTS = 7, 3
DTYPES = {"float32": 3e-6, "float64": 1e-14}
moderate = arrays(np.float64, (ROWS, OUTPUTS), elements=st.floats(-12, 12, width=32))
PARTS = {
    name: jax.jit(
        lambda o, y, loss=loss: (
            loss.value(o, y),
            loss.gradient(o, y),
            loss.whitened_residual(o, y),
            # S column by column: Sᵀ x for x the basis gives the rows of Sᵀ.
            jnp.swapaxes(
                loss.hessian_factor(o, y).transpose_mv(
                    jnp.broadcast_to(jnp.eye(o.shape[1], dtype=o.dtype), (*o.shape, o.shape[1]))
                ),
                1,
                2,
            ),
        )
    )
    for name, loss in LOSSES.items()
}


def _draw(name, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(ROWS, OUTPUTS)), helpers.draw_targets(name, rng, ROWS, OUTPUTS)


@pytest.mark.parametrize("name", LOSSES)
def test_parts_equal_the_reference(name):
    o, y = _draw(name)
    value, gradient, residual, factor = (np.asarray(part) for part in PARTS[name](o, y))
    reference = REFERENCE_LOSSES[name]
    np.testing.assert_allclose(value, reference.value(o, y), rtol=1e-13)
    np.testing.assert_allclose(gradient, reference.gradient(o, y), atol=1e-14)
    np.testing.assert_allclose(factor @ np.swapaxes(factor, 1, 2), reference.hessian(o, y), atol=1e-14)
    np.testing.assert_allclose(np.einsum("iak,ik->ia", factor, residual), gradient, atol=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_reference_equals_finite_differences(name):
    # The reference's own gradient and Hessian, by fourth-order differences of its value.
    o, y = _draw(name)
    reference = REFERENCE_LOSSES[name]

    def difference(f, a):
        h = 1e-3 * np.eye(OUTPUTS)[a]
        return (8 * (f(o + h) - f(o - h)) - (f(o + 2 * h) - f(o - 2 * h))) / 12e-3

    for a in range(OUTPUTS):
        np.testing.assert_allclose(
            reference.gradient(o, y)[:, a], difference(lambda x: reference.value(x, y), a), atol=1e-9
        )
        np.testing.assert_allclose(
            reference.hessian(o, y)[:, a], difference(lambda x: reference.gradient(x, y), a), atol=1e-9
        )


@pytest.mark.parametrize("name", LOSSES)
@given(o=moderate, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_factor_and_residual_laws(name, o, seed):
    """S Sᵀ = ∂²ℓ, S r = ∂ℓ, and r has no part in ker S."""
    y = _draw(name, seed)[1]
    _, gradient, residual, factor = (np.asarray(part) for part in PARTS[name](o, y))
    hessian = REFERENCE_LOSSES[name].hessian(o, y)
    np.testing.assert_allclose(factor @ np.swapaxes(factor, 1, 2), hessian, rtol=1e-13, atol=1e-13)
    scale = np.abs(residual).max(axis=1) * np.maximum(1, np.abs(factor).max(axis=(1, 2)))
    error = np.abs(np.einsum("iak,ik->ia", factor, residual) - gradient).max(axis=1)
    # What is derived has the digits of an eigendecomposition.
    assert np.all(error <= (1e-12 if name == "custom" else 1e-14) * (1 + scale))
    if name == "softmax":
        assert np.all(np.abs((np.sqrt(helpers.softmax(o)) * residual).sum(axis=1)) <= 1e-14 * (1 + scale))


SOLVED = {
    name: jax.jit(lambda o, y, loss=loss: loss.hessian_factor(o, y).transpose_solve(loss.whitened_residual(o, y)))
    for name, loss in LOSSES.items()
}


@pytest.mark.parametrize("name", LOSSES)
def test_transpose_solve_inverts_the_factor(name):
    """Sᵀ x = r: what moves outputs where a row is left out; r is in the range of Sᵀ."""
    o, y = _draw(name)
    _, _, residual, factor = (np.asarray(part) for part in PARTS[name](o, y))
    moved = np.einsum("iak,ia->ik", factor, np.asarray(SOLVED[name](o, y)))
    np.testing.assert_allclose(moved, residual, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_soft_targets(name):
    o, _ = _draw(name)
    y = helpers.softmax(_draw(name, seed=3)[0])
    if name == "per output":
        y[:, 1:] /= y[:, 1:].sum(axis=1, keepdims=True)
    value, gradient, residual, factor = (np.asarray(part) for part in PARTS[name](o, y))
    np.testing.assert_allclose(value, REFERENCE_LOSSES[name].value(o, y), rtol=1e-13)
    np.testing.assert_allclose(np.einsum("iak,ik->ia", factor, residual), gradient, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e3, 1e5])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_outputs(name, size, dtype):
    """At ±1e3 and ±1e5 every part is finite, value and gradient are exact, and S r does not lose a row."""
    rng = np.random.default_rng(1)
    o = size * np.array([[1, -1, 0.5], [-1, -1, 0], [1, 1, -1]]).repeat(3, axis=0)
    if name == "poisson":
        # A rate of e^1000 is no number: `test_rates_out_of_range` looks at that side.
        o = -np.abs(o)
    y = helpers.draw_targets(name, rng, 9, OUTPUTS)
    parts = PARTS[name](jnp.asarray(o, dtype), jnp.asarray(y, dtype))
    assert all(part.dtype == dtype for part in parts)
    value, gradient, residual, factor = (np.asarray(part, float) for part in parts)
    assert all(np.isfinite(part).all() for part in (value, gradient, residual, factor))
    np.testing.assert_allclose(value, REFERENCE_LOSSES[name].value(o, y), rtol=DTYPES[dtype])
    np.testing.assert_allclose(gradient, REFERENCE_LOSSES[name].gradient(o, y), rtol=DTYPES[dtype], atol=DTYPES[dtype])
    hessian = REFERENCE_LOSSES[name].hessian(o, y)
    np.testing.assert_allclose(factor @ np.swapaxes(factor, 1, 2), hessian, atol=DTYPES[dtype])
    # Squares of S and r are summed in a solve: they must not overflow either.
    assert np.isfinite(np.asarray(parts[2] ** 2)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rates_out_of_range(dtype):
    """Where e^o leaves the range the deviance rises on, finite and convex, and S r stays its gradient."""
    limit = {"float32": 43.0, "float64": 354.0}[dtype]
    o = np.array([0.5, 0.99, 1.02, 3.0, 2e3])[:, None] * limit * np.ones(OUTPUTS)
    y = np.array([0.0, 2.0, 1e4]) * np.ones_like(o)
    value, gradient, residual, factor = (
        np.asarray(part) for part in PARTS["poisson"](jnp.asarray(o, dtype), jnp.asarray(y, dtype))
    )
    assert all(np.isfinite(part).all() for part in (value, gradient, residual**2, factor**2))
    assert np.all(np.diff(value) > 0)
    assert np.all(np.diff(gradient, axis=0) >= 0)
    np.testing.assert_allclose(np.einsum("iak,ik->ia", factor, residual), gradient, rtol=1e-5)
    # Straight from there on: the slope is the gradient's.
    slope = (float(value[4]) - float(value[3])) / (o[4, 0] - o[3, 0])
    np.testing.assert_allclose(slope, gradient[4].sum(dtype=float), rtol=1e-5)


def test_deviance_keeps_its_digits_near_its_minimum():
    y = np.full((ROWS, OUTPUTS), 3e5)
    rounding = 30 * np.finfo(float).eps
    for d in (0.0, 1e-9, -1e-5, 0.3):
        o = np.log(y) + d
        wide = np.asarray(o, np.longdouble) - np.log(np.asarray(y, np.longdouble))
        expected = (y * (np.expm1(wide) - wide)).sum(axis=1)
        value = np.asarray(PARTS["poisson"](o, y)[0])
        assert np.all(value >= 0)
        # What the rounding of log y allows; the sum of the terms as they stand would err by 3e5 · 12 eps.
        assert np.all(np.abs(value - expected) <= 3 * 3e5 * rounding * (abs(d) + rounding))


def test_smoothed_pinball_lies_below_the_pinball():
    rng = np.random.default_rng(4)
    o, y = 2 * rng.normal(size=(2, ROWS, OUTPUTS))
    z = y - o
    pinball = np.maximum(loss_cases.QUANTILE * z, (loss_cases.QUANTILE - 1) * z).sum(axis=1)
    gap = pinball - np.asarray(PARTS["quantile"](o, y)[0])
    assert np.all((gap > 0) & (gap < OUTPUTS * loss_cases.WIDTH / 2))
    exact = np.asarray(cx.QuantileLoss(loss_cases.QUANTILE, 1e-9).value(jnp.asarray(o), jnp.asarray(y)))
    np.testing.assert_allclose(exact, pinball, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax", "binary"])
def test_confidently_wrong_rows_keep_their_gradient(name, dtype):
    """S r stays P − y while √P is within the range of the dtype, down to P = 1e-12."""
    o = np.array([[27.0, 0.0], [-27.0, 0.0]])
    y = np.array([[0.0, 1.0], [1.0, 0.0]])
    _, gradient, residual, factor = (
        np.asarray(part, float) for part in PARTS[name](jnp.asarray(o, dtype), jnp.asarray(y, dtype))
    )
    assert np.abs(gradient).max() > 0.99
    np.testing.assert_allclose(np.einsum("iak,ik->ia", factor, residual), gradient, atol=20 * DTYPES[dtype])


def test_encode():
    softmax, binary, squared = cx.SoftmaxCrossEntropy(), cx.BinaryCrossEntropy(), cx.SquaredError()
    np.testing.assert_array_equal(softmax.encode(jnp.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(softmax.encode(jnp.array([[0.2, 0.8]]), 2), [[0.2, 0.8]])
    np.testing.assert_array_equal(binary.encode(jnp.array([True, False]), 1), [[1], [0]])
    np.testing.assert_array_equal(squared.encode(jnp.array([1.0, 2.0]), 1), [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("loss", "targets", "outputs", "message"),
    [
        (cx.SquaredError(), jnp.zeros(4), 2, r"`SquaredError` needs targets of shape \[n, 2\].*got \(4,\)"),
        (
            cx.BinaryCrossEntropy(),
            jnp.zeros((4, 3)),
            1,
            r"`BinaryCrossEntropy` needs targets of shape \[n, 1\].*got \(4, 3\)",
        ),
        (cx.SoftmaxCrossEntropy(), jnp.zeros(4), 3, r"integer labels \[n\] or probabilities \[n, 3\].*float"),
        (cx.PoissonDeviance(), jnp.zeros(4), 2, r"`PoissonDeviance` needs targets of shape \[n, 2\].*got \(4,\)"),
        (cx.QuantileLoss(0.5, 1.0), jnp.zeros(4), 2, r"`QuantileLoss` needs targets of shape \[n, 2\]"),
        (cx.SoftmaxCrossEntropy(), jnp.zeros((4, 2)), 3, r"integer labels \[n\] or probabilities \[n, 3\].*\(4, 2\)"),
    ],
)
def test_encode_errors(loss, targets, outputs, message):
    with pytest.raises(ValueError, match=message):
        loss.encode(targets, outputs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cx.QuantileLoss(1.0, 0.1), r"`QuantileLoss\(quantile=1.0\)`: must lie between 0 and 1"),
        (lambda: cx.QuantileLoss(0.5, 0.0), r"`QuantileLoss\(smoothing=0.0\)`: must be a positive finite number"),
        (lambda: cx.QuantileLoss(0.5, float("nan")), r"`QuantileLoss\(smoothing=nan\)`"),
    ],
)
def test_settings_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (cx.PoissonDeviance(), [[0.0], [-1.0]], r"`PoissonDeviance` needs targets from 0 up.*least is -1"),
        (cx.BinaryCrossEntropy(), [[0.0], [2.0]], r"`BinaryCrossEntropy` needs targets in \[0, 1\]; got 0 to 2"),
        (cx.SoftmaxCrossEntropy(), [0, 1], r"labels 0..0 for a model with 1 outputs; the largest label is 1"),
        (cx.SoftmaxCrossEntropy(), [[0.5], [1.0]], r"probabilities that sum to 1.*row 0 sums to 0.5"),
        (cx.SoftmaxCrossEntropy(), [-1, 0], r"labels or probabilities from 0 up; got -1"),
    ],
)
def test_targets_without_meaning_stop_a_run_before_it_starts(loss, targets, message):
    model = cx.MLP(inputs=1, widths=(2,))
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        cx.train(model, loss, cx.L2(), params, (jnp.zeros((2, 1)), np.array(targets)), strength=1.0)
