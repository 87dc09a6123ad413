"""Kernels of infinite width: dual activations against closed forms and quadrature, kernels against networks."""

import math
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
from concordax import ntk
from concordax.ntk import limit

# Variances, one of them 0, and correlations; ±1 and one near 1 among them.
Q1, Q2 = np.array([0.3, 1.0, 2.5]), np.array([1.4, 0.0, 0.3])
RHO = np.array([[0.0, 0.3, 1.0], [0.9, 0.5, -0.6], [-1.0, 0.0, 0.999]])
C = RHO * np.sqrt(np.outer(Q1, Q2))


def _arc_cosine(q, p, c):
    """E[relu relu] and the share of the plane where both are positive, by the angle between two vectors."""
    angle = np.arccos(np.clip(c / np.sqrt(q * p), -1, 1))
    value = np.sqrt(q * p) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return value, (np.pi - angle) / (2 * np.pi)


def _arcsine(q, p, c):
    room = (1 + 2 * q) * (1 + 2 * p)
    return 2 / np.pi * np.arcsin(2 * c / np.sqrt(room)), 4 / np.pi / np.sqrt(room - 4 * c**2)


def _by_scipy(f, q, p, c):
    """E f(u) f(v) by adaptive quadrature of adaptive quadrature, v given u inside."""
    integrate = pytest.importorskip("scipy.integrate")
    rest = math.sqrt(max(p - c**2 / q, 0.0))
    density = lambda z: math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    options = {"epsabs": 1e-10, "epsrel": 1e-10, "limit": 200}
    inner = lambda m: integrate.quad(lambda z: f(m + rest * z) * density(z), -8, 8, **options)[0]
    outer = lambda z: f(math.sqrt(q) * z) * density(z) * inner(c / math.sqrt(q) * z)
    return integrate.quad(outer, -8, 8, **options)[0]


_LOGISTIC = lambda z: 1 / (1 + math.exp(-z))
SMOOTH = {
    "tanh": (math.tanh, lambda z: 1 - math.tanh(z) ** 2),
    "silu": (lambda z: z * _LOGISTIC(z), lambda z: _LOGISTIC(z) * (1 + z * _LOGISTIC(-z))),
}


@pytest.mark.parametrize(("name", "closed"), [("relu", _arc_cosine), ("erf", _arcsine)])
def test_closed_forms(name, closed):
    dual = ntk.dual_activation(name, Q1, Q2, C)
    assert float(dual.error.max()) == float(dual.slope_error.max()) == 0
    for i, j in np.ndindex(C.shape):
        if Q2[j]:
            value, slope = closed(Q1[i], Q2[j], C[i, j])
            np.testing.assert_allclose([dual.value[i, j], dual.slope[i, j]], [value, slope], rtol=0, atol=1e-10)
    # Of a pre-activation that is 0 the derivative is that in 0: none of relu, 2/√π of erf.
    expected = np.zeros(3) if name == "relu" else 4 / np.pi / np.sqrt(1 + 2 * Q1)
    np.testing.assert_allclose(dual.slope[:, 1], expected, atol=1e-14)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_activations_against_adaptive_quadrature(name):
    phi, slope = SMOOTH[name]
    dual = ntk.dual_activation(name, Q1, Q2, C)
    for f, found, error in [(phi, dual.value, dual.error), (slope, dual.slope, dual.slope_error)]:
        assert float(error.max()) < 1e-10
        # Correlations of 0.9, −1 and 0.999.
        for i, j in [(1, 0), (2, 0), (2, 2)]:
            expected = _by_scipy(f, Q1[i], Q2[j], C[i, j])
            assert abs(float(found[i, j]) - expected) < 1e-8 * max(1.0, abs(expected))
        np.testing.assert_allclose(found[:, 1], [f(0.0) * _mean(np.vectorize(f), q) for q in Q1], atol=1e-12)


def _mean(f, variance):
    """E f of one Gaussian: the trapezoid rule, exact to rounding for an analytic f."""
    z = np.linspace(-9, 9, 401)
    w = np.exp(-(z**2) / 2)
    return float(np.sum(w * f(np.sqrt(variance) * z)) / w.sum())


