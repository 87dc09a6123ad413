"""Geodesic acceleration of the trust region against dense NumPy, and the second derivative against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.optimizer import make_algorithm
from concordax.system import Problem, make_batch


def _outputs(case, flat):
    """The network's outputs at flat parameters, by NumPy."""
    layers, begin = [], 0
    for weight, bias in helpers.as_layers(case.params):
        middle, end = begin + weight.size, begin + weight.size + bias.size
        layers.append((flat[begin:middle].reshape(weight.shape), flat[middle:end]))
        begin = end
    return helpers.network(layers, case.inputs, helpers.scales_of(case.model), "tanh")


def _second_difference(case, flat, direction, h=1e-3):
    """d²f(θ + sδ)/ds², to fourth order in h."""
    at = {k: _outputs(case, flat + k * h * direction)[0] for k in (-2, -1, 0, 1, 2)}
    return (-at[-2] + 16 * at[-1] - 30 * at[0] + 16 * at[1] - at[2]) / (12 * h**2)


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_bend_is_the_whitened_second_difference(loss):
    case = helpers.make_case("tall", loss)
    flat, unravel = ravel_pytree(case.params)
    direction = np.random.default_rng(5).normal(size=flat.size)
    problem = Problem(case.model, helpers.LOSSES[loss], cx.L2(), unravel)
    batch = make_batch(helpers.LOSSES[loss], jnp.asarray(case.inputs), case.targets, case.weights, 3, jnp.float64)
    found = jax.jit(problem.bend)(flat, batch, jnp.asarray(direction))
    second = _second_difference(case, np.asarray(flat), direction)
    factor, _ = helpers.REFERENCE_LOSSES[loss].factor(_outputs(case, np.asarray(flat))[0], case.targets)
    share = np.sqrt(case.weights / case.weights.sum())
    expected = share[:, None] * np.einsum("nck,nc->nk", factor, second)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_array_equal(found[3], 0.0)


@pytest.mark.parametrize("problem", helpers.PROBLEMS)
def test_step_is_that_of_dense_numpy(problem):
    """δ + ½a where 2‖½a‖ ≤ 0.75‖δ‖ in the metric of the damped step, else δ; over dampings on both sides of it."""
    case = helpers.make_case(problem, "squared")
    flat, penalty = helpers.flatten(case.params), helpers.REFERENCE_REGULARIZERS["pseudo-huber 0.3"]
    strength, followed = 1e-3, []
    algorithm = make_algorithm(
        case.model, cx.SquaredError(), cx.PseudoHuber(0.3), strength=strength, damping=0.0,
        solver=cx.Dual() if problem == "wide" else cx.Primal(), step=cx.TrustRegion(1, geodesic=True),
    )  # fmt: skip
    batch, update = algorithm.batch(case.params, case.inputs, case.targets, case.weights), jax.jit(algorithm.update)
    outputs, jacobian = _outputs(case, flat)
    share = case.weights / case.weights.sum()
    gradient = np.einsum("n,nkp,nk->p", share, jacobian, outputs - case.targets) + strength * penalty.gradient(flat)
    curvature = np.einsum("n,nkp,nkq->pq", share, jacobian, jacobian)
    for damping in (0.003, 0.03, 0.3, 1.0):
        # The damping is in the metric that the penalty has at 0, I/μ.
        metric = strength * penalty.diagonal(flat) + damping / 0.3
        norm = lambda x, metric=metric: np.sqrt((metric * x**2).sum())
        matrix = curvature + np.diag(metric)
        delta = -np.linalg.solve(matrix, gradient)
        bend = np.einsum("n,nkp,nk->p", share, jacobian, _second_difference(case, flat, delta))
        half = -0.5 * np.linalg.solve(matrix, bend)
        follow = 2 * norm(half) <= 0.75 * norm(delta)
        followed.append(follow)
        state = algorithm.init(case.params)
        state = state._replace(rule=state.rule._replace(next_damping=jnp.asarray(damping)))
        updates, state = update(state, case.params, batch)
        if not bool(state.info.accepted):
            continue
        expected = delta + half if follow else delta
        assert helpers.relative_error(helpers.flatten(updates), expected) < 1e-6
        assert helpers.relative_error(delta + half, delta) > 1e-3
        assert float(state.info.new_objective) < float(state.info.objective)
    assert any(followed)


def test_it_is_off_unless_asked_for():
    assert not cx.TrustRegion().geodesic
