"""The default step: F never rises, nothing is ever NaN, and the status says what happened."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.optimizer import make_algorithm
from concordax.system import Problem as LibraryProblem
from concordax.system import build_system, make_batch

ROWS, STEPS = 12, 6


@eqx.filter_jit
def _run(algorithm, params, inputs, targets):
    """Objectives before and after each of STEPS steps, attempts, status; and F at the end by itself."""
    batch = algorithm.batch(params, inputs, targets)

    def step(carry, _):
        params, state = carry
        updates, state = algorithm.update(state, params, batch)
        return (optax.apply_updates(params, updates), state), state.info

    (params, state), infos = jax.lax.scan(step, (params, algorithm.init(params)), length=STEPS)
    final = cx.objective(
        algorithm.model,
        algorithm.loss,
        algorithm.regularizer,
        params,
        inputs,
        targets,
        strength=algorithm.strength.value,
    )
    return params, state, infos, final


def _algorithm(model, loss, regularizer, strength=1e-3, **options):
    options = {"solver": cx.Auto(), "step": cx.TrustRegion(), "damping": 0.0, **options}
    return make_algorithm(model, loss, regularizer, strength=strength, **options)


# (loss, regularizer, width): 8 shapes of 25 problems each, every loss and regularizer, primal and dual.
SHAPES = [
    ("squared", cx.L2(), 1),
    ("squared", cx.PseudoHuber(0.5), 50),
    ("squared", cx.L2(), 10),
    ("softmax", cx.PseudoHuber(0.5), 1),
    ("softmax", cx.L2(), 50),
    ("binary", cx.PseudoHuber(3.0), 5),
    ("binary", cx.L2(), 30),
    ("softmax", cx.PseudoHuber(3.0), 20),
]


@pytest.mark.parametrize(("loss", "regularizer", "width"), SHAPES)
def test_objective_never_rises(loss, regularizer, width):
    outputs = {"squared": 1, "softmax": 3, "binary": 2}[loss]
    model = cx.MLP(inputs=4, widths=(width,), outputs=outputs)
    algorithm = _algorithm(model, helpers.LOSSES[loss], regularizer)
    fell = 0
    for seed in range(25):
        rng = np.random.default_rng(1000 * width + seed)
        scale = 10.0 ** rng.uniform(-6, 6)
        params = helpers.draw_params(model, rng)
        inputs = jnp.asarray(scale * rng.normal(size=(ROWS, 4)))
        targets = jnp.asarray(helpers.draw_targets(loss, rng, ROWS, outputs))
        params, _, infos, final = _run(algorithm, params, inputs, targets)
        before, after = np.asarray(infos.objective), np.asarray(infos.new_objective)
        assert np.isfinite(before).all()
        assert np.all(after <= before)
        # Each step starts where the last one ended, and the end is where F says it is.
        np.testing.assert_allclose(before[1:], after[:-1], rtol=1e-12)
        np.testing.assert_allclose(final, after[-1], rtol=1e-12)
        assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(params))
        fell += after[-1] < 0.95 * before[0]
    assert fell >= 15


@pytest.mark.parametrize(
    "kind", ["huge inputs", "NaN row", "infinite target", "huge targets", "zero inputs", "constant rows"]
)
def test_absurd_data_never_gives_nan(kind):
    rng = np.random.default_rng(0)
    model = cx.MLP(inputs=4, widths=(10,), outputs=1)
    params = helpers.draw_params(model, rng)
    inputs, targets = rng.normal(size=(ROWS, 4)), rng.normal(size=(ROWS, 1))
    if kind == "huge inputs":
        inputs *= 1e30
    elif kind == "NaN row":
        inputs[3] = np.nan
    elif kind == "infinite target":
        targets[2] = np.inf
    elif kind == "huge targets":
        targets *= 1e30
    elif kind == "zero inputs":
        inputs *= 0
    else:
        inputs[:], targets[:] = 1.0, 1.0
    moved, _, infos, _ = _run(
        _algorithm(model, cx.SquaredError(), cx.L2()), params, jnp.asarray(inputs), jnp.asarray(targets)
    )
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(moved))
    if kind in ("NaN row", "infinite target"):
        assert set(np.asarray(infos.status).tolist()) == {cx.StepStatus.NONFINITE_START}
        assert not np.asarray(infos.accepted).any()
        np.testing.assert_array_equal(helpers.flatten(moved), helpers.flatten(params))
    else:
        objectives = np.append(infos.objective, infos.new_objective[-1])
        assert np.all(np.diff(objectives) <= 0)


def test_overflowing_relu_network_never_gives_nan():
    # 1e30 through an activation that does not saturate: o² overflows float32, so F is infinite at the start.
    model = cx.MLP(inputs=2, widths=(5,), outputs=1, activation="relu")
    params = jax.tree.map(lambda x: x.astype(jnp.float32), helpers.draw_params(model, np.random.default_rng(0)))
    inputs = jnp.full((ROWS, 2), 1e30, jnp.float32)
    targets = jnp.zeros((ROWS, 1), jnp.float32)
    moved, _, infos, _ = _run(_algorithm(model, cx.SquaredError(), cx.L2()), params, inputs, targets)
    np.testing.assert_array_equal(helpers.flatten(moved), helpers.flatten(params))
    assert set(np.asarray(infos.status).tolist()) == {cx.StepStatus.NONFINITE_START}


@pytest.mark.parametrize("solver", [cx.StructuredCG(), cx.Dual(), cx.Primal()])
def test_a_jacobian_that_is_not_finite_is_no_start(solver):
    """The objective is finite, one row's derivative is not: √|z| at a z of 0."""
    model = cx.TwoLayer(inputs=3, width=6, activation=lambda z: jnp.sqrt(jnp.abs(z)))
    rng = np.random.default_rng(0)
    params, inputs = helpers.draw_params(model, rng), rng.normal(size=(ROWS, 3))
    inputs[2] = 0.0
    algorithm = _algorithm(model, cx.SquaredError(), cx.PseudoHuber(1.0), solver=solver)
    moved, _, infos, _ = _run(algorithm, params, jnp.asarray(inputs), jnp.ones((ROWS, 1)))
    assert np.isfinite(np.asarray(infos.objective)).all()
    assert set(np.asarray(infos.status).tolist()) == {cx.StepStatus.NONFINITE_START}
    np.testing.assert_array_equal(helpers.flatten(moved), helpers.flatten(params))