def test_a_closed_form_is_met_by_the_series():
    """erf written so that it is not recognised: no code of the closed form is used."""
    dual = ntk.dual_activation(lambda z: 1 - jax.scipy.special.erfc(z), Q1, Q2, C)
    closed = ntk.dual_activation("erf", Q1, Q2, C)
    assert np.all(np.abs(dual.value - closed.value) <= dual.error + 1e-13)
    assert np.all(np.abs(dual.slope - closed.slope) <= dual.slope_error + 1e-13)
    assert float(dual.error.max()) < 1e-9
    assert float(dual.slope_error.max()) < 1e-8


def test_the_stated_error_holds_for_kinks():
    """relu in disguise with its kink in 0, and moved to 0.3; and the error is small where it can be."""
    grid = np.concatenate([[-1, -0.9999], np.linspace(-0.9, 0.9, 19), [0.9999, 1]])
    one, ones, c = np.ones(1), np.ones(23), grid[None, :]
    with pytest.warns(ntk.QuadratureWarning, match="is known to .* of its size"):
        dual = ntk.dual_activation(lambda z: 0.5 * (z + jnp.abs(z)), one, ones, c)
    value, slope = _arc_cosine(1.0, 1.0, grid)
    assert np.all(np.abs(dual.value[0] - value) <= dual.error[0] + 1e-13)
    assert np.all(np.abs(dual.slope[0] - slope) <= dual.slope_error[0] + 1e-13)
    assert float(dual.error.max()) < 1e-4
    assert float(dual.slope_error[0, 5:18].max()) < 1e-10
    # At ±1 nothing is missing.
    assert float(dual.slope_error[0, [0, -1]].max()) < 1e-10
    with pytest.warns(ntk.QuadratureWarning):
        moved = ntk.dual_activation(lambda z: jnp.maximum(z - 0.3, 0.0), one, one, np.zeros((1, 1)))
    density, above = np.exp(-0.045) / np.sqrt(2 * np.pi), float(jax.scipy.special.ndtr(-0.3))
    assert abs(float(moved.value[0, 0]) - (density - 0.3 * above) ** 2) <= float(moved.error[0, 0])
    assert abs(float(moved.slope[0, 0]) - above**2) <= float(moved.slope_error[0, 0])


def test_growth_beyond_the_range_is_seen():
    """E[e^u e^v] = e^{(q+p)/2+c}; at a variance of 200 the mass lies outside of what is integrated, and it says so."""
    near = ntk.dual_activation(jnp.exp, np.ones(1), np.ones(1), np.full((1, 1), 0.5))
    assert abs(float(near.value[0, 0]) - np.exp(1.5)) <= max(1e-9, float(near.error[0, 0]))
    with pytest.warns(ntk.QuadratureWarning):
        ntk.dual_activation(jnp.exp, np.full(1, 200.0), np.full(1, 200.0), np.full((1, 1), 50.0))


# Kernels --------------------------------------------------------------------------------------------------------------

X = np.array([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4], [0.9, 0.6, -0.2]])
_MLP = cx.MLP(inputs=3, widths=(128, 128))
SMOOTHED = cx.PseudoHuber(0.5)
NETWORKS = {
    "two-layer, bias, silu, regularized": (cx.TwoLayer(3, 300, 2, activation="silu", bias=True), SMOOTHED),
    "mlp, tanh, regularized": (_MLP, SMOOTHED),
}


def _draws(model, regularized: bool, count: int):
    """Outputs [s, n, c] and kernels [s, n, c, n, c] of networks at their starts, by Jacobians materialised."""

    def one(key):
        flat, unravel = ravel_pytree(model.init(key))
        jacobian = jax.jacrev(lambda at: model(unravel(at), jnp.asarray(X)))(flat)
        inverse = 0.5 * (1 + (flat / 0.5) ** 2) ** 1.5 if regularized else jnp.ones_like(flat)
        return model(unravel(flat), jnp.asarray(X)), jnp.einsum("iap,jbp->iajb", jacobian * inverse, jacobian)

    keys = jax.random.split(jax.random.key(0), count)
    return [np.asarray(x) for x in jax.jit(lambda keys: jax.lax.map(one, keys))(keys)]


