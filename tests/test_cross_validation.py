"""Strengths by cross-validation, against dense references of the linearised model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.leave_one_out import at_minimum
from concordax.system import Problem, build_system, make_batch


def _prepared(loss, regularizer="l2", case_name="wide"):
    case = helpers.make_case(case_name, loss)
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, case.params))
    batch = make_batch(helpers.LOSSES[loss], case.inputs, case.targets, case.weights, case.targets.shape[1], flat.dtype)
    problem = Problem(case.model, helpers.LOSSES[loss], helpers.REGULARIZERS[regularizer], unravel)
    system = build_system(problem, flat, batch)
    return case, batch, system, cx.Dual().prepare(system)


@pytest.mark.parametrize("loss", ["squared", "pseudo-huber", "softmax", "binary"])
def test_outputs_at_the_minimum_of_the_linearised_model(loss):
    case, batch, system, prepared = _prepared(loss)
    tau = 0.01
    outputs, _ = at_minimum(system, prepared, helpers.LOSSES[loss], batch, jnp.asarray(tau))
    solution = cx.direction(
        case.model, helpers.LOSSES[loss], helpers.REGULARIZERS["l2"], case.params, case.inputs, case.targets,
        strength=tau, solver=cx.Primal(), weights=case.weights,
    )  # fmt: skip
    moved = jax.jvp(lambda p: case.model(p, jnp.asarray(case.inputs)), (case.params,), (solution.direction,))[1]
    expected = np.asarray(system.outputs + moved)
    found, present = np.asarray(outputs), np.asarray(case.weights) > 0
    if loss == "softmax":
        # The loss does not see a shift that all classes share.
        expected, found = (each - each.mean(axis=1, keepdims=True) for each in (expected, found))
    np.testing.assert_allclose(found[present], expected[present], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("rule", "loss"),
    [
        (cx.LeaveOneOut, "squared"),
        (cx.GeneralizedCrossValidation, "squared"),
        (cx.GeneralizedCrossValidation, "softmax"),
    ],
)
def test_an_update_goes_to_the_better_side(rule, loss):
    """From far below and far above, τ moves inwards, by at most the largest change."""
    _, batch, system, prepared = _prepared(loss, case_name="tall")
    strength = rule(wait=0)
    moves = []
    for tau in (1e-9, 1e4):
        state = strength.init(system.outputs.dtype)._replace(strength=jnp.asarray(tau))
        moves.append(float(strength.update(state, system, prepared, helpers.LOSSES[loss], batch).ratio))
    assert 1.0 < moves[0] <= 3.0 + 1e-12
    assert moves[1] < 1.0


def test_noise_of_a_robust_loss_forgets_outliers():
    """One row a million away moves σ² by less than a hundredth of what it moves that of squared error."""
    from concordax.evidence import noise_variance

    rng = np.random.default_rng(0)
    residual = 0.1 * rng.normal(size=(200, 1))
    far = residual.copy()
    far[0] = 1e6
    gamma = jnp.asarray(5.0)

    def noise(loss, outputs):
        batch = make_batch(loss, jnp.zeros((200, 1)), jnp.zeros((200, 1)), None, 1, jnp.asarray(outputs).dtype)
        return float(noise_variance(loss, jnp.asarray(outputs), batch, gamma))

    robust = cx.PseudoHuberLoss(0.2)
    assert noise(robust, far) < 1.1 * noise(robust, residual)
    assert noise(cx.SquaredError(), far) > 1e9
    assert noise(cx.SquaredError(), residual) == pytest.approx((residual**2).sum() / 195)
