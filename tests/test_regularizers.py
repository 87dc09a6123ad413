"""Derivatives of the regularizers, and their (M, ν): each holds everywhere tried and is reached to 1 %."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import concordax as cx
import helpers
from helpers import REFERENCE_REGULARIZERS, REGULARIZERS

SMOOTHINGS = (1e-4, 0.05, 1.0, np.sqrt(500.0), 1e4)
# t = x/μ over 24 decades on both sides, with a fine grid where the ratios peak.
T = np.concatenate([-np.logspace(-8, 16, 4001), np.linspace(-8, 8, 16001), np.logspace(-8, 16, 4001)])
POINTS = np.array([-3.0, -0.7, -1e-3, 0.0, 1e-6, 0.4, 2.0, 11.0])


def _second_and_third(smoothing, x):
    """h'' and h''' of μ(√(1+(x/μ)²) − 1), differentiated by hand."""
    t = x / smoothing
    return (1 + t**2) ** -1.5 / smoothing, -3 * t * (1 + t**2) ** -2.5 / smoothing**2


@pytest.mark.parametrize("name", REGULARIZERS)
def test_derivatives(name):
    regularizer, reference = REGULARIZERS[name], REFERENCE_REGULARIZERS[name]
    x = jnp.asarray(POINTS)
    np.testing.assert_allclose(regularizer.value(x), float(reference.value(POINTS)), rtol=1e-14)
    np.testing.assert_allclose(regularizer.gradient(x), reference.gradient(POINTS), rtol=1e-14)
    metric = regularizer.metric(x)
    np.testing.assert_allclose(metric.inverse_diagonal(len(POINTS)), 1 / reference.hessian(POINTS), rtol=1e-13)
    for order, function in ((0, regularizer.value), (1, regularizer.gradient)):
        h = 1e-4
        for i in range(len(POINTS)):
            e = h * np.eye(len(POINTS))[i]
            slope = (np.asarray(function(x + e)) - np.asarray(function(x - e))) / (2 * h)
            if order == 0:
                np.testing.assert_allclose(slope, reference.gradient(POINTS)[i], atol=1e-6)
            else:
                np.testing.assert_allclose(slope[i], reference.hessian(POINTS)[i], atol=1e-6)
                assert np.abs(np.delete(slope, i)).max() == 0


@pytest.mark.parametrize("name", REGULARIZERS)
def test_metric_is_the_hessian(name):
    x = jnp.asarray(POINTS)
    hessian = np.asarray(jax.hessian(REGULARIZERS[name].value)(x))
    metric = REGULARIZERS[name].metric(x)
    v = np.random.default_rng(0).normal(size=(3, len(POINTS)))
    np.testing.assert_allclose(metric.solve(jnp.asarray(v)) @ hessian, v, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(metric.squared_norm(jnp.asarray(v[0])), v[0] @ hessian @ v[0], rtol=1e-10)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_small_and_large_arguments_keep_their_digits(smoothing):
    small, large = np.array([1e-9 * smoothing]), np.array([1e9 * smoothing])
    huber = cx.PseudoHuber(smoothing)
    np.testing.assert_allclose(huber.value(jnp.asarray(small)), small[0] ** 2 / (2 * smoothing), rtol=1e-12)
    np.testing.assert_allclose(huber.value(jnp.asarray(large)), large[0] - smoothing, rtol=1e-12)
    assert np.isfinite(huber.metric(jnp.asarray(large)).inverse_diagonal(1)).all()


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_constants_hold_and_are_tight(smoothing):
    second, third = _second_and_third(smoothing, T * smoothing)
    constants = cx.PseudoHuber(smoothing).constants()
    assert [c.order for c in constants] == [2.0, 2.6, 8 / 3]
    for constant, order in constants:
        ratio = np.abs(third) / second ** (order / 2)
        assert ratio.max() <= constant * (1 + 1e-9)
        assert ratio.max() >= 0.99 * constant


def test_no_constant_above_eight_thirds():
    second, third = _second_and_third(1.0, np.logspace(0, 20, 50))
    ratio = np.abs(third) / second ** (2.7 / 2)
    assert ratio[-1] > 10 * ratio[0]


def test_the_published_pair_does_not_hold():
    """(2, 2.6) is what the published code takes; the supremum at 2.6 is 2.5372, at t = √10."""
    second, third = _second_and_third(1.0, T)
    ratio = np.abs(third) / second**1.3
    assert ratio.max() == pytest.approx(2.5372, abs=1e-4)
    assert abs(T[ratio.argmax()]) == pytest.approx(np.sqrt(10), abs=1e-2)
    for smoothing in SMOOTHINGS:
        published = cx.PseudoHuber(smoothing).published_constants()
        assert published.order == 2.6
        assert published.constant == pytest.approx(2.0 * smoothing**-0.7, rel=1e-12)
        second, third = _second_and_third(smoothing, np.sqrt(10) * smoothing)
        assert abs(third) > published.constant * second**1.3


@given(
    smoothing=st.floats(1e-3, 1e3),
    size=st.integers(1, 40),
    spread=st.floats(-4, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_mixed_norm_inequality(smoothing, size, spread, seed):
    """|D³g[v]u·u| ≤ M ‖u‖²_x ‖v‖_x^{ν−2} ‖v‖^{3−ν} along any directions, free of the dimension."""
    rng = np.random.default_rng(seed)
    x = smoothing * np.exp(spread * rng.normal(size=size)) * rng.choice([-1, 1], size)
    u, v = (np.exp(2 * rng.normal(size=size)) * rng.choice([-1, 1], size) for _ in range(2))
    second, third = _second_and_third(smoothing, x)
    left = abs((third * u**2 * v).sum())
    for constant, order in cx.PseudoHuber(smoothing).constants():
        right = (
            constant
            * (second * u**2).sum()
            * (second * v**2).sum() ** (order / 2 - 1)
            * (v**2).sum() ** (1.5 - order / 2)
        )
        assert left <= right * (1 + 1e-9)


@given(smoothing=st.floats(1e-3, 1e3), weight=st.floats(1e-6, 1e6), t=st.floats(-1e4, 1e4))
@settings(max_examples=200, deadline=None)
def test_scaled_constants_hold_for_the_scaled_function(smoothing, weight, t):
    second, third = _second_and_third(smoothing, t * smoothing)
    for constants in cx.PseudoHuber(smoothing).constants():
        scaled = constants.scaled(weight)
        assert abs(weight * third) <= scaled.constant * (weight * second) ** (scaled.order / 2) * (1 + 1e-9)


def test_calculus():
    base = cx.SelfConcordance(3.0, 2.6)
    assert base.smoothed(4.0).constant == pytest.approx(3.0 * 4.0**-0.7)
    assert base.scaled(1e-4).constant == pytest.approx(3.0 * 1e-4**-0.3)
    assert cx.SelfConcordance(1.5, 2.0).scaled(1e-4).constant == 1.5
    assert base.in_dimension(100) == pytest.approx(3.0 * 100**0.2)
    assert cx.PseudoHuber(1.0).constants()[1].constant == pytest.approx(2.5372, abs=1e-4)


def test_l2_has_no_third_derivative():
    third = jax.jacfwd(jax.hessian(cx.L2().value))(jnp.asarray(POINTS[:3]))
    assert np.abs(third).max() == 0
    assert {c.constant for c in cx.L2().constants()} == {0.0}
    assert cx.L2().published_constants().constant == 0.0


@pytest.mark.parametrize("smoothing", [0.0, -1.0, float("nan"), float("inf")])
def test_smoothing_must_be_positive(smoothing):
    with pytest.raises(ValueError, match=rf"`PseudoHuber\(smoothing={smoothing}\)`: the smoothing must be a positive"):
        cx.PseudoHuber(smoothing)


def test_value_is_convex_in_many_dimensions():
    # A Hessian assembled from the library's gradient is diagonal and positive: what the dual solve relies on.
    x = jnp.asarray(helpers.flatten(helpers.make_case("wide", "squared").params))
    hessian = np.asarray(jax.jacfwd(cx.PseudoHuber(0.3).gradient)(x))
    assert np.abs(hessian - np.diag(np.diag(hessian))).max() == 0
    assert np.diag(hessian).min() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pseudo_huber_where_the_square_overflows(dtype):
    regularizer = cx.PseudoHuber(0.5)
    largest = float(jnp.finfo(dtype).max)
    x = jnp.asarray([1e-3 * largest, -1e-3 * largest, 3.0], dtype)
    np.testing.assert_allclose(regularizer.gradient(x)[:2], [1.0, -1.0], rtol=1e-6)
    assert np.isfinite(float(regularizer.value(x)))
    assert float(regularizer.value(x)) > float(regularizer.value(x[2:]))