@pytest.mark.parametrize("share", [None, 1.0, 20.0])
def test_first_damping_is_a_share_of_the_mean_of_the_kernel_diagonal(share):
    case = helpers.make_case("wide", "squared")
    step = cx.TrustRegion() if share is None else cx.TrustRegion(initial_damping=share)
    algorithm = _algorithm(case.model, cx.SquaredError(), cx.PseudoHuber(0.3), step=step)
    _, _, infos, _ = _run(algorithm, case.params, jnp.asarray(case.inputs), jnp.asarray(case.targets))
    _, jacobian = helpers.network(helpers.as_layers(case.params), case.inputs, helpers.scales_of(case.model), "tanh")
    # The metric of the damping is that of the penalty at 0, I/μ.
    kernel = (jacobian**2 * 0.3).sum(axis=2) / len(case.inputs)
    assert int(infos.attempts[0]) == 1
    assert float(infos.damping[0]) == pytest.approx((share or 0.1) * kernel.mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "factors"),
    [(cx.MissedShare(), (4, 4, 6, 12)), (cx.GainRatio(), (2, 4, 8, 16)), (cx.Nielsen(), (2, 4, 8, 16))],
    ids=repr,
)
def test_refusals_grow_the_damping_ever_faster(rule, factors):
    """A model whose objective rises along every trial, by far, and θ stays."""
    flat = jnp.asarray([1.0, 2.0])

    def spike(params, inputs):
        # Linear to the derivative, but 1e3 further away anywhere but at the start.
        away = jnp.where(jnp.all(params == flat), 0.0, 1e3)
        return inputs @ params[:, None] + away

    inputs, targets = jnp.asarray(np.eye(2)), jnp.zeros((2, 1))
    step = cx.TrustRegion(4, initial_damping=1.0, damping_rule=rule)
    algorithm = _algorithm(spike, cx.SquaredError(), cx.L2(), step=step)
    updates, state = jax.jit(algorithm.update)(algorithm.init(flat), flat, algorithm.batch(flat, inputs, targets))
    assert int(state.info.status) == cx.StepStatus.REJECTED
    assert int(state.info.attempts) == 4
    np.testing.assert_array_equal(updates, [0.0, 0.0])
    first = 0.5
    assert float(state.info.damping) == pytest.approx(first * np.prod(factors[:3]))
    assert float(state.rule.next_damping) == pytest.approx(first * np.prod(factors))
    assert float(state.rule.growth) == 2 * factors[3]
    assert float(state.info.new_objective) == float(state.info.objective)
    assert not bool(state.info.accepted)


