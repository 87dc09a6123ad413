"""Bounds of self-concordance along a direction, against integrals, and damped steps on functions of one variable."""

import jax.numpy as jnp
import numpy as np
import pytest

from concordax.self_concordance import SelfConcordance
from concordax.steps.growth import damped_above_two, damped_at_two, distance, growth_above_two, growth_at_two


def _integral(function, end, count=200_001):
    s = np.linspace(0, end, count)
    return np.trapezoid(function(s), s)


@pytest.mark.parametrize("kappa", [1e-9, 1e-3, 1.0, 30.0])
def test_growth_at_two_is_the_integral_of_the_exponential(kappa):
    for alpha in (0.01, 0.3, 1.0):
        expected = _integral(lambda s: np.exp(kappa * s), alpha)
        assert float(growth_at_two(jnp.asarray(kappa), jnp.asarray(alpha))) == pytest.approx(expected, rel=1e-7)
    damped = damped_at_two(jnp.asarray(kappa))
    assert float(growth_at_two(jnp.asarray(kappa), damped)) == pytest.approx(1, rel=1e-14)
    assert float(damped) == pytest.approx(np.log1p(kappa) / kappa, rel=1e-14)


@pytest.mark.parametrize("order", [2.1, 2.6, 8 / 3, 3.0])
@pytest.mark.parametrize("d", [1e-9, 0.1, 1.0, 30.0])
def test_growth_above_two_is_the_integral_of_its_bound(d, order):
    damped = damped_above_two(jnp.asarray(d), order)
    for share in (0.5, 1.0):
        expected = _integral(lambda s: (1 - s * d) ** (-2 / (order - 2)), share * float(damped))
        assert float(growth_above_two(jnp.asarray(d), order, share * damped)) == pytest.approx(expected, rel=1e-6)
    assert float(growth_above_two(jnp.asarray(d), order, damped)) == pytest.approx(1, rel=1e-6)
    power = (4 - order) / (order - 2)
    assert float(damped) == pytest.approx((1 - (1 + d * power) ** (-1 / power)) / d, rel=1e-6)
    assert float(growth_above_two(jnp.asarray(d), order, jnp.asarray(1.001 / d))) == np.inf


def test_damped_step_at_three_is_newtons():
    """At ν = 3 it is 1/(1 + Mλ/2), λ² = δᵀHδ: that of standard self-concordance for M = 2."""
    d = distance(SelfConcordance(2.0, 3.0), jnp.asarray(0.7), jnp.asarray(123.0))
    assert float(d) == pytest.approx(0.7)
    assert float(damped_above_two(d, 3.0)) == pytest.approx(1 / 1.7, rel=1e-14)


def test_nothing_to_damp_is_the_full_step():
    zero = jnp.zeros(())
    assert float(damped_at_two(zero)) == 1
    assert float(damped_above_two(zero, 2.6)) == 1
    for alpha in (0.25, 1.0):
        assert float(growth_at_two(zero, jnp.asarray(alpha))) == alpha
        assert float(growth_above_two(zero, 2.6, jnp.asarray(alpha))) == alpha


def _pseudo_huber(x):
    root = np.sqrt(1 + x**2)
    return root - 1, x / root, root**-3.0


def _logarithm(x):
    return -np.log(x), -1 / x, 1 / x**2


def _exponential(x):
    return np.exp(-x), -np.exp(-x), np.exp(-x)


# φ with (value, slope, curvature), constants that hold for it, and where to start.
FUNCTIONS = [
    (_pseudo_huber, SelfConcordance(1.5, 2.0), (-8, 8)),
    (_pseudo_huber, SelfConcordance(3 * np.sqrt(10) * 11**-0.55, 2.6), (-8, 8)),
    (_pseudo_huber, SelfConcordance(3.0, 8 / 3), (-8, 8)),
    (_logarithm, SelfConcordance(2.0, 3.0), (0.05, 8)),
    (_exponential, SelfConcordance(1.0, 2.0), (-4, 4)),
]


@pytest.mark.parametrize(("function", "constants", "interval"), FUNCTIONS)
def test_damped_newton_never_raises_a_function_of_one_variable(function, constants, interval):
    """φ(x) + cx from 300 points and slopes c: F falls by αλ²/2 at least, as the docstring promises, and all the way."""
    rng = np.random.default_rng(0)
    longest = 0.0
    for _ in range(300):
        x, slope = rng.uniform(*interval), rng.normal() * 10.0 ** rng.uniform(-3, 1)
        _, gradient, curvature = function(x)
        gradient = gradient + slope
        delta = -gradient / curvature
        if constants.order == 2:
            alpha = float(damped_at_two(jnp.asarray(constants.constant * abs(delta))))
        else:
            norms = jnp.asarray(np.sqrt(curvature) * abs(delta)), jnp.asarray(abs(delta))
            alpha = float(damped_above_two(distance(constants, *norms), constants.order))
        assert 0 < alpha <= 1
        points = x + alpha * delta * np.linspace(0, 1, 9)
        path = function(points)[0] + slope * points
        assert np.all(np.diff(path) <= 1e-12 * np.abs(path).max())
        promised = 0.5 * alpha * gradient**2 / curvature
        assert path[0] - path[-1] >= promised - 1e-12 * np.abs(path).max()
        longest = max(longest, alpha)
    assert longest > 0.8
