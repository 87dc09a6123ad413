"""The step for mini-batches: against its equation in NumPy, what sets its damping, and ten thousand nasty batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from concordax._types import Batch
from concordax.optimizer import make_algorithm

ROWS = 6
MODEL = cx.MLP(inputs=2, widths=(4,), outputs=3)
SQUARED, DUAL, RULE = cx.SquaredError(), cx.Dual(), cx.StochasticTrustRegion()


def _algorithm(loss=SQUARED, solver=DUAL, step=RULE, model=MODEL, strength=0.02):
    return make_algorithm(model, loss, cx.PseudoHuber(0.7), strength=strength, solver=solver, step=step, damping=0.01)


def _batch(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, 2)), rng.normal(size=(ROWS, 3))


def _model_minimum(params, inputs, targets, momentum, damping, beta, expected_damping):
    """The δ that minimises the quadratic model with momentum, by dense algebra; M for an expected damping."""
    outputs, jacobian = helpers.network(helpers.as_layers(params), inputs, helpers.scales_of(MODEL), "tanh")
    flat = np.asarray(helpers.flatten(params), float)
    share = 0.0 if expected_damping is None else 0.02 / (0.02 + 0.01 + expected_damping)
    curvature = (share * (1 + flat**2 / 0.49) ** -1.5 + (1 - share)) / 0.7
    gradient = flat / (0.7 * np.sqrt(1 + flat**2 / 0.49))
    w = np.asarray(jacobian, float).reshape(-1, len(flat)) / np.sqrt(ROWS)
    r = np.asarray(outputs - targets, float).reshape(-1) / np.sqrt(ROWS)
    total = 0.02 + 0.01 + damping
    right = -(w.T @ r + 0.02 * gradient) + beta * damping * curvature * momentum
    return np.linalg.solve(w.T @ w + total * np.diag(curvature), right), np.sum(w**2 / curvature) / (3 * ROWS)


@pytest.mark.parametrize("solver", [cx.Dual(), cx.Primal(), cx.StructuredCG(), cx.NystromCG(tolerance=1e-10)])
def test_two_steps_are_those_of_the_equation(solver):
    params = helpers.draw_params(MODEL, np.random.default_rng(0))
    algorithm = _algorithm(solver=solver)
    step, state = jax.jit(algorithm.update), algorithm.init(params)
    momentum = np.zeros(len(helpers.flatten(params)))
    known = None
    for number in range(2):
        inputs, targets = _batch(number)
        updates, state = step(state, params, algorithm.batch(params, inputs, targets))
        assert int(state.info.attempts) == 1, "a refused trial has no momentum"
        damping = float(state.info.damping) - 0.01
        expected, scale = _model_minimum(params, inputs, targets, momentum, damping, 0.9, known)
        if number == 0 and not isinstance(solver, cx.NystromCG):
            assert damping == pytest.approx(10 * scale, rel=1e-8)
        np.testing.assert_allclose(helpers.flatten(updates), expected, rtol=1e-6, atol=1e-8)
        params = jax.tree.map(jnp.add, params, updates)
        momentum, known = helpers.flatten(updates), float(state.rule.ratio * state.rule.scale)
        np.testing.assert_allclose(state.rule.momentum, momentum, rtol=1e-12)
    # Two iterates behind it, the mean weighs the last with 1/1.2 of the way.
    assert int(state.rule.taken) == 2


def _line(params, inputs):
    return inputs @ params[:, None]


def _rates(targets_of, steps=200):
    """The damping, in units of its scale, along a run on a line whose targets come from a function of the step."""
    algorithm = make_algorithm(
        _line, SQUARED, cx.L2(), strength=1e-6, solver=DUAL, step=cx.StochasticTrustRegion(0.0), damping=0.0
    )  # fmt: skip
    inputs, params = jnp.ones((2, 1)), jnp.zeros(1)

    def one(carry, number):
        params, state = carry
        batch = Batch(inputs, jnp.full((2, 1), targets_of(number)), jnp.ones(2))
        updates, state = algorithm.update(state, params, batch)
        return (params + updates, state), state.rule.ratio

    return np.asarray(jax.jit(lambda: jax.lax.scan(one, (params, algorithm.init(params)), jnp.arange(steps)))()[1])


def test_damping_grows_while_steps_harm_other_rows_and_rests_at_its_floor_else():
    harmed = _rates(lambda number: jnp.where((number < 40) | (number % 2 == 0), 1.0, -1.0), steps=400)
    factors = harmed[1:] / harmed[:-1]
    assert 1.01 * (1 - 1e-9) <= factors.max() <= 1.01**2 * (1 + 1e-9)
    # Batches that contradict each other are noise, which alone must not stop a run: steps sum to infinity.
    np.testing.assert_allclose(harmed[200:], 10 * np.sqrt(1 + np.arange(200, 400) / 100), rtol=1e-12)
    helped = _rates(lambda number: 1.0 + 0.0 * number, steps=200)
    np.testing.assert_array_equal(helped[:50], 10.0)
    # At the minimum gains are rounding.
    assert helped.max() < 10.5


def _scales(loss, start, inputs_of, steps):
    """The memory of the mean of diag K after each step on a line: τ is so small that a step is the data's alone."""
    algorithm = make_algorithm(
        _line, loss, cx.L2(), strength=1e-9, solver=DUAL, step=cx.StochasticTrustRegion(0.0), damping=0.0
    )  # fmt: skip
    params = jnp.full(1, start)

    def one(carry, number):
        params, state = carry
        batch = Batch(jnp.full((2, 1), inputs_of(number)), jnp.zeros((2, 1)), jnp.ones(2))
        updates, state = algorithm.update(state, params, batch)
        return (params + updates, state), (state.rule.scale, state.info.loss)

    return jax.tree.map(
        np.asarray, jax.jit(lambda: jax.lax.scan(one, (params, algorithm.init(params)), jnp.arange(steps)))()[1]
    )