def _logarithm(params, inputs):
    return inputs * jnp.log(params)


def test_a_trial_that_is_nan_is_a_refused_one():
    """The full step from 4 towards log θ = −3 leaves the domain of the logarithm: shorter ones are tried."""
    inputs, targets, start = jnp.ones((3, 1)), jnp.full((3, 1), -3.0), jnp.asarray([4.0])
    assert 4.0 - 4.0 * (np.log(4.0) + 3.0) < 0
    state_of_a_small_damping = cx.TrustRegion().init(start)._replace(next_damping=jnp.asarray(1e-12))
    algorithm = _algorithm(_logarithm, cx.SquaredError(), cx.L2(), strength=1e-6)
    state = algorithm.init(start)._replace(rule=state_of_a_small_damping)
    updates, state = jax.jit(algorithm.update)(state, start, algorithm.batch(start, inputs, targets))
    assert int(state.info.attempts) > 1
    assert np.isfinite(updates).all()
    assert float(start[0] + updates[0]) > 0
    assert float(state.info.new_objective) <= float(state.info.objective)
    # A rule that takes what it gets leaves the parameters alone, and says why.
    fixed = _algorithm(_logarithm, cx.SquaredError(), cx.L2(), strength=1e-6, step=cx.FixedStep(1.0))
    updates, state = jax.jit(fixed.update)(fixed.init(start), start, fixed.batch(start, inputs, targets))
    assert int(state.info.status) == cx.StepStatus.NONFINITE_TRIAL
    np.testing.assert_array_equal(updates, [0.0])
    assert float(state.info.new_objective) == float(state.info.objective)


def _linear(params, inputs):
    return inputs @ params[:, None]


@pytest.mark.parametrize(
    ("rule", "factor"), [(cx.MissedShare(), 0.01), (cx.GainRatio(), 0.25), (cx.Nielsen(), 1 / 3)], ids=repr
)
def test_damping_falls_where_the_model_is_true(rule, factor):
    """On a quadratic ρ = 1; the direction as one step in NumPy has it."""
    rng = np.random.default_rng(3)
    inputs, targets, theta = rng.normal(size=(9, 3)), rng.normal(size=(9, 1)), rng.normal(size=3)
    step = cx.TrustRegion(initial_damping=1.0, damping_rule=rule)
    algorithm = _algorithm(_linear, cx.SquaredError(), cx.L2(), strength=0.1, step=step)
    _, _, infos, _ = _run(algorithm, jnp.asarray(theta), jnp.asarray(inputs), jnp.asarray(targets))
    normal = inputs.T @ inputs / 9
    # Three parameters against nine numbers: the primal side, whose scale is that of the Gram too, tr K / 9.
    first = np.trace(normal) / 9
    # The last step may promise less than the rounding of F: the damping stays.
    np.testing.assert_allclose(infos.damping[:-1], first * factor ** np.arange(STEPS - 1), rtol=1e-6)
    gradient = inputs.T @ (inputs @ theta[:, None] - targets)[:, 0] / 9 + 0.1 * theta
    delta = -np.linalg.solve(normal + (0.1 + first) * np.eye(3), gradient)
    assert float(infos.decrement[0]) == pytest.approx(np.sqrt(-gradient @ delta), rel=1e-10)


