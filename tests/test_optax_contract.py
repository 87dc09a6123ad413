"""`ggn_score` as an optax transformation: chain, jit, scan, vmap, dtypes, weights, extra arguments, errors."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import concordax as cx
import helpers

ROWS = 10
MODEL = cx.MLP(inputs=3, widths=(5,), outputs=2)
OPTIMIZER = cx.ggn_score(MODEL, cx.SquaredError(), cx.PseudoHuber(0.5), strength=1e-3, solver=cx.Dual())
TRACES = []


@jax.jit
def _update(params, state, inputs, targets, weights):
    TRACES.append(1)
    return OPTIMIZER.update(None, state, params, inputs=inputs, targets=targets, weights=weights)


def _problem(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    params = helpers.draw_params(MODEL, rng)
    inputs, targets = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 2))
    assert inputs.std() > 0.5
    assert targets.std() > 0.1
    return params, jnp.asarray(inputs), jnp.asarray(targets), jnp.ones(rows)


def _steps(params, inputs, targets, weights, number, optimizer=OPTIMIZER, update=_update):
    state = optimizer.init(params)
    for _ in range(number):
        updates, state = update(params, state, inputs, targets, weights)
        params = optax.apply_updates(params, updates)
    return params, state


def _assert_same(one, two, rtol=1e-9):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def test_does_not_compile_again():
    params, inputs, targets, weights = _problem()
    _steps(params, inputs, targets, weights, 1)
    before = len(TRACES)
    params, state = _steps(params, inputs, targets, weights, 3)
    assert len(TRACES) == before
    assert before > 0
    # What update returns is of the type that init returns: otherwise the second step would compile anew.
    start = OPTIMIZER.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), start)


def test_composes_in_a_chain():
    params, inputs, targets, _ = _problem()
    chained = optax.chain(OPTIMIZER, optax.scale(0.5))
    state = chained.init(params)
    run = jax.jit(lambda s, p: chained.update(p, s, p, inputs=inputs, targets=targets))
    halved, state = run(state, params)
    full, _ = _update(params, OPTIMIZER.init(params), inputs, targets, jnp.ones(ROWS))
    _assert_same(halved, jax.tree.map(lambda x: 0.5 * x, full))
    assert float(optax.tree.get(state, "effective_parameters")) != 0
    assert int(optax.tree.get(state, "status")) == cx.StepStatus.ACCEPTED
    assert int(optax.tree.get(state, "step")) == 1
    assert float(optax.tree.get(state, "objective")) == pytest.approx(_objective(params, inputs, targets), rel=1e-12)


def _objective(params, inputs, targets):
    outputs, _ = helpers.network(helpers.as_layers(params), np.asarray(inputs), helpers.scales_of(MODEL), "tanh")
    penalty = float(helpers.reference_pseudo_huber(0.5).value(helpers.flatten(params)))
    return 0.5 * ((outputs - np.asarray(targets)) ** 2).sum(axis=1).mean() + 1e-3 * penalty


def test_info_holds_the_objective_before_and_after():
    params, inputs, targets, weights = _problem()
    moved, state = _steps(params, inputs, targets, weights, 1)
    info = state.info
    assert float(info.objective) == pytest.approx(_objective(params, inputs, targets), rel=1e-12)
    assert float(info.new_objective) == pytest.approx(_objective(moved, inputs, targets), rel=1e-12)
    assert float(info.new_loss) == pytest.approx(
        float(cx.objective(MODEL, cx.SquaredError(), cx.PseudoHuber(0.5), moved, inputs, targets, strength=0.0)),
        rel=1e-12,
    )
    assert bool(info.accepted)
    assert float(info.new_objective) < float(info.objective)
    assert float(info.strength) == pytest.approx(1e-3, rel=1e-15)


def test_scan_and_vmap_equal_the_loop():
    # Without the bending of the model, which is taken in float32: it rounds a step by 1e-7.
    parts, unbent = (MODEL, cx.SquaredError(), cx.PseudoHuber(0.5)), cx.TrustRegion(corrections=0)
    plain = cx.ggn_score(*parts, strength=1e-3, solver=cx.Dual(), step=unbent)

    def update(params, state, inputs, targets, weights):
        return plain.update(None, state, params, inputs=inputs, targets=targets, weights=weights)

    problems = [_problem(seed) for seed in range(3)]
    looped = [_steps(*problem, 3, plain, jax.jit(update))[0] for problem in problems]

    def scanned(params, inputs, targets, weights):
        def step(carry, _):
            params, state = carry
            updates, state = update(params, state, inputs, targets, weights)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, plain.init(params)), length=3)[0][0]

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    together = jax.jit(jax.vmap(scanned))(*stacked)
    for index, one in enumerate(looped):
        _assert_same(jax.tree.map(lambda x, index=index: x[index], together), one, rtol=1e-7)
    assert helpers.relative_error(helpers.flatten(looped[0]), helpers.flatten(looped[1])) > 0.1


def test_unknown_extra_arguments_are_accepted():
    params, inputs, targets, _ = _problem()

    @jax.jit
    def update(params):
        gradients = jax.tree.map(jnp.ones_like, params)
        extra = {"value": 1.0, "grad": gradients, "value_fn": None}
        return OPTIMIZER.update(gradients, OPTIMIZER.init(params), params, inputs=inputs, targets=targets, **extra)[0]

    plain, _ = _update(params, OPTIMIZER.init(params), inputs, targets, jnp.ones(ROWS))
    _assert_same(update(params), plain)


@pytest.mark.parametrize("given_dtype", ["float32", "float64"])
def test_float32_stays_float32(given_dtype):
    """The parameters' dtype decides, with x64 on and data in double precision too."""
    params, inputs, targets, weights = _problem()
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    data = [x.astype(given_dtype) for x in (inputs, targets, weights)]
    updates, state = _update(params, OPTIMIZER.init(params), *data)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    assert not [x for x in jax.tree.leaves(state) if x.dtype == jnp.float64]
    double, _ = _update(_problem()[0], OPTIMIZER.init(_problem()[0]), inputs, targets, weights)
    assert helpers.relative_error(helpers.flatten(updates), helpers.flatten(double)) < 1e-4