@pytest.mark.parametrize("name", NETWORKS)
def test_limit_is_the_mean_over_wide_networks(name):
    """The mean over 200 networks is the limit within four of its standard errors, between two outputs too.

    Its expectation at a finite width is off by O(1/width), less than that.
    """
    model, regularizer = NETWORKS[name]
    outputs, kernels = _draws(model, regularizer is not None, 200)
    outputs = outputs - outputs.mean(axis=0)
    squares = np.einsum("sia,sjb->siajb", outputs, outputs) * 200 / 199
    kernel = ntk.infinite_width(model, regularizer=regularizer)
    compared = [(0, kernel(X))] + ([(1, kernel.between_outputs(X))] if model.outputs > 1 else [])
    for other, expected in compared:
        for draws, right in [(kernels, np.asarray(expected.ntk)), (squares, np.asarray(expected.nngp))]:
            part = draws[:, :, 0, :, other]
            error = np.std(part, axis=0, ddof=1) / np.sqrt(200)
            assert np.all(np.abs(part.mean(axis=0) - right) < 4 * error)
            # The test could see half of a variance.
            assert np.all(error < 0.2 * np.abs(right).max())


def test_outputs_of_an_mlp_are_independent():
    none = ntk.infinite_width(cx.MLP(inputs=3, widths=(5,), outputs=2, activation="erf")).between_outputs(X)
    assert not np.any(none.nngp)
    assert not np.any(none.ntk)


def test_deep_relu_by_the_recursion_written_out():
    """Three hidden layers in plain NumPy: c ← E[φφ] + 1, Θ ← Θ S + E[φφ] + 1; the last bias has no variance."""
    model = cx.MLP(inputs=3, widths=(7, 7, 7), activation="relu")
    c = X @ X.T / 3 + 1
    theta = c
    for layer in range(3):
        q = np.diag(c)
        value, slope = _arc_cosine(q[:, None], q[None, :], c)
        theta, c = theta * slope + value + 1, value + (1 if layer < 2 else 0)
    found = ntk.infinite_width(model)(X)
    np.testing.assert_allclose(found.ntk, theta, rtol=1e-7)
    np.testing.assert_allclose(found.nngp, c, rtol=1e-7)


def test_linear_model_is_exact():
    model = cx.MLP(inputs=3, widths=())
    found = ntk.infinite_width(model)(X, X[:2])
    params = model.init(jax.random.key(0))
    np.testing.assert_allclose(found.ntk, ntk.empirical(model, params, X, X[:2]), rtol=1e-12)
    np.testing.assert_allclose(found.nngp, X @ X[:2].T / 3, rtol=1e-12)


def test_a_multiple_of_the_ridge_divides_the_kernel():
    model = cx.MLP(inputs=3, widths=(5, 5), activation="erf")
    plain, ridge = (ntk.infinite_width(model, regularizer=r)(X) for r in (None, 4.0 * cx.L2()))
    np.testing.assert_allclose(ridge.ntk, plain.ntk / 4, rtol=1e-12)
    np.testing.assert_array_equal(ridge.nngp, plain.nngp)


# h'' = 1/(1 + t²), so that d(w) = 1 + w², of which every mean is known.
BEND = cx.CustomRegularizer(lambda t: t * jnp.arctan(t) - 0.5 * jnp.log1p(t**2), constants=())


def test_quadratic_inverse_curvature_by_moments():
    """With φ = u²/2 by Isserlis: E[(1 + w²) u v] = 2c + 2 r r' where w stands in u and v with the factors r and r'."""
    square = lambda u: u**2 / 2
    value = lambda c: (np.outer(np.diag(c), np.diag(c)) + 2 * c**2) / 4
    first = lambda x, c: sum(np.outer(r, r) * (2 * c + 2 * np.outer(r, r)) for r in x.T)
    two = ntk.infinite_width(cx.TwoLayer(inputs=3, width=5, activation=square), regularizer=BEND)(X)
    c = X @ X.T
    # E v² = ⅓ and E[1 + v²] = 4/3 of U(0, 1).
    np.testing.assert_allclose(two.ntk, 4 / 3 * value(c) + first(X, c) / 3, rtol=1e-8)
    deep = ntk.infinite_width(cx.MLP(inputs=3, widths=(5, 5), activation=square), regularizer=BEND)(X)
    inputs = np.hstack([X / np.sqrt(3), np.ones((3, 1))])
    one = inputs @ inputs.T
    two = value(one) + 1
    tangent = first(inputs, one) * two + 2 * value(one) * two + (2 * two + 2)
    # E[1 + w²] = 2 of the output weights, d(0) = 1 of the output bias.
    np.testing.assert_allclose(deep.ntk, tangent + 2 * value(two) + 1, rtol=1e-8)
    np.testing.assert_allclose(deep.nngp, value(two), rtol=1e-8)