def _cubic(params, inputs):
    return inputs * params**3


def _missed_share(ratio, *, refused):
    root = np.sqrt(max(1 - ratio, 0.0) / 0.75)
    return max(root if refused else min(root, 0.25 / ratio), 0.01)


_FACTORS = {
    cx.MissedShare(): (_missed_share, lambda ratio, growth: max(growth, min(np.sqrt((1 - ratio) / 0.75), 4.0))),
    cx.GainRatio(): (lambda ratio, **_: min(max(0.25 / ratio, 0.1), 2.0), lambda _, growth: growth),
    cx.Nielsen(): (lambda ratio, **_: max(1 - (2 * ratio - 1) ** 3, 1 / 3), lambda _, growth: growth),
}


@pytest.mark.parametrize("rule", _FACTORS, ids=repr)
@pytest.mark.parametrize("damping", [0.02, 0.2, 0.25, 0.3, 1.0, 3.0, 30.0, 1e3])
def test_gain_ratio_sets_the_damping(rule, damping):
    """Two trials at most, on one cubic: the ratios by hand, refused at small dampings and taken at large ones."""
    start, strength = 0.5, 1e-3
    objective = lambda x: 0.5 * (x**3 - 1) ** 2 + 0.5 * strength * x**2
    gradient, curvature = (start**3 - 1) * 3 * start**2 + strength * start, 9 * start**4

    def ratio_at(damping):
        step = -gradient / (curvature + strength + damping)
        promise = -(gradient * step + 0.5 * (curvature + strength) * step**2)
        return (objective(start) - objective(start + step)) / promise

    after_step, after_refusal = _FACTORS[rule]
    expected, refused = damping, ratio_at(damping) <= 1e-4
    if refused:
        expected *= after_refusal(ratio_at(damping), rule.growth)
    ratio = ratio_at(expected)
    taken = ratio > 1e-4
    expected *= after_step(ratio, refused=refused) if taken else after_refusal(ratio, 2 * rule.growth)
    inputs, theta = jnp.ones((1, 1)), jnp.asarray([start])
    step = cx.TrustRegion(2, damping_rule=rule, corrections=0)
    algorithm = _algorithm(_cubic, cx.SquaredError(), cx.L2(), strength=strength, step=step)
    state = algorithm.init(theta)
    state = state._replace(rule=state.rule._replace(next_damping=jnp.asarray(damping)))
    _, state = jax.jit(algorithm.update)(state, theta, algorithm.batch(theta, inputs, inputs))
    assert (bool(state.info.accepted), int(state.info.attempts)) == (taken, 1 + refused)
    assert float(state.rule.next_damping) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rule", _FACTORS, ids=repr)
@pytest.mark.parametrize("ratio", [0.05, 0.25, 0.7, 0.999, 1.4])
@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize("least", [None, 0.4])
def test_damping_after_a_step(rule, ratio, refused, least):
    """By hand, after a refusal too, where `MissedShare` lowers λ less; and with another least factor."""
    factor = rule.after_step(jnp.asarray(ratio), jnp.asarray(refused), rule.least if least is None else least)
    expected = max(_FACTORS[rule][0](ratio, refused=refused), least or 0.0)
    assert float(factor) == pytest.approx(expected, rel=1e-6)