@given(row=st.integers(0, ROWS - 1), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_weight_two_is_the_row_twice(row, seed):
    params, inputs, targets, weights = _problem(seed)
    state = OPTIMIZER.init(params)
    heavy = inputs, targets, weights.at[row].set(2.0)
    twice = tuple(jnp.concatenate([x, x[row][None]]) for x in (inputs, targets, weights))
    objectives = [float(_update(params, state, *data)[1].info.objective) for data in (heavy, twice)]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-12)
    # Directions, not updates: the first damping is a mean over rows, whatever their weights.
    assert helpers.relative_error(_direction(params, *heavy), _direction(params, *twice)) < 1e-9
    assert helpers.relative_error(_direction(params, *heavy), _direction(params, inputs, targets, weights)) > 1e-4


@given(row=st.integers(0, ROWS - 1), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_weight_zero_is_the_row_removed(row, seed):
    params, inputs, targets, weights = _problem(seed)
    # Whatever the row holds, NaN included.
    spoiled = inputs.at[row].set(jnp.nan), targets.at[row].set(jnp.inf)
    kept = [jnp.delete(x, row, axis=0) for x in (inputs, targets, weights)]
    state = OPTIMIZER.init(params)
    zero, one = _update(params, state, *spoiled, weights.at[row].set(0.0))
    removed, two = _update(params, state, *kept)
    _assert_same(zero, removed, rtol=1e-8)
    _assert_same(one.info, two.info, rtol=1e-8)


_jitted_direction = jax.jit(
    lambda params, inputs, targets, weights: (
        cx.direction(
            MODEL,
            cx.SquaredError(),
            cx.PseudoHuber(0.5),
            params,
            inputs,
            targets,
            strength=1e-3,
            solver=cx.Dual(),
            weights=weights,
        ).direction
    )
)


def _direction(params, inputs, targets, weights):
    return helpers.flatten(_jitted_direction(params, inputs, targets, weights))


@pytest.mark.parametrize("missing", ["params", "inputs", "targets"])
def test_missing_arguments_are_named(missing):
    params, inputs, targets, _ = _problem()
    arguments = {"params": params, "inputs": inputs, "targets": targets, missing: None}
    with pytest.raises(
        ValueError, match=r"needs the parameters and the data: update\(None, state, params, inputs=X, targets=y"
    ):
        OPTIMIZER.update(None, OPTIMIZER.init(params), **arguments)


PARTS = {"model": MODEL, "loss": cx.SquaredError(), "regularizer": cx.L2(), "strength": 1e-3}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"loss": cx.SquaredError},
            TypeError,
            r"`loss=.*must be an instance of loss class\. Did you mean `SquaredError\(\)`\?",
        ),
        ({"regularizer": "l2"}, TypeError, r"`regularizer='l2'`: must be an instance of regularizer class"),
        ({"solver": None}, TypeError, r"`solver=None`: must be an instance of solver class"),
        ({"step": 0.1}, TypeError, r"`step=0.1`: must be an instance of step class"),
        ({"model": 3}, TypeError, r"`model=3`: must be a callable \(params, inputs\)"),
        ({"damping": -1.0}, ValueError, r"`damping=-1.0`: must be a finite number from 0 up"),
        ({"damping": float("nan")}, ValueError, r"`damping=nan`: must be a finite number from 0 up"),
        ({"strength": 0.0}, ValueError, r"`strength=0.0`: must be a positive finite number"),
        ({"strength": "large"}, ValueError, r"`strength='large'`: must be a positive finite number"),
    ],
)
def test_wrong_parts_are_named(change, kind, message, monkeypatch):
    # As users run it: the type checker of the tests would answer before the library does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    arguments = {**PARTS, **change}
    with pytest.raises(kind, match=message):
        cx.ggn_score(arguments.pop("model"), arguments.pop("loss"), arguments.pop("regularizer"), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": jnp.zeros((ROWS - 1, 2))}, r"inputs have 10 rows and targets 9"),
        ({"targets": jnp.zeros((ROWS, 3))}, r"needs targets of shape \[n, 2\]"),
        ({"inputs": jnp.zeros((ROWS, 4))}, r"inputs must have shape \[n, 3\], as the model was built; got \(10, 4\)"),
        ({"weights": jnp.zeros((ROWS, 1))}, r"weights must have shape \[10\].*got \(10, 1\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    params, inputs, targets, weights = _problem()
    arguments = {"inputs": inputs, "targets": targets, "weights": weights, **change}
    with pytest.raises(ValueError, match=message):
        OPTIMIZER.update(None, OPTIMIZER.init(params), params, **arguments)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_step_sizes_must_be_positive(size):
    with pytest.raises(ValueError, match=rf"`FixedStep\(size={size}\)`: the size must be a positive finite number"):
        cx.FixedStep(size)
    with pytest.raises(
        ValueError, match=rf"`PublishedStep\(scale={size}\)`: the scale must be a positive finite number"
    ):
        cx.PublishedStep(size)


def test_fixed_step_takes_its_share_of_the_direction():
    case = helpers.make_case("wide", "squared")
    optimizer = cx.ggn_score(
        case.model, cx.SquaredError(), cx.L2(), strength=1e-2, damping=0.1, step=cx.FixedStep(0.3), solver=cx.Dual()
    )
    update = jax.jit(
        lambda p: optimizer.update(
            None, optimizer.init(p), p, inputs=jnp.asarray(case.inputs), targets=case.targets, weights=case.weights
        )
    )
    updates, state = update(case.params)
    expected = 0.3 * helpers.reference_direction(case, "squared", "l2", 1e-2, 0.1)
    assert helpers.relative_error(helpers.flatten(updates), expected) < 1e-9
    assert float(state.info.step_size) == pytest.approx(0.3)
    assert float(state.info.damping) == pytest.approx(0.1)
    spoiled, state = update(jax.tree.map(lambda x: x * jnp.nan, case.params))
    assert int(state.info.status) == cx.StepStatus.NONFINITE_START
    assert not helpers.flatten(spoiled).any()
