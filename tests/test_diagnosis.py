"""Each signature by a real run that provokes it, and healthy runs that show none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
from concordax.diagnosis import Severity

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
Y = np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=60)
NEW_X = RNG.normal(size=(60, 2))
NEW_Y = np.sin(2 * NEW_X[:, 0]) + 0.1 * RNG.normal(size=60)
MODEL = cx.MLP(inputs=2, widths=(12,))


SQUARED, RIDGE = cx.SquaredError(), cx.L2()


def run(
    x=X, y=Y, *, model=MODEL, loss=SQUARED, regularizer=RIDGE, scale=1.0, shift=0.0, start=None, dtype=float, **options
):
    start = model.init(jax.random.key(0)) if start is None else start
    start = jax.tree.map(lambda leaf: jnp.asarray(scale * leaf + shift, dtype), start)
    options = {"strength": 1e-3, "max_steps": 60} | options
    return cx.train(model, loss, regularizer, start, (x, y), **options)


def found(result, name):
    """The finding of that name, which must be there, readable and with finite numbers."""
    diagnosis = cx.explain(result)
    assert name in diagnosis.names, diagnosis
    finding = next(finding for finding in diagnosis if finding.name == name)
    assert finding.meaning
    assert finding.change
    assert all(isinstance(value, int | float) and np.isfinite(value) for value in finding.evidence.values())
    assert str(finding) in str(diagnosis)
    return finding


HEALTHY = {
    "plain": {},
    "evidence": {"strength": cx.Evidence()},
    "validation": {"validation": (NEW_X, NEW_Y)},
    "pseudo-huber": {"regularizer": cx.PseudoHuber(12**0.5)},
    "single": {"dtype": jnp.float32},
    "relu": {"model": cx.MLP(inputs=2, widths=(12,), activation="relu"), "max_steps": 300},
    "classes": {"y": (Y > 0).astype(float), "loss": cx.BinaryCrossEntropy()},
    "fixed": {"step": cx.FixedStep(0.5), "damping": 0.03, "max_steps": 200},
    "cg": {"solver": cx.StructuredCG(), "regularizer": cx.PseudoHuber(1.0)},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_shows_nothing(name):
    diagnosis = cx.explain(run(**HEALTHY[name]))
    assert diagnosis == ()
    assert not diagnosis
    assert not diagnosis.serious
    assert str(diagnosis) == repr(diagnosis) == "Nothing wrong was found."


def test_mini_batches_and_any_callable_can_be_explained():
    line = lambda w, x: x["a"] @ w[:1] + x["b"] @ w[1:]
    rows = {"a": X[:, :1], "b": X[:, 1:]}
    start = jnp.zeros((2, 1))
    result = run(rows, Y, model=line, start=start, batch_size=20, key=jax.random.key(0), max_steps=30)
    assert cx.explain(result) == ()


def test_not_finite():
    finding = found(run(shift=np.nan), "not finite")
    assert finding.severity == Severity.SERIOUS
    assert finding.evidence["parameters that are not finite"] == 49
    assert "Start from finite parameters" in finding.change
    # Finite data and parameters that overflow: the numbers say where.
    finding = found(run(1e200 * X, model=cx.MLP(inputs=2, widths=(12,), activation="silu")), "not finite")
    assert finding.evidence["parameters that are not finite"] == 0
    assert finding.evidence["largest input"] == pytest.approx(1e200 * np.abs(X).max())
    assert "Scale inputs" in finding.change


def test_rising_objective():
    result = run(step=cx.FixedStep(2.5), strength=1e-6, max_steps=8)
    finding = found(result, "rising objective")
    objective = result.history["objective"]
    assert finding.evidence["steps that rose"] == np.sum(objective[1:] > 1.01 * objective[:-1]) > 0
    assert finding.severity == Severity.SERIOUS
    assert "TrustRegion" in finding.change


def test_rejected_steps():
    result = run(step=cx.TrustRegion(1, initial_damping=1e-9), strength=1e-9, max_steps=30)
    refused = np.sum(result.history["accepted"] == 0)
    assert found(result, "rejected steps").evidence["rejected"] == refused > 0
    # Outputs that overflow one step away.
    steep = lambda w, x: jnp.exp(jnp.exp(w * (1 + 0 * x[:, :1])))
    result = run(y=np.full(60, 1e8), model=steep, start=jnp.full((), 1.0), step=cx.FixedStep(1.0), strength=1e-9)
    finding = found(result, "rejected steps")
    assert finding.severity == Severity.SERIOUS
    assert finding.evidence["not finite"] == len(result.history["loss"]) == 3
    assert "TrustRegion" in finding.change


@pytest.mark.parametrize(("activation", "scale", "shift"), [("tanh", 1000.0, 0.0), ("relu", 0.0, -1.0)])
def test_flat_gradient(activation, scale, shift):
    # Saturated on both sides, until the penalty has shrunk the weights; and, for relu, off on all rows.
    model = cx.MLP(inputs=2, widths=(12,), activation=activation)
    x = X if activation == "tanh" else np.abs(X)
    finding = found(run(x, model=model, scale=scale, shift=shift, max_steps=1), "flat gradient")
    assert finding.severity == Severity.SERIOUS
    assert activation in finding.meaning


def test_scales_of_inputs():
    x = X * np.array([1.0, 1e-4])
    assert found(run(x), "scales of inputs").evidence["smallest"] == pytest.approx(np.sqrt((x[:, 1] ** 2).mean()))
    assert found(run(X + 1000), "scales of inputs").evidence["largest root mean square"] > 900


def test_strength_too_large():
    finding = found(run(strength=100.0), "strength too large")
    assert finding.severity == Severity.SERIOUS
    assert finding.evidence["effective parameters"] < 1


def test_constant_outputs():
    zero = found(run(scale=0.0), "constant outputs")
    assert zero.evidence["median weight"] == 0
    assert "strength alone would not change that" in zero.meaning
    noise = np.random.default_rng(2).normal(size=60)
    assert "look like noise" in found(run(y=noise, strength=cx.Evidence()), "constant outputs").meaning


def test_strength_too_small():
    result = run(X[:15], Y[:15], strength=1e-9, validation=(NEW_X, NEW_Y))
    finding = found(result, "strength too small")
    assert finding.severity == Severity.WARNING
    assert finding.evidence["lowest validation loss"] == result.history["validation_loss"].min()
    # Without rows to check, from the effective parameters alone.
    finding = found(run(X[:15], Y[:15], strength=1e-9), "strength too small")
    assert finding.severity == Severity.NOTE
    assert 14.5 < finding.evidence["effective parameters"] <= 15


def test_short_steps():
    published = run(step=cx.PublishedStep(), regularizer=cx.PseudoHuber(1e-3), strength=1.0, max_steps=10)
    finding = found(published, "short steps")
    assert finding.evidence["median step size"] == np.median(published.history["step_size"]) < 0.05
    assert "M η" in finding.meaning
    assert "FixedStep(0.01)" in found(run(step=cx.FixedStep(0.01)), "short steps").meaning


def test_solver_missing_its_tolerance():
    solver = cx.StructuredCG(max_iterations=1)
    result = run(solver=solver, regularizer=cx.PseudoHuber(0.05), max_steps=10, strength=1e-6)
    finding = found(result, "solver missing its tolerance")
    assert finding.evidence["handed over"] == np.sum(result.history["handed_over"]) > 1


def test_smoothing_far_from_the_weights():
    above = found(run(regularizer=cx.PseudoHuber(1e3)), "smoothing above the weights")
    assert above.severity == Severity.NOTE
    result = run(regularizer=cx.PseudoHuber(1e-3), strength=1e-6)
    below = found(result, "smoothing below the weights")
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(result.best_params)])
    assert below.evidence["median weight"] == pytest.approx(np.median(np.abs(flat)))


def test_digits_lost():
    finding = found(run(dtype=jnp.float32, strength=1e-9), "digits lost")
    assert "jax_enable_x64" in finding.change
    assert finding.evidence["gain that the undamped model promises"] > finding.evidence["rounding of the objective"]
    assert found(run(strength=1e-18), "digits lost").change.startswith("Use a larger strength")


def test_unfinished():
    result = run(max_steps=3)
    assert found(result, "unfinished").severity == Severity.NOTE
    assert result.status == cx.RunStatus.MAX_STEPS


def test_the_most_important_comes_first():
    diagnosis = cx.explain(run(1e3 * X, scale=1e3, max_steps=3, regularizer=cx.PseudoHuber(1e9)))
    assert len(diagnosis) >= 3
    severities = [finding.severity for finding in diagnosis]
    assert severities == sorted(severities, reverse=True)
    assert diagnosis.serious
    assert str(diagnosis).startswith("serious: flat gradient\n")
    assert max(len(line) for line in str(diagnosis).splitlines()) <= 98


def test_a_result_that_knows_nothing_of_its_run_is_refused():
    with pytest.raises(ValueError, match="one of `train`"):
        cx.explain(run(max_steps=1)._replace(setup=None))
