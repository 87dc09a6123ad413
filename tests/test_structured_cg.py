"""Conjugate gradients through the layers: the dual's direction in few iterations, and the hand-over."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.solvers import structured_cg
from concordax.system import Problem, build_system, make_batch


def _system(model, loss, regularizer, rows=40, seed=0, dtype=jnp.float64):
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: x.astype(dtype), helpers.draw_params(model, rng))
    inputs = jnp.asarray(rng.normal(size=(rows, model.inputs)), dtype)
    outputs = jax.eval_shape(model, params, inputs).shape[1]
    targets = helpers.draw_targets(
        "softmax" if isinstance(loss, cx.SoftmaxCrossEntropy) else "squared", rng, rows, outputs
    )
    flat, unravel = ravel_pytree(params)
    batch = make_batch(loss, inputs, jnp.asarray(targets), None, outputs, dtype)
    return build_system(Problem(model, loss, regularizer, unravel), flat, batch)


@eqx.filter_jit
def _solve(solver, system, strength, damping):
    return solver.prepare(system).solve(strength, damping)


def solve(solver, system, strength=1e-4, damping=0.0):
    dtype = system.residual.dtype
    return _solve(solver, system, jnp.asarray(strength, dtype), jnp.asarray(damping, dtype))


MODELS = {
    "two layers": (cx.TwoLayer(5, 60), cx.SquaredError()),
    "deep": (cx.MLP(4, (20, 15, 10)), cx.SquaredError()),
    "three outputs": (cx.MLP(4, (30,), 3), cx.SquaredError()),
    "softmax": (cx.MLP(4, (30,), 3), cx.SoftmaxCrossEntropy()),
}


@pytest.mark.parametrize("name", MODELS)
def test_direction_and_by_products_are_those_of_the_dual(name):
    system = _system(*MODELS[name], cx.PseudoHuber(3.0))
    expected, found = solve(cx.Dual(), system), solve(cx.StructuredCG(), system)
    assert helpers.relative_error(found.direction, expected.direction) < 1e-9
    assert bool(found.status)
    assert bool(found.stats.converged)
    assert not bool(found.stats.handed_over)
    assert 1 <= int(found.stats.iterations) <= 15
    np.testing.assert_allclose(found.image, expected.image, atol=1e-9 * float(jnp.abs(expected.image).max()))
    assert float(found.decrement) == pytest.approx(float(expected.decrement), rel=1e-10)


def test_structured_gram_is_exact_for_products():
    """Curvatures d_ij = a_i b_j in each layer, which no penalty here has: K̃ = K to the digits of a fit in float32."""
    system = _system(*MODELS["deep"], cx.PseudoHuber(3.0))
    rng = np.random.default_rng(1)
    pieces = [
        layer.flat(jnp.asarray(np.exp(np.add.outer(*(rng.normal(size=d) for d in layer.matrix_shape)))))
        for layer in system.jacobian.layers
    ]
    metric = eqx.tree_at(lambda m: m.inverse, system.metric, jnp.concatenate(pieces))
    jacobian = system.jacobian
    exact = jacobian.rows() * jnp.sqrt(metric.inverse)
    np.testing.assert_allclose(
        np.triu(jacobian.structured_gram(metric)), np.triu(exact @ exact.T), rtol=1e-6, atol=1e-8
    )
    # Otherwise it is not, or there would be nothing to iterate.
    other = jacobian.rows() * jnp.sqrt(system.metric.inverse)
    gap = np.triu(jacobian.structured_gram(system.metric) - other @ other.T)
    assert np.abs(gap).max() > 1e-4 * np.abs(other @ other.T).max()


def test_l2_needs_no_iterations():
    system = _system(*MODELS["softmax"], cx.L2())
    found = solve(cx.StructuredCG(single=False), system, strength=1e-3)
    assert int(found.stats.iterations) == 0
    assert helpers.relative_error(found.direction, solve(cx.Dual(), system, strength=1e-3).direction) < 1e-9


def test_hands_over_where_the_budget_does_not_suffice():
    system = _system(*MODELS["two layers"], cx.PseudoHuber(0.05))
    expected = solve(cx.Dual(), system)
    found = solve(cx.StructuredCG(max_iterations=2), system)
    assert int(found.stats.iterations) == 2
    assert bool(found.stats.handed_over)
    assert helpers.relative_error(found.direction, expected.direction) < 1e-9
    alone = solve(cx.StructuredCG(max_iterations=2).alone, system)
    assert not bool(alone.stats.converged)
    assert not bool(alone.stats.handed_over)
    assert helpers.relative_error(alone.direction, expected.direction) > 1e-6


@pytest.mark.combinations
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("strength", "damping"), [(1e-5, 0.0), (1e-2, 0.0), (1e-4, 1e2), (1e-4, 1e4), (1e-4, 1e6)])
def test_a_factor_in_float32_gives_the_same_direction(name, strength, damping):
    """From t far below K, where float32 holds few digits of the factor, to far above, where t M⁻¹ s is nearly s."""
    system = _system(*MODELS[name], cx.PseudoHuber(3.0))
    expected = solve(cx.Dual(), system, strength, damping)
    found = solve(cx.StructuredCG(max_iterations=300, single=True).alone, system, strength, damping)
    assert bool(found.stats.converged)
    assert found.direction.dtype == jnp.float64
    assert helpers.relative_error(found.direction, expected.direction) < 1e-9
    # One that is not polished would have the digits of float32.
    assert int(found.stats.iterations) >= 1


def test_what_stands_behind():
    solver = cx.StructuredCG(1e-9, 7)
    assert solver.backup == cx.StructuredCG(1e-9, 7, single=False)
    assert solver.backup.backup == solver.direct == cx.Dual()
    assert solver.alone == cx.StructuredCG(1e-9, 7, hand_over=False)
    assert cx.Dual().backup == cx.Dual().alone == cx.Dual()


def test_an_unfinished_direction_states_its_own_decrease():
    """What an unfinished solve promises is what the quadratic model does there: the slack is accounted for."""
    strength = 1e-3
    system = _system(*MODELS["two layers"], cx.PseudoHuber(0.05))
    found = solve(cx.StructuredCG(max_iterations=2).alone, system, strength, damping=0.1)
    delta = np.asarray(found.direction)
    w = np.asarray(system.jacobian.rows())
    gradient = w.T @ np.asarray(system.residual).ravel() + strength * np.asarray(system.gradient)
    hessian = w.T @ w + strength * np.diag(1 / np.asarray(system.metric.inverse))
    promised = -(gradient @ delta + 0.5 * delta @ hessian @ delta)
    assert float(found.predicted_decrease(jnp.asarray(strength))) == pytest.approx(promised, rel=1e-9)
    assert float(found.decrement) ** 2 == pytest.approx(-gradient @ delta, rel=1e-9)
    assert abs(float(found.slack)) > 1e-9 * promised


def test_float32():
    system = _system(*MODELS["softmax"], cx.PseudoHuber(3.0), dtype=jnp.float32)
    found, expected = solve(cx.StructuredCG(), system), solve(cx.Dual(), system)
    assert found.direction.dtype == jnp.float32
    assert bool(found.stats.converged)
    assert helpers.relative_error(found.direction, expected.direction) < 1e-3


def test_complexity_of_a_small_system_is_exact():
    system, tau = _system(*MODELS["three outputs"], cx.PseudoHuber(3.0)), jnp.asarray(1e-2)
    exact, found = (solver.prepare(system).complexity(tau) for solver in (cx.Dual(), cx.StructuredCG()))
    np.testing.assert_allclose(found.leverage, exact.leverage, atol=1e-12)
    assert float(found.log_determinant) == pytest.approx(float(exact.log_determinant), rel=1e-12)


def test_complexity_is_near_the_exact_one(monkeypatch):
    monkeypatch.setattr(structured_cg, "_CHEAP", 0.0)
    system = _system(*MODELS["three outputs"], cx.PseudoHuber(3.0))
    tau = jnp.asarray(1e-2)
    exact, found = (solver.prepare(system).complexity(tau) for solver in (cx.Dual(), cx.StructuredCG()))
    assert float(found.effective_parameters) == pytest.approx(float(exact.effective_parameters), rel=2e-2)
    assert float(found.log_determinant) == pytest.approx(float(exact.log_determinant), rel=2e-2)
    flat = _system(*MODELS["three outputs"], cx.L2())
    exact, found = (solver.prepare(flat).complexity(tau) for solver in (cx.Dual(), cx.StructuredCG()))
    np.testing.assert_allclose(found.leverage, exact.leverage, atol=1e-12)


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": float("nan")}, {"max_iterations": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cx.StructuredCG(**options)


def test_other_models_are_refused_by_name():
    x = jnp.ones((4, 2))
    with pytest.raises(TypeError, match="LayeredModel"):
        cx.direction(
            lambda w, x: x @ w, cx.SquaredError(), cx.L2(), jnp.ones((2, 1)), x, x[:, :1],
            strength=1e-3, solver=cx.StructuredCG(),
        )  # fmt: skip


PARTS = (cx.TwoLayer(5, 30), cx.SquaredError(), cx.PseudoHuber(0.02))


def _train(solver, **options):
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(25, 5))
    data = (inputs, np.sin(inputs[:, :1]))
    start = helpers.draw_params(PARTS[0], rng)
    # Without the bending, which conjugate gradients follow by their preconditioner alone.
    options = {"step": cx.TrustRegion(corrections=0), **options}
    return cx.train(*PARTS, start, data, strength=1e-4, solver=solver, max_steps=8, tolerance=0.0, **options)


def test_training_is_the_same_whichever_way():
    dual, structured = _train(cx.Dual()), _train(cx.StructuredCG())
    np.testing.assert_allclose(structured.history["objective"], dual.history["objective"], rtol=1e-7)
    assert structured.history["solver_iterations"].min() > 0
    assert structured.history["handed_over"].max() == dual.history["solver_iterations"].max() == 0


def test_training_goes_on_with_a_program_that_manages(monkeypatch):
    # A budget that the factor in full precision meets: nothing is handed over behind it, and it stays.
    hasty = cx.StructuredCG(max_iterations=1, hand_over=False)
    monkeypatch.setattr(cx.StructuredCG, "alone", property(lambda _: hasty))
    dual, run = _train(cx.Dual()), _train(cx.StructuredCG(single=True))
    np.testing.assert_allclose(run.history["objective"], dual.history["objective"], rtol=1e-7)
    # The first step's metric is a multiple of I, of which K̃ is exact.
    np.testing.assert_array_equal(run.history["handed_over"], [0, 1, 1, 1, 1, 1, 1, 1])
    assert run.history["solver_iterations"].min() > 0


def test_training_hands_over_step_by_step_and_then_for_good():
    dual, short = _train(cx.Dual()), _train(cx.StructuredCG(max_iterations=1))
    np.testing.assert_allclose(short.history["objective"], dual.history["objective"], rtol=1e-10)
    # In the metric of the first step, a multiple of I, K̃ is exact.
    np.testing.assert_array_equal(short.history["handed_over"], [0, 1, 1, 1, 1, 1, 1, 1])
    # In three steps both programs have spent their budget, in three more the second, and then the exact one is alone.
    iterations, attempts = short.history["solver_iterations"], short.history["attempts"]
    assert (iterations[1:4] > attempts[1:4]).all()
    np.testing.assert_array_equal(iterations[4:7], attempts[4:7])
    np.testing.assert_array_equal(iterations[7:], 0)


@pytest.mark.parametrize("place", ["residual", "gradient"])
def test_a_direction_that_is_not_finite_is_not_used(place):
    """K is finite and its factor in order; what is wrong stands on the right."""
    system = _system(cx.TwoLayer(5, 60), cx.SquaredError(), cx.PseudoHuber(3.0))
    broken = eqx.tree_at(lambda s: getattr(s, place), system, getattr(system, place).at[0].set(jnp.nan))
    found = solve(cx.StructuredCG(hand_over=False), broken)
    assert not bool(found.status)
    assert np.all(np.asarray(found.direction) == 0)
    assert np.isfinite(found.decrement)
