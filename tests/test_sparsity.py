"""Counts of zeros against plain loops, and the compacted network against the one it comes from, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from concordax.sparse import Sparsity


def zeroed(model, seed, share=0.6):
    """Parameters with whole rows and columns of zeros, and single ones."""
    rng = np.random.default_rng(seed)
    layers = []
    for weight, bias in helpers.as_layers(helpers.draw_params(model, rng)):
        w, b = weight.copy(), None if bias is None else bias.copy()
        w[rng.random(len(w)) < share / 2] = 0
        w[:, rng.random(w.shape[1]) < share / 2] = 0
        w[rng.random(w.shape) < share / 2] = 0
        if b is not None:
            b[rng.random(len(b)) < share / 2] = 0
        layers.append(cx.DenseLayer(jnp.asarray(w), None if b is None else jnp.asarray(b)))
    return tuple(layers)


MODELS = {
    "two": cx.TwoLayer(inputs=6, width=9, outputs=2, activation="tanh"),
    "two-bias": cx.TwoLayer(inputs=6, width=9, outputs=2, activation="tanh", bias=True),
    "linear": cx.MLP(inputs=6, widths=(), outputs=2),
    "deep": cx.MLP(inputs=6, widths=(7, 5, 8), outputs=2),
}


def reference(params, model, inputs):
    return helpers.network(helpers.as_layers(params), inputs, helpers.scales_of(model), "tanh")[0]


@pytest.mark.combinations
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(4))
def test_compacted_predicts_the_same_and_cannot_be_compacted_more(name, seed):
    model, params = MODELS[name], zeroed(MODELS[name], seed)
    inputs = np.random.default_rng(seed + 100).normal(size=(11, 6))
    expected = reference(params, model, inputs)
    small = cx.compact(model, params)
    np.testing.assert_allclose(small(jnp.asarray(inputs)), expected, rtol=0, atol=1e-12)
    # The parts fit each other, by the reference network too.
    np.testing.assert_allclose(
        reference(small.params, small.model, inputs[:, small.inputs]), expected, rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(jax.jit(small)(jnp.asarray(inputs)), expected, rtol=0, atol=1e-12)
    # Back among the inputs and units that are left out, it is the larger network again, zero where they were.
    wide = small.expanded()
    assert jax.tree.map(jnp.shape, wide) == jax.tree.map(jnp.shape, params)
    np.testing.assert_allclose(reference(wide, model, inputs), expected, rtol=0, atol=1e-12)
    left_out = np.setdiff1d(np.arange(6), small.inputs)
    assert not np.asarray(wide[0].weight)[:, left_out].any()
    again = cx.compact(small.model, small.params)
    assert again.model == small.model
    for one, other in zip(jax.tree.leaves(again.params), jax.tree.leaves(small.params), strict=True):
        np.testing.assert_array_equal(one, other)
    counts = cx.sparsity(small.model, small.params)
    if counts.nonzeros > 2 and name != "two-bias":
        assert counts.idle_units == 0
        assert len(counts.idle_inputs) == 0
    assert sum(leaf.size for leaf in jax.tree.leaves(small.params)) < counts_of(params).parameters


def counts_of(params) -> Sparsity:
    return cx.sparsity(abs, params)


def by_hand(*weights, biases=None):
    biases = biases or [None] * len(weights)
    pairs = zip(weights, biases, strict=True)
    return tuple(cx.DenseLayer(jnp.asarray(w, float), None if b is None else jnp.asarray(b, float)) for w, b in pairs)


def test_what_is_kept_is_what_matters():
    model = cx.MLP(inputs=3, widths=(4,), outputs=1)
    # Unit 0 is constant, unit 1 is not read, unit 3 reads input 2; input 1 is read by unit 1 alone.
    params = by_hand(
        [[0, 0, 0], [0, 5, 0], [2, 0, 0], [0, 0, 3]], [[7, 0, 1, 1]], biases=[[0.3, 1, 0.1, 0.2], [0.5]]
    )
    small = cx.compact(model, params)
    assert small.model == cx.MLP(inputs=2, widths=(2,), outputs=1)
    assert small.inputs.tolist() == [0, 2]
    assert [units.tolist() for units in small.units] == [[2, 3]]
    assert float(small.params[1].bias[0]) == pytest.approx(0.5 + 7 * np.tanh(0.3) / 2, abs=1e-15)
    # The scales were 1/√3 and 1/√4; they are 1/√2 and 1/√2.
    np.testing.assert_allclose(small.params[0].weight, np.array([[2, 0], [0, 3]]) * np.sqrt(2 / 3), rtol=1e-15)
    np.testing.assert_allclose(small.params[1].weight, np.array([[1, 1]]) / np.sqrt(2), rtol=1e-15)
    wide = small.expanded()
    np.testing.assert_allclose(wide[0].weight, [[0, 0, 0], [0, 0, 0], [2, 0, 0], [0, 0, 3]], rtol=1e-15)
    np.testing.assert_allclose(wide[0].bias, [0, 0, 0.1, 0.2], rtol=1e-15)
    np.testing.assert_allclose(wide[1].weight, [[0, 0, 1, 1]], rtol=1e-15)


def test_a_constant_unit_stays_where_no_bias_can_take_it():
    cosine = lambda z: jnp.cos(z)
    weights = [[0, 0], [1, 0], [0, 0]], [[2, 1, 0]]
    kept = cx.compact(cx.TwoLayer(inputs=2, width=3, activation=cosine), by_hand(*weights))
    assert kept.units[0].tolist() == [0, 1]
    np.testing.assert_allclose(kept(jnp.zeros((1, 2))), [[3 / np.sqrt(3)]], rtol=1e-14)
    # φ(0) = 0: nothing is lost without it.
    gone = cx.compact(cx.TwoLayer(inputs=2, width=3, activation="tanh"), by_hand(*weights))
    assert gone.units[0].tolist() == [1]


@pytest.mark.parametrize(
    "silent", [(0,), (1,), (2,), (0, 1, 2)], ids=["nothing is read", "cut in the middle", "nothing goes out", "all"]
)
def test_a_network_of_which_nothing_is_left_is_the_constant_it_was(silent):
    model = cx.MLP(inputs=3, widths=(4, 5), outputs=2)
    params = list(helpers.draw_params(model, np.random.default_rng(0)))
    for index in silent:
        params[index] = params[index]._replace(weight=0 * params[index].weight)
    small = cx.compact(model, tuple(params))
    assert small.model == cx.MLP(inputs=1, widths=(1, 1), outputs=2)
    assert small.inputs.tolist() == [0]
    inputs = np.random.default_rng(1).normal(size=(7, 3))
    expected = reference(params, model, inputs)
    np.testing.assert_allclose(small(jnp.asarray(inputs)), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(reference(small.expanded(), model, inputs), expected, rtol=0, atol=1e-13)
    assert cx.compact(small.model, small.params).model == small.model


def test_a_tolerance_takes_out_what_is_small():
    model = cx.TwoLayer(inputs=2, width=3, activation="tanh")
    params = by_hand([[1, 1e-9], [2, 0], [1e-9, 0]], [[1, 1, 1]])
    assert cx.compact(model, params).model.width == 3
    small = cx.compact(model, params, tolerance=1e-6)
    assert (small.model.inputs, small.model.width) == (1, 2)
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(9, 2)))
    difference = float(jnp.abs(small(inputs) - model(params, inputs)).max())
    assert 1e-12 < difference < 1e-8


def test_single_precision_stays_single():
    model = MODELS["deep"]
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), zeroed(model, 1))
    small = cx.compact(model, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(small.params)} == {jnp.dtype("float32")}
    inputs = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_allclose(small(jnp.asarray(inputs)), model(params, jnp.asarray(inputs)), rtol=0, atol=2e-6)


def test_what_cannot_be_compacted_is_refused():
    params = zeroed(MODELS["two"], 0)
    with pytest.raises(TypeError, match=r"model=builtin_function.*TwoLayer or MLP"):
        cx.compact(abs, params)
    for tolerance in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"compact\(tolerance"):
            cx.compact(MODELS["two"], params, tolerance=tolerance)
    with pytest.raises(ValueError, match="not all finite"):
        cx.compact(MODELS["two"], jax.tree.map(lambda leaf: leaf * np.nan, params))
    with pytest.raises(ValueError, match=r"\[n, 6\].*\(4, 2\)"):
        cx.compact(MODELS["two"], params)(jnp.zeros((4, 2)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_counts_are_those_of_a_plain_loop(name, tolerance):
    model, params = MODELS[name], zeroed(MODELS[name], 2)
    counts = cx.sparsity(model, params, tolerance=tolerance)
    flat = sorted((abs(float(x)) for x in helpers.flatten(params)), reverse=True)
    limit = tolerance * flat[0]
    total, k = 0.0, 0
    while total < 0.999 * sum(flat) * (1 - 1e-15):
        total, k = total + flat[k], k + 1
    assert counts.holding == k
    assert counts.zeros == sum(x <= limit for x in flat)
    assert (counts.parameters, counts.nonzeros) == (len(flat), len(flat) - counts.zeros)
    layers = helpers.as_layers(params)
    zero = [[[abs(x) <= limit for x in row] for row in weight] for weight, _ in layers]
    idle = [
        sum(all(row) or all(out[j] for out in zero[depth + 1]) for j, row in enumerate(zero[depth]))
        for depth in range(len(layers) - 1)
    ]
    assert [layer.idle_units for layer in counts.layers] == [*idle, 0]
    assert (counts.idle_units, counts.units) == (sum(idle), sum(len(weight) for weight, _ in layers[:-1]))
    assert counts.active_units == counts.units - counts.idle_units
    assert counts.idle_inputs == tuple(j for j in range(6) if all(row[j] for row in zero[0]))
    assert counts.active_inputs == 6 - len(counts.idle_inputs)
    assert sum(layer.zeros for layer in counts.layers) == counts.zeros
    assert sum(layer.parameters for layer in counts.layers) == counts.parameters


def test_any_pytree_is_counted_without_layers():
    counts = cx.sparsity(abs, {"a": jnp.array([4.0, 0.0]), "b": jnp.array([[-5.0], [1.0]])}, share=0.9)
    assert (counts.parameters, counts.zeros, counts.holding, counts.layers) == (4, 1, 2, ())
    assert counts.units is counts.active_units is counts.inputs is counts.idle_inputs is counts.active_inputs is None


def test_equal_entries_and_zeros_alone_are_counted_right():
    assert counts_of(jnp.ones(1000)).holding == 999
    assert cx.sparsity(abs, jnp.ones(1000), share=1.0).holding == 1000
    assert counts_of(jnp.zeros(5)).holding == 0
    # A float32 sum would stand still at 2²⁴ ones.
    steep = np.ones(2**15 + 1, np.float32)
    steep[7] = 2**24
    assert counts_of(steep).holding == 1 + -(-(999 * (2**24 + 2**15) - 1000 * 2**24) // 1000)


def test_counts_of_nonsense_are_refused():
    with pytest.raises(ValueError, match=r"sparsity\(share=1\.5\)"):
        cx.sparsity(abs, jnp.ones(2), share=1.5)
    with pytest.raises(ValueError, match=r"sparsity\(tolerance=-1\.0\)"):
        cx.sparsity(abs, jnp.ones(2), tolerance=-1.0)
    with pytest.raises(ValueError, match="empty"):
        cx.sparsity(abs, {})
    with pytest.raises(ValueError, match="not all finite"):
        cx.sparsity(abs, jnp.array([1.0, jnp.inf]))
