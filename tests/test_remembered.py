"""What depends on shapes alone is asked once, and never kept where it could be another's."""

import jax
import jax.numpy as jnp
import numpy as np

import concordax as cx
from concordax.remembered import remembered, structure


def test_a_second_run_traces_nothing():
    traces = []

    def model(params, inputs):
        traces.append(inputs.shape)
        return inputs @ params

    x = np.linspace(-1.0, 1.0, 6)[:, None]
    train = lambda rows: cx.train(
        model, cx.SquaredError(), cx.L2(), jnp.zeros((1, 1)), (x[:rows], x[:rows]), strength=1e-3, max_steps=2
    )  # fmt: skip
    first = train(6)
    before = len(traces)
    second = train(6)
    assert len(traces) == before > 0
    np.testing.assert_array_equal(first.params, second.params)
    # Other shapes are another question.
    train(4)
    assert traces[-1][0] == 4


def test_parts_that_hold_arrays_are_asked_each_time():
    asked = []

    @remembered
    def size(part, of):
        asked.append(part)
        return sum(leaf.size for leaf in jax.tree.leaves(of.tree))

    tree = {"a": jnp.zeros((2, 3)), "b": 1.0}
    assert size("hashable", structure(tree)) == size("hashable", structure(tree)) == 7
    assert len(asked) == 1
    assert size([1], structure(tree)) == size([1], structure(tree)) == 7
    assert len(asked) == 3


def test_a_structure_has_the_shapes_and_dtypes_of_arrays_whoever_made_them():
    tree = (np.zeros((2, 1)), {"count": np.arange(3)})
    expected = jax.eval_shape(lambda at: at, tree)
    assert structure(tree) == structure(jax.tree.map(jnp.asarray, tree)) == structure(expected)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), structure(tree).tree) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    seen = []
    jax.jit(lambda at: seen.append(structure(at)))(tree)
    assert seen == [structure(tree)]
    # The same arrays are others where JAX holds them in single precision.
    double = structure(tree)
    with jax.enable_x64(False):
        single = structure(tree)
        assert single != double
        assert jax.tree.leaves(single.tree)[0].dtype == jnp.float32