def test_missed_share_remembers_refusals():
    """The least factor by hand along steps refused and not; the other rules forget them."""
    rule, least = cx.MissedShare(), cx.MissedShare().least
    for refusals, expected in [(0, 0.01), (1, 0.1), (0, 0.095), (4, 0.5), (2, 0.5), (0, 0.475), (5, 0.01), (11, 0.01)]:
        least = rule.least_after(jnp.asarray(least), jnp.asarray(refusals))
        assert float(least) == pytest.approx(expected, rel=1e-6)
    for other in (cx.GainRatio(), cx.Nielsen()):
        assert float(other.least_after(jnp.asarray(other.least), jnp.asarray(1))) == pytest.approx(other.least)


def test_refusals_leave_the_damping_high_for_longer():
    """On the cubic: a step refused at first raises the least factor, one in which nothing is taken leaves it."""
    inputs, theta = jnp.ones((1, 1)), jnp.asarray([0.5])
    for damping, trials, expected in [(1e3, 2, 0.038), (0.3, 2, 0.4), (0.02, 1, 0.04)]:
        algorithm = _algorithm(_cubic, cx.SquaredError(), cx.L2(), step=cx.TrustRegion(trials, corrections=0))
        state = algorithm.init(theta)
        rule = state.rule._replace(next_damping=jnp.asarray(damping), least=jnp.asarray(0.04))
        state = state._replace(rule=rule)
        _, state = jax.jit(algorithm.update)(state, theta, algorithm.batch(theta, inputs, inputs))
        assert float(state.rule.least) == pytest.approx(expected, rel=1e-6), (damping, state.info)


@pytest.mark.parametrize("ratio", [np.nan, -np.inf, np.inf])
def test_refusal_without_a_ratio_raises_the_damping_by_what_is_usual(ratio):
    factors = [float(rule.after_refusal(jnp.asarray(ratio), jnp.asarray(rule.growth))) for rule in _FACTORS]
    assert factors == [4.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("strength", "rule"),
    [(1e-3, cx.MissedShare()), (cx.Evidence(), cx.GainRatio()), (cx.AnnealedStrength(1e-2, 1e-4), cx.GainRatio())],
    ids=repr,
)
def test_default_rule_is_that_of_the_strength(strength, rule):
    inputs = jnp.linspace(-1, 1, 8)[:, None]
    model = cx.TwoLayer(1, 4)
    held_out = (inputs + 0.1, inputs)
    result = cx.train(
        model, cx.SquaredError(), cx.L2(), model.init(jax.random.key(0)), (inputs, inputs), strength=strength,
        max_steps=1, validation=held_out,
    )  # fmt: skip
    assert result.setup is not None
    moving = {"damping_rule": rule, "corrections": 0, "damp_in_hessian": True}
    expected = cx.TrustRegion(**moving) if isinstance(rule, cx.GainRatio) else cx.TrustRegion(damping_rule=rule)
    assert result.setup.algorithm.step == expected


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_damping_rule_is_named():
    with pytest.raises(TypeError, match=r"damping_rule=0.5.*cx.MissedShare\(\)"):
        cx.TrustRegion(damping_rule=0.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stationary_at_the_minimum(dtype):
    rng = np.random.default_rng(3)
    inputs, targets = rng.normal(size=(9, 3)), rng.normal(size=(9, 1))
    best = np.linalg.solve(inputs.T @ inputs / 9 + 0.1 * np.eye(3), inputs.T @ targets[:, 0] / 9)
    algorithm = _algorithm(_linear, cx.SquaredError(), cx.L2(), strength=0.1)
    moved, _, infos, _ = _run(
        algorithm, jnp.asarray(best, dtype), jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)
    )
    assert int(infos.status[-1]) == cx.StepStatus.STATIONARY
    assert infos.objective.dtype == dtype
    # Near it too, where the promise is positive but below the rounding of F: taken or stationary, never refused.
    for seed in range(5):
        near = best * (1 + 0.01 * np.sqrt(np.finfo(dtype).eps) * np.random.default_rng(seed).normal(size=3))
        _, _, infos, _ = _run(
            algorithm, jnp.asarray(near, dtype), jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)
        )
        assert set(np.asarray(infos.status).tolist()) <= {cx.StepStatus.ACCEPTED, cx.StepStatus.STATIONARY}
        assert int(infos.status[-1]) == cx.StepStatus.STATIONARY
    np.testing.assert_allclose(moved, best, rtol=100 * np.finfo(dtype).eps)


