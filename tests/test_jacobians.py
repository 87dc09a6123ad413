"""Layered and dense Jacobians against `jax.jacrev` of the flattened, batched function, and all that is made of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.curvature import SoftmaxFactor
from concordax.jacobians import DenseJacobian, LayeredJacobian, base, linearize
from concordax.metrics import DiagonalMetric, GroupMetric, ScalarMetric

MODELS = {
    "two-layer": cx.TwoLayer(inputs=3, width=5, outputs=1),
    "two-layer, bias, 2 outputs": cx.TwoLayer(inputs=3, width=5, outputs=2, activation="tanh", bias=True),
    "mlp, 3 outputs": cx.MLP(inputs=3, widths=(4, 6), outputs=3),
    "linear": cx.MLP(inputs=3, widths=(), outputs=2),
}
ROWS = 5
_linearize = eqx.filter_jit(linearize)


def _case(name, seed=0, rows=ROWS):
    """Outputs, the library's Jacobian, and the reference [n, c, p]."""
    model, rng = MODELS[name], np.random.default_rng(seed)
    params = helpers.draw_params(model, rng)
    inputs = jnp.asarray(rng.normal(size=(rows, 3)))
    flat, unravel = ravel_pytree(params)
    outputs, jacobian = _linearize(model, unravel, flat, inputs)
    reference = np.asarray(jax.jacrev(lambda flat: model(unravel(flat), inputs))(flat))
    assert (reference != 0).mean() > 0.2
    return outputs, jacobian, reference, (model, unravel, flat, inputs)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    return _case(request.param)


METRICS = ("scalar", "diagonal", "inputs", "rows", "neurons", "scattered")


def _metric(name, params):
    rng = np.random.default_rng(1)
    size = ravel_pytree(params)[0].size
    inverse = jnp.asarray(np.exp(2 * rng.normal(size=size)))
    if name == "scalar":
        return ScalarMetric(jnp.asarray(0.7))
    if name == "diagonal":
        return DiagonalMetric(inverse)
    if name == "neurons" and len(params) == 1:
        name = "rows"
    makers = {"inputs": cx.Groups.inputs, "rows": cx.Groups.rows, "neurons": cx.Groups.neurons}
    groups = makers[name](params) if name in makers else cx.Groups(rng.integers(-1, 4, size))
    return GroupMetric(inverse, jnp.where(groups.alone, 0.0, rng.normal(size=size)), groups)


def _dense_inverse(metric, size):
    """H⁻¹, written out."""
    inverse = np.diag(np.broadcast_to(np.asarray(metric.inverse), size))
    if isinstance(metric, GroupMetric):
        labels, along = metric.groups.labels, np.asarray(metric.along)
        for group in range(metric.groups.count):
            vector = np.where(labels == group, along, 0.0)
            inverse = inverse + np.outer(vector, vector)
    return inverse


def test_layered_equals_jacrev(case):
    outputs, jacobian, reference, (model, unravel, flat, inputs) = case
    assert isinstance(jacobian, LayeredJacobian)
    assert jacobian.shape == reference.shape
    np.testing.assert_allclose(outputs, model(unravel(flat), inputs), rtol=1e-14)
    dense = jacobian.rows().reshape(reference.shape)
    np.testing.assert_allclose(dense, reference, atol=1e-13)


def test_dense_equals_jacrev(case):
    _, _, reference, (model, unravel, flat, inputs) = case
    # A plain function hides the layers: any callable takes the dense path.
    outputs, jacobian = _linearize(lambda params, x: model(params, x), unravel, flat, inputs)
    assert isinstance(jacobian, DenseJacobian)
    np.testing.assert_allclose(outputs, model(unravel(flat), inputs), rtol=1e-14)
    np.testing.assert_allclose(jacobian.matrix, reference, atol=1e-13)


