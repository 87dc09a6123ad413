"""What the authors' implementations compute, written anew from their formulas, beside what they should.

The versions and files meant are named in `docs/published.md`, a section each.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import concordax as cx

MU = 0.5


def _slope(function, x, step=1e-6):
    """The gradient of a scalar function by central differences."""
    moves = step * np.eye(len(x))
    return np.array([(function(x + move) - function(x - move)) / (2 * step) for move in moves])


def phi(x):
    return np.sqrt(MU**2 + x**2) - MU


def phi_1(x):
    return x / np.sqrt(MU**2 + x**2)


def phi_2(x):
    return MU**2 / (MU**2 + x**2) ** 1.5


@pytest.mark.parametrize("strength", [1e-4, 1.0])
def test_the_two_branches_solve_different_systems(strength):
    rng = np.random.default_rng(0)
    rows, size = 4, 9
    jacobian, e, g = rng.normal(size=(rows, size)), rng.normal(size=rows), rng.normal(size=size)
    q, h = np.diag(rng.uniform(0.5, 2, rows)), rng.uniform(0.5, 2, size)
    gradient = jacobian.T @ e + strength * g
    # The branch for fewer rows than parameters: unit damping in place of the strength.
    kernel = q @ jacobian / h @ jacobian.T
    b = np.linalg.solve(np.eye(rows) + kernel, e - strength * q @ jacobian @ (g / h))
    dual = -(jacobian.T @ b + strength * g) / h
    np.testing.assert_allclose(dual, -np.linalg.solve(jacobian.T @ q @ jacobian + np.diag(h), gradient))
    primal = -np.linalg.solve(jacobian.T @ q @ jacobian + strength * np.diag(h), gradient)
    difference = np.linalg.norm(primal - dual) / np.linalg.norm(primal)
    assert difference < 1e-12 if strength == 1 else difference > 0.5


def test_the_published_pair_is_no_bound():
    found = cx.tightest(lambda t: jnp.sqrt(1 + t**2) - 1, 2.6)
    assert found.constant == pytest.approx(2.5372, abs=1e-4)
    assert abs(found.at) == pytest.approx(np.sqrt(10), abs=1e-3)
    assert found.constant > 2


def test_a_separable_sum_needs_no_factor_for_its_dimension():
    size, order = 10_500, 2.6
    part = cx.PseudoHuber(1.0).constants()[1]
    assert part.order == order
    assert cx.SelfConcordance.total([part] * size) == part
    # At its worst point, t = √10, along one coordinate M is reached; along all of them the bound is far from it.
    t = np.full(size, np.sqrt(10))
    second, third = (1 + t**2) ** -1.5, 3 * t * (1 + t**2) ** -2.5
    ratios = []
    for v in (np.eye(1, size)[0], np.ones(size)):
        left = (third * v**3).sum()
        norm, length = (second * v**2).sum(), (v**2).sum()
        ratios.append(left / (norm * norm ** (order / 2 - 1) * length ** ((3 - order) / 2)))
    assert ratios[0] == pytest.approx(part.constant)
    assert ratios[1] == pytest.approx(part.constant * size**-0.5)
    # What the factor costs: steps 6.4 times shorter where M η is large, at the published M.
    published = cx.SelfConcordance(2.0, order)
    eta = 1e3
    with_factor, without = (1 / (1 + m * eta) for m in (published.in_dimension(size), published.constant))
    assert size ** ((3 - order) / 2) == pytest.approx(6.3714, abs=1e-4)
    assert without / with_factor == pytest.approx(6.37, abs=0.01)


def test_the_jacobian_written_by_hand_is_not_that_of_the_network():
    rng = np.random.default_rng(1)
    inputs, width = 3, 4
    kappa, x = 1 / np.sqrt(width), 3 * rng.normal(size=inputs)
    theta = rng.normal(size=width * inputs + width)

    def outputs(theta):
        # Column by column, as the forward pass unpacks the parameters.
        u, v = theta[: width * inputs].reshape(width, inputs, order="F"), theta[width * inputs :]
        return kappa * v @ np.tanh(u @ x)

    u, v = theta[: width * inputs].reshape(width, inputs, order="F"), theta[width * inputs :]
    slope = 1 - np.tanh(u @ x) ** 2
    by_hand = np.concatenate([((v * slope)[:, None] * x).ravel(order="C"), np.tanh(u @ x)])
    exact = _slope(outputs, theta)
    assert np.linalg.norm(by_hand - exact) > 0.5 * np.linalg.norm(exact)
    mended = kappa * np.concatenate([((v * slope)[:, None] * x).ravel(order="F"), np.tanh(u @ x)])
    np.testing.assert_allclose(mended, exact, atol=1e-9)
    # Nor is the loss's gradient: κ is missing, and the activation's slope is taken at its own value.
    gradient = np.concatenate(
        [((v * (1 - np.tanh(np.tanh(u @ x)) ** 2))[:, None] * x).ravel(order="F"), np.tanh(u @ x)]
    )
    assert np.linalg.norm(kappa * gradient - exact) > 0.05 * np.linalg.norm(exact)
    # The factor alone does not mend it: the entries of the first layer stand in another order.
    assert np.linalg.norm(kappa * by_hand - exact) > 0.1 * np.linalg.norm(exact)


def test_the_quotient_is_the_inverse_of_the_step():
    curvature = np.array([40.0, 50.0])
    gradient = lambda x: curvature * x
    x, before = np.array([1.0, 0.5]), np.array([1.3, 0.2])
    d, g = x - before, gradient(x) - gradient(before)
    quotient, step = g @ g / (d @ g), d @ g / (g @ g)
    assert 40 <= quotient <= 50
    assert quotient * step == pytest.approx(1)
    # Barzilai and Borwein's step contracts; their quotient, as a step, does not.
    assert np.linalg.norm(x - step * gradient(x)) < 0.3 * np.linalg.norm(x)
    assert np.linalg.norm(x - quotient * gradient(x)) > 1e3 * np.linalg.norm(x)


def _group_gradient(x, weight):
    return phi_1(weight * phi(x)) * phi_1(x)


def _group_hessian(x, weight):
    return phi_2(weight * phi(x)) * (phi_1(x) @ phi_1(x)) + phi_1(weight * phi(x)) * phi_2(x)


def _group_value(x, strengths, weight):
    for strength in strengths:
        x = phi(x * max(1 - strength * weight / np.linalg.norm(x), 0))
    return x.sum()


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_the_group_smoother_has_three_unrelated_parts(weight):
    x = np.array([0.7, -1.2, 0.4])
    jacobian = np.array([_slope(lambda at, k=k: _group_gradient(at, weight)[k], x) for k in range(3)])
    # No entry of the gradient depends on another entry of its group, as all do in a group lasso.
    assert np.abs(jacobian - np.diag(np.diag(jacobian))).max() == 0
    assert np.abs(_group_hessian(x, weight) / np.diag(jacobian) - 1).max() > 0.3
    value = _slope(lambda at: _group_value(at, (0.1, 0.1), weight), x)
    assert np.abs(_group_gradient(x, weight) / value - 1).max() > 0.05


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_group_prox_divides_by_the_inverse_metric(scale):
    """argmin ½ (1/α) ‖u − x‖²_H + λ ‖u‖₂, by its own equation u = H x/(H + αλ/‖u‖)."""
    x, alpha, strength = np.array([3.0, -4.0, 1.0]), 0.5, 0.6

    def exact(h):
        shrunk = lambda s: h * x / (h + alpha * strength / s)
        return shrunk(brentq(lambda s: np.linalg.norm(shrunk(s)) - s, 1e-9, 10))

    def published(h):
        # What is passed as the scale is the inverse of H.
        return x * np.maximum(1 - alpha * strength / ((1 / h) * np.linalg.norm(x)), 0)

    equal = np.full(3, scale)
    np.testing.assert_allclose(exact(equal), x * (1 - alpha * strength / (scale * np.linalg.norm(x))), rtol=1e-9)
    assert np.allclose(published(equal), exact(equal), rtol=1e-9) == (scale == 1.0)
    # Where the metric varies within the group even the right scale would not do: the norm is that of the result.
    varied = scale * np.array([1.0, 3.0, 9.0])
    naive = x * np.maximum(1 - alpha * strength / (varied * np.linalg.norm(x)), 0)
    assert np.abs(naive / exact(varied) - 1).max() > 1e-5
    assert np.abs(published(varied) / exact(varied) - 1).max() > 0.02


def test_the_lasso_prox_multiplies_by_the_metric():
    x, alpha, strength = 2.0, 0.5, 0.6
    grid = np.linspace(-3, 3, 600_001)
    for h in (0.5, 1.0, 2.0):
        exact = grid[np.argmin(h * (grid - x) ** 2 / (2 * alpha) + strength * np.abs(grid))]
        assert exact == pytest.approx(x - alpha * strength / h, abs=1e-5)
        published = max(x - alpha * strength / (1 / h), 0)
        assert (abs(published - exact) < 1e-5) == (h == 1.0)


def _box_value(x, low, high):
    return phi(x - low) if x < low else phi(x - high) if x > high else 0.0


def _box_gradient(x, low, high):
    if -x < low:
        return (low - x) / np.sqrt((low - x) ** 2 + MU**2)
    return 0.0 if x < high else (high - x) / np.sqrt((high - x) ** 2 + MU**2)


def test_the_box_smoother_pushes_outwards_and_within():
    low, high = 0.0, 1.0
    slope = lambda x: _slope(lambda at: _box_value(at[0], low, high), np.array([x]))[0]
    # Inside the box there is no penalty and should be no force; `-x < low` holds at every x > 0 there.
    assert slope(0.5) == 0
    assert abs(_box_gradient(0.5, low, high)) > 0.5
    # Where the branches do meet their case the sign is wrong: a descent step would leave the box further behind.
    assert _box_gradient(2.0, low, 5.0) * (low - 2.0) > 0
    low, high = -1.0, 1.0
    assert slope(2.0) > 0 > (high - 2.0) / np.sqrt((high - 2.0) ** 2 + MU**2)
    assert _slope(lambda at: _box_value(at[0], low, high), np.array([-2.0]))[0] < 0
    # Below the lower bound, x = −2 < −1, `-x < low` reads 2 < −1: no force at all.
    assert _box_gradient(-2.0, low, high) == 0


def test_the_logarithmic_box_takes_the_logarithm_of_a_negative_number():
    low = 0.0
    quadratic = lambda x: (low - x + 3 * MU) * (low - x + MU) / (2 * MU)
    logarithmic = lambda x: MU * (np.log(MU) - np.log(x - low))
    with np.errstate(invalid="ignore"):
        assert np.isnan(quadratic(-0.1) + logarithmic(-0.1))
    # The two pieces belong side by side: value and slope agree at low + μ, the logarithm above and the square below.
    at = np.array([low + MU])
    assert quadratic(at[0]) == pytest.approx(logarithmic(at[0]), abs=1e-15)
    assert _slope(lambda x: quadratic(x[0]), at)[0] == pytest.approx(_slope(lambda x: logarithmic(x[0]), at)[0])
    # With the square alone above low + μ set to zero, the slope jumps there from −1 to 0.
    assert _slope(lambda x: quadratic(x[0]), at)[0] == pytest.approx(-1.0)


def test_the_exponential_box_has_no_upper_bound():
    force = lambda x, low: -np.exp((low - x) / MU)
    # However far above the upper bound, which the formula does not contain, the force points further up.
    assert -1e-3 < force(5.0, 0.0) < 0


def test_the_smoother_of_ostrovskii_and_bach_is_not_defined_at_zero():
    def curvature(x):
        root = np.sqrt(MU**2 + 4 * x**2)
        return (root - MU) * MU / x**2 / root / 2

    with np.errstate(invalid="ignore", divide="ignore"):
        assert np.isnan(curvature(np.float64(0.0)))
        # And loses every digit before that: its limit is 1/μ.
        assert abs(curvature(np.float64(1e-9)) * MU - 1) > 0.5
    x = 1e-9
    stable = 2 / (np.sqrt(MU**2 + 4 * x**2) + MU) * MU / np.sqrt(MU**2 + 4 * x**2)
    assert stable == pytest.approx(1 / MU)