def test_scale_of_the_start_is_kept():
    """It is the unit of the least damping: not measured anew in each step."""
    case = helpers.make_case("wide", "squared")
    algorithm = _algorithm(case.model, cx.SquaredError(), cx.PseudoHuber(0.3))
    batch = algorithm.batch(case.params, jnp.asarray(case.inputs), jnp.asarray(case.targets))
    update = jax.jit(algorithm.update)
    moved, first = update(algorithm.init(case.params), case.params, batch)
    _, second = update(first, optax.apply_updates(case.params, moved), batch)
    assert float(first.rule.scale) == pytest.approx(float(first.info.damping) / 0.1, rel=1e-12)
    assert float(second.rule.scale) == float(first.rule.scale)


def test_fixed_damping_is_a_floor():
    rng = np.random.default_rng(3)
    inputs, targets, theta = rng.normal(size=(9, 3)), rng.normal(size=(9, 1)), rng.normal(size=3)
    algorithm = _algorithm(_linear, cx.SquaredError(), cx.L2(), strength=0.1, damping=5.0)
    _, _, infos, _ = _run(algorithm, jnp.asarray(theta), jnp.asarray(inputs), jnp.asarray(targets))
    first = 0.1 * np.trace(inputs.T @ inputs / 9) / 9
    assert float(infos.damping[0]) == pytest.approx(first + 5.0, rel=1e-12)
    assert np.all(np.asarray(infos.damping) > 5.0)


def test_a_system_of_weight_zero_rows_has_the_scale_of_the_others():
    case = helpers.make_case("wide", "squared")
    batch = make_batch(cx.SquaredError(), jnp.asarray(case.inputs), case.targets, case.weights, 3, jnp.float64)
    flat, unravel = ravel_pytree(case.params)
    problem = LibraryProblem(case.model, cx.SquaredError(), cx.L2(), unravel)
    curvature = eqx.filter_jit(lambda batch: cx.Dual().prepare(build_system(problem, flat, batch)).curvature())
    scale = float(curvature(batch))
    padded = jax.tree.map(lambda x: jnp.concatenate([x, x[:4]]), batch)
    padded = padded._replace(weights=padded.weights.at[-4:].set(0.0))
    assert float(curvature(padded)) == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_synthetic_problem_is_solved_in_few_steps(seed):
    """A quarter of the paper's problem: 250 rows from a teacher of the same form. Loss below 1e-4 within 10 steps."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(250, 20))
    teacher = rng.normal(size=(20, 5)), rng.uniform(size=5)
    targets = (lambda z: z * helpers.sigmoid(z))(inputs @ teacher[0]) @ teacher[1] / np.sqrt(5)
    assert targets.std() > 0.3
    model = cx.TwoLayer(inputs=20, width=120)
    params = model.init(jax.random.key(seed))
    result = cx.train(
        model,
        cx.SquaredError(),
        cx.PseudoHuber(np.sqrt(120)),
        params,
        (jnp.asarray(inputs), jnp.asarray(targets)),
        strength=1e-6,
        max_steps=10,
        tolerance=0.0,
    )
    assert np.all(np.diff(result.history["objective"]) <= 0)
    assert result.history["loss"].min() < 1e-4, result.history["loss"]


def test_max_attempts_must_be_a_whole_number():
    with pytest.raises(ValueError, match=r"`TrustRegion\(max_attempts=0\)`: must be a whole number from 1 up"):
        cx.TrustRegion(max_attempts=0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_initial_damping_must_be_a_positive_number(value):
    with pytest.raises(ValueError, match=r"`TrustRegion\(initial_damping=.*must be a positive finite number"):
        cx.TrustRegion(initial_damping=value)
