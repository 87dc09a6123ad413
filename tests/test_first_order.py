"""Optax optimizers under `train`: against Adam in NumPy and the optimum that SciPy finds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import concordax as cx
import helpers
from concordax.history import FIELDS

ROWS = 20
MODEL = cx.MLP(inputs=2, widths=(4,))
PARTS = (MODEL, cx.SquaredError(), cx.L2())
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(ROWS, 2))
TARGETS = np.sin(2 * INPUTS[:, :1])
START = helpers.draw_params(MODEL, np.random.default_rng(1))
ADAM = optax.adam(1e-2)
OPTIONS = {"strength": 0.05, "tolerance": 0.0}


def _objective(flat):
    """F and its gradient at flat parameters, in plain NumPy."""
    layers = [(flat[:8].reshape(4, 2), flat[8:12]), (flat[12:16].reshape(1, 4), flat[16:])]
    outputs, jacobian = helpers.network(layers, INPUTS, helpers.scales_of(MODEL), "tanh")
    residual = outputs - TARGETS
    value = 0.5 * np.mean(np.sum(residual**2, axis=1)) + 0.025 * np.sum(flat**2)
    return float(value), np.asarray(np.einsum("nc,ncp->p", residual, jacobian) / ROWS + 0.05 * flat, float)


def test_five_steps_of_adam():
    result = cx.train(*PARTS, START, (INPUTS, TARGETS), optimizer=ADAM, max_steps=5, **OPTIONS)
    flat = np.asarray(helpers.flatten(START), float)
    first, second = np.zeros_like(flat), np.zeros_like(flat)
    objectives = []
    for step in range(1, 6):
        _, gradient = _objective(flat)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        flat = flat - 1e-2 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        objectives.append(_objective(flat)[0])
    np.testing.assert_allclose(helpers.flatten(result.params), flat, rtol=1e-10)
    np.testing.assert_allclose(result.history["objective"], objectives, rtol=1e-10)
    assert set(result.history) == set(FIELDS)
    assert {len(values) for values in result.history.values()} == {5}
    for name in ("damping", "decrement", "step_size", "noise", "effective_parameters", "validation_loss"):
        assert np.isnan(result.history[name]).all()
    assert result.history["accepted"].all()
    assert result.solver == "none: an optax optimizer solves no system"


def test_lbfgs_reaches_the_optimum_of_a_logistic_regression():
    """The optimum by Newton's method in plain NumPy."""
    model, labels = cx.MLP(inputs=2, widths=()), (INPUTS[:, 0] + 0.5 * RNG.normal(size=ROWS) > 0).astype(float)
    start = (cx.DenseLayer(jnp.zeros((1, 2)), jnp.zeros(1)),)
    result = cx.train(
        model, cx.BinaryCrossEntropy(), cx.L2(), start, (INPUTS, labels), strength=0.1, optimizer=optax.lbfgs(),
        max_steps=100, tolerance=1e-10,
    )  # fmt: skip
    assert result.status.succeeded
    assert len(result.history["loss"]) < 60
    features = np.concatenate([INPUTS / np.sqrt(2), np.ones((ROWS, 1))], axis=1)
    best = np.zeros(3)
    for _ in range(50):
        share = helpers.sigmoid(features @ best)
        gradient = features.T @ (share - labels) / ROWS + 0.1 * best
        hessian = (features.T * (share * (1 - share))) @ features / ROWS + 0.1 * np.eye(3)
        best = best - np.linalg.solve(hessian, gradient)
    np.testing.assert_allclose(helpers.flatten(result.params), best, atol=1e-5)


def test_batches_validation_callbacks_and_resumption():
    seen = []
    run = lambda **more: cx.train(
        *PARTS, more.pop("params", START), (INPUTS, TARGETS), optimizer=ADAM, validation=(INPUTS[:5], TARGETS[:5]),
        **{**OPTIONS, "max_steps": 6, **more},
    )  # fmt: skip
    result = run(batch_size=6, key=jax.random.key(0), callbacks=[lambda step, record: seen.append(record) or step == 4])
    assert result.status is cx.RunStatus.STOPPED_BY_CALLBACK
    assert len(seen) == 4
    assert np.isfinite(result.history["validation_loss"]).all()
    assert result.best_step == result.history["validation_loss"].argmin() + 1
    whole, half = run(), run(max_steps=3)
    rest = run(max_steps=3, params=half.params, state=half.state)
    np.testing.assert_array_equal(helpers.flatten(rest.params), helpers.flatten(whole.params))


def test_a_step_that_is_not_finite_changes_nothing():
    huge = optax.sgd(1e300)
    result = cx.train(*PARTS, START, (1e10 * INPUTS, 1e10 * TARGETS), optimizer=huge, max_steps=3, **OPTIONS)
    np.testing.assert_array_equal(helpers.flatten(result.params), helpers.flatten(START))
    assert set(result.history["status"]) == {cx.StepStatus.NONFINITE_TRIAL}
    assert result.status is cx.RunStatus.STALLED


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"solver": cx.Dual()}, ValueError, r"`train\(optimizer=..., solver=...\)`: `solver` belongs to Gauss-Newton"),
        ({"step": cx.TrustRegion()}, ValueError, r"`train\(optimizer=..., step=...\)`: `step` belongs to"),
        ({"damping": 0.1}, ValueError, r"`train\(optimizer=..., damping=...\)`: `damping` belongs to"),
        ({"strength": cx.Evidence()}, ValueError, r"no Gauss-Newton system that a strength could be estimated from"),
        ({"optimizer": "adam"}, TypeError, r"`train\(optimizer='adam'\)`: must be an optax optimizer"),
        ({"strength": -1.0}, ValueError, r"`strength=-1.0`: must be a positive finite number"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_apply_is_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        cx.train(*PARTS, START, (INPUTS, TARGETS), **{"optimizer": ADAM, "max_steps": 2, **OPTIONS, **options})