def test_quadratic_inverse_curvature_and_relu_by_polar_coordinates():
    """Both rows are positive in a sector of their plane: E[w_j² 1 1] = ∫ 2 (a cos t + b sin t)² dt/2π + c² of the rest.

    w_j = a g + b h + c k, with g and h in the plane of the rows, and r² = 2 in the mean.
    """
    x = np.vstack([X, -X[:1], X[1:2] + 1e-3])
    found = ntk.infinite_width(cx.TwoLayer(inputs=3, width=5, activation="relu"), regularizer=BEND)(x)
    for i, j in np.ndindex(5, 5):
        p, q = x[i] / np.linalg.norm(x[i]), x[j] / np.linalg.norm(x[j])
        angle = np.arccos(np.clip(p @ q, -1, 1))
        across = q - (p @ q) * p
        across = across / max(np.linalg.norm(across), 1e-12) if angle > 1e-6 else 0 * p
        # Angles from x_i: positive for x_i on (−π/2, π/2), for x_j on (angle − π/2, angle + π/2).
        t, w = np.polynomial.legendre.leggauss(40)
        half = (np.pi - angle) / 2
        t, w = angle / 2 + half * t, half * w
        share = w.sum() / (2 * np.pi)
        first = 0.0
        for k in range(3):
            a, b = p[k], across[k]
            inside = np.sum(w * 2 * (a * np.cos(t) + b * np.sin(t)) ** 2) / (2 * np.pi)
            first += x[i, k] * x[j, k] * (share + inside + (1 - a**2 - b**2) * share)
        q1, q2 = x[i] @ x[i], x[j] @ x[j]
        features = _arc_cosine(q1, q2, x[i] @ x[j])[0]
        assert abs(found.ntk[i, j] - (4 / 3 * features + first / 3)) < 1e-8 * q1 * q2


def test_blocks_of_parameters_have_their_own_curvature():
    """A ridge of 2 on the first layer and of 5 on the second divide their parts of the kernel."""
    model = cx.TwoLayer(inputs=3, width=6, activation="erf")
    params = model.init(jax.random.key(0))
    found = ntk.infinite_width(model, regularizer=cx.PerParameter(params, (2.0 * cx.L2(), 5.0 * cx.L2())))(X)
    q = np.sum(X**2, axis=1)
    value, slope = _arcsine(q[:, None], q[None, :], X @ X.T)
    np.testing.assert_allclose(found.ntk, value / 5 + X @ X.T * slope / 3 / 2, rtol=1e-12)


def test_one_input_leaves_no_correlation():
    """Given its only weight a row is sure: with relu T¹ = x x' E[(1 + w²) 1{w > 0}] = x x' for equal signs, else 0."""
    x = np.array([0.7, 0.69, -1.2, 0.0])
    found = ntk.infinite_width(cx.TwoLayer(1, 5, activation="relu"), regularizer=BEND)(x[:, None]).ntk
    same = np.outer(x, x) * (np.outer(x, x) > 0)
    # E relu(wx) relu(wx') = x x'/2, times E[1 + v²] = 4/3; E v² = ⅓.
    np.testing.assert_allclose(found, (4 / 3 / 2 + 1 / 3) * same, rtol=1e-8, atol=1e-12)