def test_the_models_are_the_documented_networks(case):
    # The oracles' NumPy network, written from the docstrings, gives the same outputs and the same Jacobian.
    outputs, _, reference, (model, unravel, flat, inputs) = case
    expected, jacobian = helpers.network(
        helpers.as_layers(unravel(flat)), np.asarray(inputs), helpers.scales_of(model), model.activation
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    np.testing.assert_allclose(reference, jacobian, atol=1e-13)


_cross_gram = eqx.filter_jit(lambda one, other, metric: one.cross_gram(other, metric))


def _products_of(jacobian, metric, v, u):
    root = metric.root()
    grams = jacobian.gram(metric), jacobian.gram_diagonal(metric), jacobian.normal(root)
    return jacobian.mv(v), jacobian.rmv(u), *grams, jacobian.rows(), root.mv(jnp.eye(len(v)))


_jitted_products = eqx.filter_jit(_products_of)


@pytest.mark.combinations
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["layered", "dense"])
def test_products_equal_einsum(case, kind, metric):
    _, jacobian, reference, (_, unravel, flat, _) = case
    n, k, p = reference.shape
    jacobian = jacobian if kind == "layered" else DenseJacobian(jnp.asarray(reference))
    metric = _metric(metric, unravel(flat))
    inverse, matrix = _dense_inverse(metric, p), reference.reshape(n * k, p)
    rng = np.random.default_rng(2)
    v, u = rng.normal(size=p), rng.normal(size=(n, k))
    found = _jitted_products(jacobian, metric, jnp.asarray(v), jnp.asarray(u))
    image, pulled, gram, diagonal, normal, rows, transposed_root = found
    np.testing.assert_allclose(image.ravel(), matrix @ v, atol=1e-12)
    np.testing.assert_allclose(pulled, matrix.T @ u.ravel(), atol=1e-12)
    np.testing.assert_allclose(rows, matrix, atol=1e-12)
    expected = matrix @ inverse @ matrix.T
    np.testing.assert_allclose(np.triu(gram), np.triu(expected), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(diagonal.ravel(), np.diag(expected), rtol=1e-10, atol=1e-11)
    # Row i of `transposed_root` is R e_i.
    root = np.asarray(transposed_root).T
    np.testing.assert_allclose(root @ root.T, inverse, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(np.triu(normal), np.triu(root.T @ matrix.T @ matrix @ root), rtol=1e-10, atol=1e-10)


@pytest.mark.combinations
@pytest.mark.parametrize("metric", ["scalar", "diagonal", "neurons", "scattered"])
@pytest.mark.parametrize("name", MODELS)
def test_cross_gram(name, metric):
    _, one, first, (model, unravel, flat, _) = _case(name)
    inputs = jnp.asarray(np.random.default_rng(8).normal(size=(3, 3)))
    other = _linearize(model, unravel, flat, inputs)[1]
    second = np.asarray(jax.jacrev(lambda flat: model(unravel(flat), inputs))(flat))
    metric, p = _metric(metric, unravel(flat)), first.shape[2]
    expected = first.reshape(-1, p) @ _dense_inverse(metric, p) @ second.reshape(-1, p).T
    for a, b in ((one, other), (DenseJacobian(jnp.asarray(first)), DenseJacobian(jnp.asarray(second)))):
        np.testing.assert_allclose(_cross_gram(a, b, metric), expected, rtol=1e-10, atol=1e-11)


def test_diagonal_of_a_wide_layer_under_l2():
    """A layer 200 → 50: a size at which jaxlib 0.10.2 on CPU compiles products with equal numbers wrongly."""
    model, rng = cx.MLP(inputs=200, widths=(50,)), np.random.default_rng(0)
    flat, unravel = ravel_pytree(helpers.draw_params(model, rng))
    jacobian = _linearize(model, unravel, flat, jnp.asarray(rng.normal(size=(100, 200))))[1]
    found = eqx.filter_jit(lambda j, d: j.gram_diagonal(ScalarMetric(d)))(jacobian, jnp.asarray(0.7))
    np.testing.assert_allclose(found.ravel(), 0.7 * (np.asarray(jacobian.rows()) ** 2).sum(axis=1), rtol=1e-12)


def test_transform_maps_the_outputs_of_each_row(case):
    _, jacobian, reference, _ = case
    n, k, p = reference.shape
    root = np.sqrt(helpers.softmax(np.random.default_rng(3).normal(size=(n, k))))
    matrix = np.einsum("nk,kj->nkj", root, np.eye(k)) - (root**2)[:, :, None] * root[:, None, :]
    expected = np.einsum("nkj,nkp->njp", matrix, reference)
    for one in (jacobian, DenseJacobian(jnp.asarray(reference))):
        mapped = one.transform(SoftmaxFactor(jnp.asarray(root)).transpose_mv)
        np.testing.assert_allclose(mapped.rows().reshape(n, k, p), expected, atol=1e-13)


ADJOINT = {name: _case(name)[1] for name in ("two-layer, bias, 2 outputs", "mlp, 3 outputs")}
_products = eqx.filter_jit(lambda jacobian, v, u: (jacobian.mv(v), jacobian.rmv(u)))


@pytest.mark.parametrize("name", ADJOINT)
@given(seed=st.integers(0, 2**31), spread=st.floats(0, 5))
@settings(max_examples=50, deadline=None)
def test_rmv_is_the_adjoint_of_mv(name, seed, spread):
    n, k, p = ADJOINT[name].shape
    rng = np.random.default_rng(seed)
    v, u = rng.normal(size=p) * np.exp(spread * rng.normal(size=p)), rng.normal(size=(n, k))
    image, pulled = (np.asarray(x) for x in _products(ADJOINT[name], jnp.asarray(v), jnp.asarray(u)))
    assert (
        abs((u * image).sum() - (pulled * v).sum())
        <= 1e-12 * np.abs(u).sum() * np.abs(image).max() + 1e-12 * np.abs(pulled * v).sum()
    )


@pytest.mark.parametrize("elements", [1, 40, 200])
@pytest.mark.parametrize("name", ["two-layer, bias, 2 outputs", "mlp, 3 outputs"])
def test_chunks_do_not_change_the_result(name, elements, monkeypatch):
    _, jacobian, reference, (_, unravel, flat, _) = _case(name)
    metric = _metric("diagonal", unravel(flat))
    arguments = jacobian, metric, jnp.ones(reference.shape[2]), jnp.ones(reference.shape[:2])
    whole = _jitted_products(*arguments)
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", elements)
    # A function of its own: the chunks' size is read while tracing.
    chunked = eqx.filter_jit(lambda *a: _products_of(*a))(*arguments)
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-12)


def test_pytrees_through_the_dense_path():
    def model(params, rows):
        return jnp.tanh(rows["x"] @ params["w"]) * params["scale"] + rows["offset"][:, None]

    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(4, 2))), "scale": jnp.asarray(rng.normal(size=2))}
    rows = {"x": jnp.asarray(rng.normal(size=(6, 4))), "offset": jnp.asarray(rng.normal(size=6))}
    flat, unravel = ravel_pytree(params)
    outputs, jacobian = _linearize(model, unravel, flat, rows)
    np.testing.assert_allclose(outputs, model(params, rows), rtol=1e-14)
    np.testing.assert_allclose(jacobian.matrix, jax.jacrev(lambda flat: model(unravel(flat), rows))(flat), atol=1e-13)