def test_a_kernel_that_has_fallen_for_good_is_forgotten_in_dozens_of_batches():
    scale, _ = _scales(SQUARED, 1.0, lambda number: jnp.where(number < 5, 1000.0, 1.0), 400)
    # The trace of K over two rows.
    np.testing.assert_allclose(scale[:5], 1e6 / 2)
    # A thousandth less a step while that is ten times the kernel of late, then a twentieth, down to ten times what is.
    falls = scale[5:] / scale[4:-1]
    np.testing.assert_allclose(falls[:40], 0.999)
    np.testing.assert_allclose(falls[60:250], 0.95)
    assert scale[300] == pytest.approx(10 / 2, rel=0.1)
    np.testing.assert_allclose(falls[300:], 0.999)


def test_a_loss_that_has_become_flat_is_remembered():
    """Counts of zero: the curvature of their deviance falls with the loss, e^f, while the kernel stays."""
    scale, loss = _scales(cx.PoissonDeviance(), 6.0, lambda _: 1.0, 400)
    assert loss[-1] < loss[0] / 20
    np.testing.assert_allclose(scale[1:] / scale[:-1], 0.999, rtol=1e-9)


def _nasty(key, dtype):
    """A batch of up to four rows: inputs scaled from 1e-8 to 1e8, random labels, now and then one row alone."""
    keys = jax.random.split(key, 5)
    scale = 10.0 ** jax.random.uniform(keys[0], (), dtype, -8, 8)
    inputs = scale * jax.random.normal(keys[1], (4, 2), dtype)
    labels = jax.nn.one_hot(jax.random.randint(keys[2], (4,), 0, 3), 3, dtype=dtype)
    alone = jax.random.bernoulli(keys[3])
    weights = jnp.where((jnp.arange(4) > 0) & alone, 0.0, 10.0 ** jax.random.uniform(keys[4], (4,), dtype, -3, 3))
    present = jnp.sum(weights > 0).astype(dtype)
    return Batch(inputs, labels, weights.astype(dtype), 100 * present)


@pytest.mark.parametrize(("dtype", "activation"), [("float32", "relu"), ("float64", "tanh")])
def test_ten_thousand_nasty_batches_leave_everything_finite(dtype, activation):
    model = cx.MLP(inputs=2, widths=(4,), outputs=3, activation=activation)
    params = jax.tree.map(lambda x: x.astype(dtype), helpers.draw_params(model, np.random.default_rng(0)))
    algorithm = _algorithm(loss=cx.SoftmaxCrossEntropy(), model=model, solver=cx.Dual(), strength=1e-6)

    def one(carry, key):
        params, state = carry
        updates, state = algorithm.update(state, params, _nasty(key, dtype))
        params = jax.tree.map(jnp.add, params, updates)
        leaves = jax.tree.leaves((params, state.rule))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
        rise = state.info.new_objective - state.info.objective
        return (params, state), (finite, state.info.accepted, jnp.where(state.info.accepted, rise, 0.0))

    keys = jax.random.split(jax.random.key(0), 10_000)
    _, (finite, accepted, rise) = jax.jit(lambda: jax.lax.scan(one, (params, algorithm.init(params)), keys))()
    assert bool(jnp.all(finite))
    assert float(jnp.max(rise)) <= 0
    # Not by refusing all.
    assert int(jnp.sum(accepted)) >= 5


def test_mini_batches_learn_with_defaults_and_offer_a_mean_of_late_iterates():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(240, 2))
    labels = (np.arctan2(inputs[:, 1], inputs[:, 0]) + np.pi) // (2 * np.pi / 3 + 1e-9)
    assert set(labels) == {0, 1, 2}
    model = cx.MLP(inputs=2, widths=(16,), outputs=3)
    result = cx.train(
        model, cx.SoftmaxCrossEntropy(), cx.L2(), helpers.draw_params(model, rng), (inputs, labels.astype(int)),
        strength=1e-5, batch_size=16, key=jax.random.key(0), max_steps=90, tolerance=0.0,
    )  # fmt: skip
    # Trust in the default: other rows than those of a step decide about its damping.
    assert result.state.rule.taken == result.history["accepted"].sum()
    predicted = np.argmax(model(result.best_params, jnp.asarray(inputs)), axis=1)
    assert np.mean(predicted == labels) > 0.9
    np.testing.assert_array_equal(helpers.flatten(result.best_params), result.state.rule.average)
    assert result.best_step == 90
    # On all rows the default is the other rule.
    full = cx.train(
        MODEL, cx.SquaredError(), cx.L2(), helpers.draw_params(MODEL, rng), _batch(0), strength=1e-3, max_steps=1
    )
    assert hasattr(full.state.rule, "growth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.0}, r"`StochasticTrustRegion\(momentum=1.0\)`: must be a number from 0 up, below 1"),
        ({"initial_damping": 0.0}, r"`StochasticTrustRegion\(initial_damping=0.0\)`: must be a positive number"),
        ({"max_attempts": 0}, r"`StochasticTrustRegion\(max_attempts=0\)`: must be a whole number from 1 up"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        cx.StochasticTrustRegion(**arguments)