def test_tiles_change_nothing(monkeypatch):
    x = np.random.default_rng(0).normal(size=(7, 3))
    model = cx.MLP(inputs=3, widths=(5,), activation="relu")
    plain, regularized = (ntk.infinite_width(model, regularizer=each) for each in (None, SMOOTHED))
    whole, other, sums = plain(x), plain(x, X), regularized(x)
    monkeypatch.setattr(limit, "_TILE", 3)
    for found, expected, exact in [(plain(x), whole, 1e-12), (plain(x, X), other, 1e-12), (regularized(x), sums, 1e-8)]:
        np.testing.assert_allclose(found.ntk, expected.ntk, rtol=exact)
        np.testing.assert_allclose(found.nngp, expected.nngp, rtol=1e-12)
    assert (found.ntk == found.ntk.T).all()


def test_same_row_twice_is_the_diagonal():
    """A correlation of 1 is met in spite of rounding: arccos would make 1e-8 of an ulp."""
    kernel = ntk.infinite_width(cx.MLP(inputs=3, widths=(5, 5), activation="relu"))
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.testing.assert_allclose(np.diag(kernel(x, x.copy()).ntk), np.diag(kernel(x).ntk), rtol=1e-12)


def test_pickled_kernel_is_the_same():
    kernel = ntk.infinite_width(cx.TwoLayer(3, 5, activation="erf"), regularizer=4.0 * cx.L2(), tolerance=1e-3)
    copy = pickle.loads(pickle.dumps(kernel))
    assert copy.tolerance == 1e-3
    np.testing.assert_array_equal(copy(X).ntk, kernel(X).ntk)


def test_single_precision_gives_single_precision():
    kernel = ntk.infinite_width(cx.MLP(inputs=3, widths=(5,), activation="erf"))
    with jax.enable_x64(False):
        found = kernel(jnp.asarray(X, jnp.float32))
    assert found.ntk.dtype == jnp.float32
    np.testing.assert_allclose(found.ntk, kernel(X).ntk, rtol=1e-6)


_TWO = cx.TwoLayer(inputs=3, width=4, activation="erf")
_GROUPS = cx.GroupPseudoHuber(1.0, cx.Groups(np.zeros(16, int)))
_UNEVEN = cx.PerParameter({"a": np.zeros(6), "b": np.zeros(10)}, {"a": cx.L2(), "b": 2.0 * cx.L2()})
_root = lambda z: jnp.sqrt(jnp.abs(z))
_NAN = cx.TwoLayer(inputs=3, width=4, activation=jnp.log)
ERRORS = {
    "kind of model": (lambda: ntk.infinite_width(jnp.matmul), TypeError, "must be a cx.TwoLayer or a cx.MLP"),
    "groups": (lambda: ntk.infinite_width(_TWO, regularizer=_GROUPS), TypeError, "its Hessian must be diagonal"),
    "no regularizer": (lambda: ntk.infinite_width(_TWO, regularizer=1.0), TypeError, "None or one, as cx.L2()"),
    "uneven": (lambda: ntk.infinite_width(_TWO, regularizer=_UNEVEN), ValueError, "differs within the weight of"),
    "tolerance": (lambda: ntk.infinite_width(_TWO, tolerance=0.0), ValueError, "tolerance=0.0"),
    "features": (lambda: ntk.infinite_width(_TWO)(X[:, :2]), ValueError, "must have shape [n, 3]"),
    "features of the second": (lambda: ntk.infinite_width(_TWO)(X, X[:, :2]), ValueError, "x2=...)` must have shape"),
    "not finite": (lambda: ntk.infinite_width(_TWO)(X * np.nan), ValueError, "must be finite"),
    "no rows": (lambda: ntk.infinite_width(_TWO)(X[:0]), ValueError, "holds no rows"),
    "activation": (lambda: ntk.infinite_width(_NAN)(X), ValueError, "activation log is nan at"),
    "slope": (lambda: ntk.dual_activation(_root, [0.0], [1.0], [[0.0]]), ValueError, "the derivative of activation"),
    "shapes": (lambda: ntk.dual_activation("tanh", [1.0], [1.0, 1.0], [[1.0]]), ValueError, "covariances [n1, n2]"),
    "variance": (lambda: ntk.dual_activation("tanh", [-1.0], [1.0], [[0.0]]), ValueError, "from 0 up; got -1"),
    "covariance": (lambda: ntk.dual_activation("tanh", [1.0], [1.0], [[1.1]]), ValueError, "must be at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name):
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=re.escape(message)):
        call()
