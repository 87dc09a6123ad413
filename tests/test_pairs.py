"""The exact Gram by pairs of examples: against materialised rows in NumPy, and where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from concordax.jacobians import LayeredJacobian, pairs, pairs_pay
from concordax.linalg import BLOCK
from concordax.metrics import DiagonalMetric
from concordax.solvers import costs, structured_cg
from concordax.solvers.costs import SystemShape
from test_structured_cg import _system, solve

NETWORKS = {"deep": cx.MLP(4, (9, 7), 3), "no bias": cx.TwoLayer(5, 11), "wide": cx.MLP(30, (20,), 10)}


def _jacobian(name: str, rows: int, dtype=jnp.float64) -> tuple[LayeredJacobian, DiagonalMetric]:
    system = _system(NETWORKS[name], cx.SquaredError(), cx.PseudoHuber(3.0), rows=rows, dtype=dtype)
    inverse = np.exp(np.random.default_rng(1).normal(scale=3, size=system.gradient.shape))
    return system.jacobian, DiagonalMetric(jnp.asarray(inverse, dtype))


def _dense(jacobian: LayeredJacobian, metric: DiagonalMetric) -> np.ndarray:
    """J D Jᵀ from the factors, one parameter after the other, in the order of parameters."""
    columns = []
    for layer in jacobian.layers:
        backward, forward = np.asarray(layer.backward, np.float64), np.asarray(layer.forward, np.float64)
        n, k, _ = backward.shape
        weights = np.einsum("nko,nd->nkod", backward, forward)
        parts = [weights[..., :-1], weights[..., -1:]] if layer.bias else [weights]
        columns += [part.reshape(n * k, -1) for part in parts]
    rows = np.concatenate(columns, axis=1)
    return rows * np.asarray(metric.inverse, np.float64) @ rows.T


@pytest.mark.parametrize(("rows", "elements"), [(1, 2**20), (7, 2**20), (7, 300), (8, 1)])
@pytest.mark.parametrize("name", NETWORKS)
def test_gram_is_that_of_materialised_rows(name, rows, elements, monkeypatch):
    """Also in chunks of a few pairs, the last one filled up, and of a single pair."""
    monkeypatch.setattr(pairs, "_ELEMENTS", elements)
    jacobian, metric = _jacobian(name, rows)
    found = np.asarray(pairs.pair_gram(jacobian.layers, jacobian._pieces(metric.inverse)))
    expected = _dense(jacobian, metric)
    np.testing.assert_allclose(found, expected, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("single", [False, True])
def test_the_whole_gram_of_groups_and_pairs(single, monkeypatch):
    """Also below the diagonal, where products of vectors in blocks leave what groups add out; and in float32."""
    monkeypatch.setattr(structured_cg, "exact_gram_pays", lambda _: True)
    model = cx.MLP(60, (128,), 10)
    regularizer = cx.GroupPseudoHuber(0.3, cx.Groups.neurons(model.init(jax.random.key(0))))
    system = _system(model, cx.SquaredError(), regularizer, rows=60)
    assert 600 == np.prod(system.residual.shape) > 2 * BLOCK
    # At the one K is good for Wδ, at the other a product with W is wanted.
    for strength in (1e3, 1e-3):
        found, expected = (solve(s, system, strength) for s in (cx.StructuredCG(single=single), cx.Dual()))
        assert helpers.relative_error(found.direction, expected.direction) < 1e-9
        assert helpers.relative_error(found.image, expected.image) < 1e-9
        assert int(found.stats.iterations) <= (4 if single else 0)


def test_gram_in_float32():
    jacobian, metric = _jacobian("wide", 8, jnp.float32)
    found, expected = jacobian.gram(metric), _dense(jacobian, metric)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(np.triu(found), np.triu(expected), atol=2e-6 * np.abs(expected).max())


def test_pairs_pay_on_few_rows_of_several_outputs():
    wide = ((512, 784), (10, 512))
    assert pairs_pay(16, 10, wide)
    assert pairs_pay(256, 10, wide)
    assert not pairs_pay(257, 10, wide)
    assert not pairs_pay(500, 1, ((500, 5), (1, 500)))


def test_a_wide_mini_batch_is_solved_by_its_own_gram():
    """At a smoothing where the curvatures spread widely and K̃ is far from K, there is nothing left to iterate."""
    model = cx.MLP(60, (128,), 10)
    system = _system(model, cx.SoftmaxCrossEntropy(), cx.PseudoHuber(1e-2), rows=12)
    shape = costs.shape_of(system)
    assert costs.exact_gram_pays(shape)
    found, expected = solve(cx.StructuredCG(), system, 1e-3), solve(cx.Dual(), system, 1e-3)
    assert helpers.relative_error(found.direction, expected.direction) < 1e-9
    assert int(found.stats.iterations) <= 1
    one, two = (solver.prepare(system) for solver in (cx.StructuredCG(), cx.Dual()))
    assert float(one.trace()) == pytest.approx(float(jnp.sum(system.jacobian.gram_diagonal(system.metric))), rel=1e-12)
    for strength in (1e-3, 1e-1):
        mine, other = (prepared.complexity(jnp.asarray(strength)) for prepared in (one, two))
        assert float(mine.effective_parameters) == pytest.approx(float(other.effective_parameters), rel=1e-10)
        assert float(mine.log_determinant) == pytest.approx(float(other.log_determinant), rel=1e-10)


def test_iterations_cost_less_on_tables():
    table = SystemShape(1000, 1, 10_500, ((500, 20), (1, 500)))
    assert not costs.exact_gram_pays(table)
    assert not costs.exact_gram_pays(SystemShape(64, 10, 3386, ((128, 17), (10, 129))))
    assert costs.exact_gram_pays(SystemShape(16, 10, 406_528, ((512, 784), (10, 512))))
    assert not costs.exact_gram_pays(SystemShape(16, 10, 406_528, ((512, 784), (10, 512)), scalar=True))


def test_rows_of_a_mini_batch_are_not_materialised():
    """160 rows of 406,528 numbers would be half a gigabyte, 8 MB at a time."""
    system = jax.eval_shape(
        lambda: _system(cx.TwoLayer(784, 512, outputs=10), cx.SquaredError(), cx.PseudoHuber(3.0), rows=16)
    )
    compiled = jax.jit(lambda system: system.jacobian.gram(system.metric)).lower(system).compile()
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    # Two operations for each of n²/2 pairs and parameters, where N² p are a hundred times as many.
    assert cost["flops"] < 3 * 16**2 / 2 * 2 * 406_528
