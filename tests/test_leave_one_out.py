"""Leave-one-out scores against refits, and against one Newton step without the row, both in plain NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.evidence import judge
from concordax.leave_one_out import leave_one_out
from concordax.strength import initial_state
from concordax.system import Problem, build_system, make_batch

STRENGTH, NOISE = 1e-2, 0.3
SOLVERS = pytest.mark.parametrize("solver", [cx.Dual(), cx.Primal()], ids=["dual", "primal"])


@eqx.filter_jit
def _evaluate(problem, flat, batch, solver):
    system = build_system(problem, flat, batch)
    prepared = solver.prepare(system)
    leverage = prepared.leverage(prepared.factor(jnp.asarray(STRENGTH)))
    return leverage, leave_one_out(problem.loss, system.outputs, batch, leverage, jnp.asarray(NOISE))


def _library(model, loss, regularizer, params, inputs, targets, weights, solver):
    flat, unravel = ravel_pytree(params)
    batch = make_batch(
        loss, jnp.asarray(inputs), jnp.asarray(targets), jnp.asarray(weights), targets.shape[1], flat.dtype
    )
    return _evaluate(Problem(model, loss, regularizer, unravel), flat, batch, solver)


def _log_normal(error, covariance):
    return -0.5 * (error @ np.linalg.solve(covariance, error) + np.linalg.slogdet(2 * np.pi * covariance)[1])


@SOLVERS
@pytest.mark.parametrize("outputs", [1, 2])
def test_ridge_regression_equals_refits(outputs, solver):
    """Every row left out in turn, the rest fitted anew by the normal equations; outputs share their parameters."""
    rng = np.random.default_rng(outputs)
    n, p = 12, 7
    features = rng.normal(size=(n, outputs, p))
    targets = features @ rng.normal(size=p) + 0.3 * rng.normal(size=(n, outputs))
    rows, y = features.reshape(-1, p), targets.ravel()
    fitted = np.linalg.solve(rows.T @ rows / n + STRENGTH * np.eye(p), rows.T @ y / n)
    errors, spreads = [], []
    for i in range(n):
        others, there = np.delete(features, i, 0).reshape(-1, p), np.delete(targets, i, 0).ravel()
        curvature = others.T @ others / n + STRENGTH * np.eye(p)
        refit = np.linalg.solve(curvature, others.T @ there / n)
        spreads.append(NOISE * (np.eye(outputs) + features[i] @ np.linalg.solve(curvature, features[i].T) / n))
        errors.append(targets[i] - features[i] @ refit)
    expected = [_log_normal(error, spread) for error, spread in zip(errors, spreads, strict=True)]
    model = lambda params, x: x @ params
    args = (model, cx.SquaredError(), cx.L2(), jnp.asarray(fitted), features, targets, np.ones(n), solver)
    assert float(_library(*args)[1]) == pytest.approx(np.mean(expected), rel=1e-9)
    # Whoever judges a point far from the minimum takes the step to it first.
    anywhere = fitted + rng.normal(size=p)
    noise, judged = _judged(model, anywhere, features, targets, solver)
    shifted = [_log_normal(error, noise / NOISE * spread) for error, spread in zip(errors, spreads, strict=True)]
    assert judged == pytest.approx(np.mean(shifted), rel=1e-9)


@eqx.filter_jit
def _judge(problem, flat, batch, solver):
    system = build_system(problem, flat, batch)
    prepared, tau = solver.prepare(system), jnp.asarray(STRENGTH)
    state = initial_state(STRENGTH, 0, flat.dtype)
    return judge(state, system, prepared, prepared.complexity(tau), problem.loss, batch)


def _judged(model, params, features, targets, solver):
    """σ² and the left-out density as `Evidence` has them."""
    flat, unravel = ravel_pytree(jnp.asarray(params))
    loss, weights = cx.SquaredError(), jnp.ones(len(targets))
    batch = make_batch(loss, jnp.asarray(features), jnp.asarray(targets), weights, targets.shape[1], flat.dtype)
    state = _judge(Problem(model, loss, cx.L2(), unravel), flat, batch, solver)
    return float(state.noise_variance), float(state.leave_one_out)


@SOLVERS
@pytest.mark.parametrize(
    ("loss", "regularizer"), [("squared", "pseudo-huber 0.3"), ("softmax", "l2"), ("binary", "pseudo-huber 5")]
)
def test_network_equals_a_newton_step_without_the_row(loss, regularizer, solver):
    """With weights below, at and above 1: of a row of weight 2 one of two is left out, of one of 0.5 all there is."""
    case = helpers.make_case("tall", loss)
    reference, penalty = helpers.REFERENCE_LOSSES[loss], helpers.REFERENCE_REGULARIZERS[regularizer]
    outputs, jacobian = helpers.network(
        helpers.as_layers(case.params), case.inputs, helpers.scales_of(case.model), "tanh"
    )
    hessian, gradient = reference.hessian(outputs, case.targets), reference.gradient(outputs, case.targets)
    total = case.weights.sum()
    curvature = np.einsum("i,iap,iab,ibq->pq", case.weights / total, jacobian, hessian, jacobian, optimize=True)
    curvature += STRENGTH * np.diag(penalty.diagonal(helpers.flatten(case.params)))
    expected = 0.0
    for i, weight in enumerate(case.weights):
        unit = min(weight, 1.0) / total
        without = curvature - unit * jacobian[i].T @ hessian[i] @ jacobian[i]
        moved = outputs[i] + unit * jacobian[i] @ np.linalg.solve(without, jacobian[i].T @ gradient[i])
        if loss == "squared":
            spread = NOISE * (np.eye(3) + unit * jacobian[i] @ np.linalg.solve(without, jacobian[i].T))
            expected += weight * _log_normal(case.targets[i] - moved, spread) / total
        else:
            expected -= weight * reference.value(moved[None], case.targets[i : i + 1])[0] / total
    leverage, score = _library(
        case.model, helpers.LOSSES[loss], helpers.REGULARIZERS[regularizer], case.params,
        case.inputs, case.targets, case.weights, solver,
    )  # fmt: skip
    assert float(score) == pytest.approx(expected, rel=1e-9)
    # γ = tr K (K + τI)⁻¹ is the sum of the leverages.
    gamma = np.trace(
        np.linalg.solve(curvature, curvature - STRENGTH * np.diag(penalty.diagonal(helpers.flatten(case.params))))
    )
    assert float(jnp.einsum("naa->", leverage)) == pytest.approx(gamma, rel=1e-9)


def test_a_row_of_weight_two_is_the_row_twice():
    case = helpers.make_case("wide", "softmax")
    parts = (case.model, helpers.LOSSES["softmax"], cx.L2(), case.params)
    twice = np.concatenate([np.arange(9), [4]])
    weights = np.ones(9)
    weights[4] = 2.0
    once = _library(*parts, case.inputs, case.targets, weights, cx.Dual())[1]
    both = _library(*parts, case.inputs[twice], case.targets[twice], np.ones(10), cx.Dual())[1]
    assert float(once) == pytest.approx(float(both), rel=1e-10)


def test_leverage_over_several_chunks(monkeypatch):
    monkeypatch.setattr("concordax.jacobians.base.CHUNK_ELEMENTS", 3 * 45 * 7)
    case = helpers.make_case("tall", "binary")
    flat, unravel = ravel_pytree(case.params)
    batch = make_batch(helpers.LOSSES["binary"], jnp.asarray(case.inputs), case.targets, case.weights, 3, flat.dtype)
    system = build_system(Problem(case.model, helpers.LOSSES["binary"], cx.L2(), unravel), flat, batch)
    assert jax.tree.leaves(system.jacobian.in_chunks())[0].shape[:2] == (6, 7)
    primal, dual = (solver.prepare(system) for solver in (cx.Primal(), cx.Dual()))
    np.testing.assert_allclose(
        primal.leverage(primal.factor(jnp.asarray(STRENGTH))),
        dual.leverage(dual.factor(jnp.asarray(STRENGTH))),
        atol=1e-12,
    )


def test_a_row_that_alone_fixes_a_direction_gives_no_nan():
    """Leverage 1 to the last bit: the density is nothing, a large negative number."""
    score = leave_one_out(
        cx.SquaredError(),
        jnp.array([[1.0], [2.0]]),
        make_batch(cx.SquaredError(), jnp.zeros((2, 1)), jnp.array([[1.5], [2.5]]), None, 1, jnp.float64),
        jnp.array([[[1.0]], [[0.5]]]),
        jnp.asarray(0.1),
    )
    assert np.isfinite(score)
    assert score < -1e10
