"""The tangent kernel of a network as it is, against J H⁻¹ Jᵀ with every array written out in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from concordax import ntk
from concordax.metrics import DiagonalMetric, GroupMetric, ScalarMetric
from concordax.ntk import checks

MODEL = cx.MLP(inputs=3, widths=(6,), outputs=3)
N1, N2 = 11, 7


def _plain(params, inputs):
    """The same network as a function that hands nothing out."""
    return MODEL(params, inputs)


def _data(model, seed=0):
    """Parameters, x₁, x₂ and the Jacobians [n, c, p] at both by the chain rule written out."""
    rng = np.random.default_rng(seed)
    params = helpers.draw_params(model, rng)
    x1, x2 = rng.normal(size=(N1, 3)), rng.normal(size=(N2, 3))
    layers, scales = helpers.as_layers(params), helpers.scales_of(model)
    jacobians = [helpers.network(layers, x, scales, model.activation)[1] for x in (x1, x2)]
    return params, x1, x2, *jacobians


def _kernel(j1, inverse, j2):
    return np.einsum("iap,pq,jbq->iajb", j1, inverse, j2)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (MODEL, "per parameter"),
        (MODEL, "groups: any, weighted"),
        (_plain, "pseudo-huber 0.3"),
        (_plain, "groups: inputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "plain" if value is _plain else "layered",
)
def test_every_metric_against_the_dense_reference(model, name):
    params, x1, x2, j1, j2 = _data(MODEL)
    hessian = helpers.REFERENCE_REGULARIZERS[name].hessian(helpers.flatten(params))
    inverse = np.linalg.inv(hessian)
    metric = helpers.REGULARIZERS[name]
    for found, expected in [
        (ntk.empirical(model, params, x1, metric=metric), _kernel(j1, inverse, j1)),
        (ntk.empirical(model, params, x1, x2, metric=metric), _kernel(j1, inverse, j2)),
    ]:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    np.testing.assert_allclose(
        ntk.empirical_diagonal(model, params, x1, metric=metric),
        np.einsum("iap,pq,iaq->ia", j1, inverse, j1),
        rtol=1e-10,
    )
    vectors = np.random.default_rng(3).normal(size=(N2, 3, 2))
    expected = np.einsum("iajb,jbr->iar", _kernel(j1, inverse, j2), vectors)
    found = ntk.empirical_product(model, params, x1, vectors, x2, metric=metric)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("outputs", [1, 10])
def test_numbers_of_outputs(outputs):
    model = cx.TwoLayer(inputs=3, width=5, outputs=outputs, activation="silu", bias=True)
    params, x1, x2, j1, j2 = _data(model)
    inverse, metric = np.eye(j1.shape[2]) / 4, 4.0 * cx.L2()
    if outputs == 10:
        inverse = np.diag(np.exp(np.random.default_rng(1).normal(size=j1.shape[2])))
        metric = DiagonalMetric(jnp.asarray(np.diag(inverse)))
    expected = _kernel(j1, inverse, j2)
    vectors = np.random.default_rng(3).normal(size=(N2, outputs))
    product = np.einsum("iajb,jb->ia", expected, vectors)
    diagonal = np.einsum("iap,p,iap->ia", j1, np.diag(inverse), j1)
    if outputs == 1:
        expected, product, diagonal = expected[:, 0, :, 0], product[:, 0], diagonal[:, 0]
        vectors = vectors[:, 0]
    for found, right in [
        (ntk.empirical(model, params, x1, x2, metric=metric), expected),
        (ntk.empirical_diagonal(model, params, x1, metric=metric), diagonal),
        (ntk.empirical_product(model, params, x1, vectors, x2, metric=metric), product),
    ]:
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-10 * np.abs(right).max())


@pytest.mark.parametrize(
    ("model", "name"), [(MODEL, "groups: any, weighted"), (_plain, "l2")], ids=["layered", "plain"]
)
def test_blocks_change_nothing(monkeypatch, model, name):
    params, x1, x2, *_ = _data(MODEL)
    vectors = np.random.default_rng(3).normal(size=(N2, 3, 2))

    def kernels():
        metric = helpers.REGULARIZERS[name]
        return (
            ntk.empirical(model, params, x1, metric=metric),
            ntk.empirical(model, params, x1, x2, metric=metric),
            ntk.empirical_diagonal(model, params, x1, metric=metric),
            ntk.empirical_product(model, params, x1, vectors, x2, metric=metric),
        )

    whole = kernels()
    # Neither 11 nor 7 rows are whole blocks of 4.
    monkeypatch.setattr(checks, "_MOST_ROWS", 4)
    found = kernels()
    for one, expected in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    symmetric = np.asarray(found[0]).reshape(3 * N1, -1)
    assert (symmetric == symmetric.T).all()


def test_a_small_budget_makes_small_blocks(monkeypatch):
    params, x1, *_ = _data(MODEL)
    network = checks.check_network("call", MODEL, params, x1, None)
    assert checks.rows_of_a_block(network, 1000, 1000) == 1000
    monkeypatch.setattr(checks, "free_bytes", lambda: 8e6)
    # An eighth of 8 MB holds 125,000 numbers: a row's factors, 3 (3·9 + 11), and 27 a row of the others.
    assert checks.rows_of_a_block(network, 1000, 1000) == 125_000 // (3 * (3 * 9 + 4 + 7) + 27 * 1000)
    # A vector has four numbers for each of 45 parameters.
    assert checks.vectors_of_a_block(network, 1000) == 125_000 // 180


def test_parameters_and_inputs_of_any_structure():
    """Dictionaries of arrays, rows among them; a model that is only linear in one of its parts."""
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(2, 3))), "b": (jnp.asarray(0.7), jnp.asarray(rng.normal(size=2)))}
    rows = {"x": rng.normal(size=(N1, 2)), "scale": rng.uniform(1, 2, size=N1)}

    def model(p, inputs):
        return inputs["scale"][:, None] * jnp.sin(inputs["x"] @ p["a"]) * p["b"][0] + p["b"][1].sum()

    angle = rows["x"] @ np.asarray(params["a"])
    slope = 0.7 * rows["scale"][:, None] * np.cos(angle)
    # Entry (d, c) of the matrix, then the factor, then the two shifts.
    j = np.zeros((N1, 3, 9))
    for c in range(3):
        j[:, c, [c, 3 + c]] = slope[:, c, None] * rows["x"]
        j[:, c, 6] = rows["scale"] * np.sin(angle[:, c])
    j[:, :, 7:] = 1.0
    found = ntk.empirical(model, params, rows)
    np.testing.assert_allclose(found, np.einsum("iap,jbp->iajb", j, j), rtol=0, atol=1e-12)


def test_single_precision_in_and_out():
    params, x1, _, j1, _ = _data(MODEL)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    found = ntk.empirical(MODEL, single, x1, metric=cx.PseudoHuber(5.0))
    assert found.dtype == jnp.float32
    inverse = np.linalg.inv(helpers.REFERENCE_REGULARIZERS["pseudo-huber 5"].hessian(helpers.flatten(params)))
    expected = _kernel(j1, inverse, j1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def _with_nan(x):
    return np.where(np.arange(x.size).reshape(x.shape) == 4, np.nan, x)


def _groups(size):
    return GroupMetric(jnp.ones(size), jnp.ones(size), cx.Groups(np.zeros(size, int)))


K, D, P = ntk.empirical, ntk.empirical_diagonal, ntk.empirical_product
SIZE_44, INFINITE = DiagonalMetric(jnp.ones(44)), ScalarMetric(jnp.asarray(jnp.inf))
ERRORS = {
    "features differ": (lambda p, x: K(MODEL, p, x, x[:, :2]), ValueError, "both need the same features"),
    "features of the model": (lambda p, x: K(MODEL, p, x[:, :2]), ValueError, "shape [n, 3]"),
    "not finite": (lambda p, x: K(MODEL, p, _with_nan(x)), ValueError, "`ntk.empirical(x1=...)` must be finite"),
    "second not finite": (lambda p, x: K(MODEL, p, x, _with_nan(x)), ValueError, "x2=...)` must be finite"),
    "no rows": (lambda p, x: K(MODEL, p, x[:0]), ValueError, "holds no rows"),
    "no rows, diagonal": (lambda p, x: D(MODEL, p, x[:0]), ValueError, "holds no rows"),
    "no second rows": (lambda p, x: K(MODEL, p, x, x[:0]), ValueError, "(x2=...)` holds no rows"),
    "ragged": (lambda p, x: K(MODEL, p, {"a": x, "b": x[:3]}), ValueError, "the same number of rows"),
    "parameters": (lambda p, x: K(MODEL, (*p, jnp.array(jnp.nan)), x), ValueError, "params=...)` must be finite"),
    "no parameters": (lambda _, x: K(lambda _, x: x, (), x), ValueError, "no parameters"),
    "outputs": (lambda p, x: K(lambda q, x: MODEL(q, x)[:, 0], p, x), ValueError, "[n, outputs]"),
    "metric size": (lambda p, x: K(MODEL, p, x, metric=SIZE_44), ValueError, "is of 44 parameters; the model has 45"),
    "group size": (lambda p, x: K(MODEL, p, x, metric=_groups(46)), ValueError, "is of 46 parameters"),
    "metric not finite": (lambda p, x: K(MODEL, p, x, metric=INFINITE), ValueError, "metric=...)` must be finite"),
    "metric kind": (lambda p, x: K(MODEL, p, x, metric=3.0), TypeError, "must be None, a regularizer"),
    "vectors": (lambda p, x: P(MODEL, p, x, x[:, :2]), ValueError, "must have shape [11, 3, '*r']"),
    "vectors not finite": (lambda p, x: P(MODEL, p, x, x * np.nan), ValueError, "vectors=...)` must be finite"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name):
    call, kind, message = ERRORS[name]
    params, x1, *_ = _data(MODEL)
    with pytest.raises(kind, match=re.escape(message)):
        call(params, x1)


def test_a_kernel_that_does_not_fit_is_refused(monkeypatch):
    params, x1, *_ = _data(MODEL)
    monkeypatch.setattr(checks, "free_bytes", lambda: 1e4)
    with pytest.raises(MemoryError, match="a kernel of 1,089 numbers takes"):
        ntk.empirical(MODEL, params, x1)


def test_names_are_found_at_first_use():
    assert cx.ntk is ntk
    assert set(ntk.__all__) <= set(dir(ntk))
    assert not {"empirical", "infinite_width", "dual_activation"} & set(ntk._NAMES)
    with pytest.raises(AttributeError, match=r"^module 'concordax.ntk' has no attribute 'empirica'$"):
        ntk.empirica  # noqa: B018
