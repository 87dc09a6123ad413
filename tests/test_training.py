"""`train`: history, stopping, validation, callbacks, interrupts, mini-batches, equal bits, and errors that help."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from compilations import compiled_steps
from concordax._types import Batch
from concordax.batches import Batches
from concordax.history import FIELDS
from concordax.stopping import StoppingRule

ROWS = 20
MODEL = cx.MLP(inputs=2, widths=(8,))
PARTS = (MODEL, cx.SquaredError(), cx.L2())


def _data(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, 2))
    targets = np.sin(2 * inputs[:, :1]) + 0.3 * rng.normal(size=(rows, 1))
    assert targets.std() > 0.3
    return jnp.asarray(inputs), jnp.asarray(targets)


def _start(seed=0):
    return helpers.draw_params(MODEL, np.random.default_rng(100 + seed))


def _train(params=None, data=None, **options):
    options = {"strength": 1e-3, "max_steps": 5, "tolerance": 0.0, **options}
    return cx.train(*PARTS, _start() if params is None else params, _data() if data is None else data, **options)


def _loss(params, data, strength=0.0):
    outputs, _ = helpers.network(helpers.as_layers(params), np.asarray(data[0]), helpers.scales_of(MODEL), "tanh")
    return (
        0.5 * ((outputs - np.asarray(data[1])) ** 2).sum(axis=1).mean()
        + strength * 0.5 * (helpers.flatten(params) ** 2).sum()
    )


def test_history():
    result = _train()
    assert set(result.history) == set(FIELDS)
    assert {len(values) for values in result.history.values()} == {5}
    assert result.status is cx.RunStatus.MAX_STEPS
    assert "max_steps" in result.status.message
    history = result.history
    # Loss and objective are those after the step.
    assert history["loss"][-1] == pytest.approx(_loss(result.params, _data()), rel=1e-12)
    assert history["objective"][-1] == pytest.approx(_loss(result.params, _data(), 1e-3), rel=1e-12)
    assert np.all(np.diff(history["seconds"]) > 0)
    assert np.all(np.diff(history["objective"]) <= 0)
    assert np.all(history["strength"] == 1e-3)
    assert np.isnan(history["validation_loss"]).all()
    assert np.all(history["attempts"] >= 1)


def test_stops_when_converged_and_finds_the_minimum():
    model = cx.MLP(inputs=2, widths=())
    inputs, targets = _data()
    params = (cx.DenseLayer(jnp.ones((1, 2)), jnp.ones(1)),)
    result = cx.train(model, *PARTS[1:], params, (inputs, targets), strength=0.1, max_steps=100, tolerance=1e-6)
    assert result.status in (cx.RunStatus.STATIONARY, cx.RunStatus.CONVERGED)
    assert result.status.succeeded
    assert len(result.history["loss"]) < 30
    features = np.concatenate([np.asarray(inputs) / np.sqrt(2), np.ones((ROWS, 1))], axis=1)
    best = np.linalg.solve(
        features.T @ features / ROWS + 0.1 * np.eye(3), features.T @ np.asarray(targets)[:, 0] / ROWS
    )
    np.testing.assert_allclose(helpers.flatten(result.params), best, atol=1e-5)


def _record(status=0, decrement=1.0, strength=1.0):
    return {"status": float(status), "decrement": decrement, "strength": strength}


def test_stopping_rule_converges_after_three_small_decreases():
    rule = StoppingRule(1e-2)
    falls = [(1.0, 0.995), (0.995, 0.99), (0.99, 0.9), (0.9, 0.899), (0.899, 0.898), (0.898, 0.897)]
    assert [rule.observe(_record(), *fall) for fall in falls] == [None] * 5 + [cx.RunStatus.CONVERGED]


def test_stopping_rule_decrement():
    assert StoppingRule(1e-2).observe(_record(decrement=1.5e-2), 2.0, 1.0) is None
    assert StoppingRule(1e-2).observe(_record(decrement=1.4e-2), 2.0, 1.0) is cx.RunStatus.STATIONARY


@pytest.mark.parametrize(
    ("status", "end"),
    [
        (cx.StepStatus.REJECTED, cx.RunStatus.STALLED),
        (cx.StepStatus.NONFINITE_TRIAL, cx.RunStatus.STALLED),
        (cx.StepStatus.FACTORIZATION_FAILED, cx.RunStatus.FACTORIZATION_FAILED),
    ],
)
def test_stopping_rule_gives_up_after_three_failures(status, end):
    rule = StoppingRule(1e-6)
    bad, good = _record(status), _record()
    outcomes = [rule.observe(record, 2.0, 1.0) for record in (bad, bad, good, bad, bad, bad)]
    assert outcomes == [None] * 5 + [end]
    assert not end.succeeded


def test_stopping_rule_at_once():
    assert StoppingRule(1e-6).observe(_record(cx.StepStatus.NONFINITE_START), 1.0, 1.0) is cx.RunStatus.NONFINITE
    assert StoppingRule(1e-6).observe(_record(cx.StepStatus.STATIONARY), 1.0, 1.0) is cx.RunStatus.STATIONARY


def test_stopping_rule_waits_for_the_strength():
    rule = StoppingRule(1.0)
    settled = [False, True, True, False, True, True, True]
    outcomes = [rule.observe(_record(decrement=9.0), 1.0, 1.0, settled=each) for each in settled]
    assert outcomes == [None] * 6 + [cx.RunStatus.CONVERGED]
    stationary = _record(cx.StepStatus.STATIONARY)
    assert StoppingRule(1.0).observe(stationary, 1.0, 1.0, settled=False) is None
    assert StoppingRule(1.0).observe(_record(decrement=0.0), 1.0, 1.0, settled=False) is None


def test_tolerance_zero_never_stops_early():
    assert _train(max_steps=25).status is cx.RunStatus.MAX_STEPS
    assert len(_train(max_steps=25, tolerance=1e-3, step=cx.TrustRegion(corrections=0)).history["loss"]) < 25


def test_validation_chooses_best_params():
    held_out = _data(seed=9)
    result = _train(max_steps=15, validation=held_out, strength=1e-6)
    losses = result.history["validation_loss"]
    assert losses[-1] == pytest.approx(_loss(result.params, held_out), rel=1e-12)
    assert losses.min() == pytest.approx(_loss(result.best_params, held_out), rel=1e-12)
    assert result.best_step == losses.argmin() + 1
    # The run overfits, so that best and last differ: else this would test nothing.
    assert result.best_step < len(losses)
    assert losses[-1] > 1.01 * losses.min()


def test_without_validation_the_lowest_objective_is_best():
    result = _train()
    assert result.best_step == np.flatnonzero(result.history["objective"] == result.history["objective"].min())[0] + 1
    assert _loss(result.best_params, _data(), 1e-3) == pytest.approx(result.history["objective"].min(), rel=1e-12)


def test_the_score_of_the_strength_chooses_best_params_and_ends_the_run():
    """A wide network on few noisy rows: the fixed point drifts on, the score turns."""
    data, model = _data(rows=30), cx.MLP(inputs=2, widths=(40,))
    start = model.init(jax.random.key(0))
    run = lambda **options: cx.train(model, *PARTS[1:], start, data, strength=cx.Evidence(), **options)
    result = run(max_steps=80, tolerance=1e-9)
    assert result.status is cx.RunStatus.PEAKED
    assert result.status.succeeded
    evidence, left_out = result.history["log_evidence"] / 30, result.history["leave_one_out"]
    score = 0.5 * (evidence + left_out)
    # The score of step k + 1 is of the parameters that it starts from, those after step k.
    assert result.best_step == np.nanargmax(score)
    assert len(score) == result.best_step + 12
    assert result.best_strength == result.history["strength"][result.best_step - 1]
    again = run(max_steps=result.best_step, tolerance=0.0)
    np.testing.assert_array_equal(helpers.flatten(again.params), helpers.flatten(result.best_params))
    assert run(max_steps=len(score) + 3, tolerance=0.0).status is cx.RunStatus.MAX_STEPS
    # Validation rows, where given, choose instead of the score.
    held_out = run(max_steps=20, tolerance=0.0, validation=_data(seed=9))
    assert held_out.best_step == held_out.history["validation_loss"].argmin() + 1


def test_before_the_first_score_the_last_is_best():
    result = _train(max_steps=3, strength=cx.Evidence())
    assert np.isnan(result.history["log_evidence"]).all()
    assert result.best_step == 3
    np.testing.assert_array_equal(helpers.flatten(result.best_params), helpers.flatten(result.params))


def test_callbacks_see_each_step_and_stop_the_run():
    seen, closed = [], []

    class Watcher:
        def __call__(self, step, record):
            seen.append((step, record["loss"]))
            return step == 3

        def close(self):
            closed.append(True)

    result = _train(callbacks=[Watcher(), lambda _, record: record.clear()], max_steps=8)
    assert result.status is cx.RunStatus.STOPPED_BY_CALLBACK
    assert [step for step, _ in seen] == [1, 2, 3]
    # Each callback gets its own copy: one that empties it spoils nothing.
    np.testing.assert_array_equal([loss for _, loss in seen], result.history["loss"])
    assert closed == [True]


def test_only_true_stops():
    assert _train(callbacks=[lambda _, record: record["loss"]]).status is cx.RunStatus.MAX_STEPS


def test_an_interrupt_returns_what_there_is():
    def interrupt(step, _):
        if step == 2:
            raise KeyboardInterrupt

    result = _train(callbacks=[interrupt], max_steps=8)
    assert result.status is cx.RunStatus.INTERRUPTED
    assert len(result.history["loss"]) == 2
    assert result.history["loss"][-1] == pytest.approx(_loss(result.params, _data()), rel=1e-12)
    assert result.best_step == 2
    assert int(result.state.step) == 2


def test_other_exceptions_pass_and_close_the_callbacks():
    closed = []

    class Broken:
        def __call__(self, *_):
            raise RuntimeError("broken")

        def close(self):
            closed.append(True)

    with pytest.raises(RuntimeError, match="broken"):
        _train(callbacks=[Broken()])
    assert closed == [True]


def test_equal_seeds_give_equal_bits():
    runs = [_train(batch_size=8, key=jax.random.key(seed), max_steps=6) for seed in (4, 4, 5)]
    same, other = (helpers.flatten(runs[i].params) for i in (1, 2))
    np.testing.assert_array_equal(helpers.flatten(runs[0].params), same)
    for name in set(FIELDS) - {"seconds"}:
        np.testing.assert_array_equal(runs[0].history[name], runs[1].history[name])
    assert not np.array_equal(same, other)


@pytest.mark.parametrize("size", [1, 6, 8, 19])
def test_mini_batches_visit_every_row_once_an_epoch(size):
    weights = jnp.ones(ROWS).at[5].set(0.0).at[6].set(2.0)
    batches = Batches(Batch(jnp.arange(ROWS)[:, None], jnp.arange(ROWS)[:, None], weights), size, jax.random.key(0))
    assert not batches.full or size == 19
    stream, orders = iter(batches), []
    for _ in range(2):
        seen = []
        for _ in range(batches.an_epoch):
            batch = next(stream)
            assert batch.weights.shape == (ROWS if batches.full else size,)
            present = np.asarray(batch.weights) > 0
            np.testing.assert_array_equal(batch.inputs, batch.targets)
            np.testing.assert_array_equal(batch.weights[present], weights[batch.inputs[:, 0]][present])
            seen.extend(np.asarray(batch.inputs)[present, 0].tolist())
        assert sorted(seen) == [i for i in range(ROWS) if i != 5]
        orders.append(seen)
    assert batches.full or orders[0] != orders[1]


def test_mini_batches_train():
    data = _data()
    result = _train(batch_size=7, key=jax.random.key(0), max_steps=30, data=data)
    assert _loss(result.params, data) < 0.5 * _loss(_start(), data)
    # Objectives of different batches cannot be compared: best is last.
    assert result.best_step == len(result.history["loss"])


def test_does_not_compile_again():
    _train()
    before = compiled_steps()
    _train(params=_start(1), data=_data(1))
    _train(batch_size=ROWS, key=jax.random.key(0))
    assert compiled_steps() == before


def test_goes_on_from_a_state():
    whole = _train(max_steps=6)
    half = _train(max_steps=3)
    rest = _train(params=half.params, state=half.state, max_steps=3)
    np.testing.assert_array_equal(helpers.flatten(rest.params), helpers.flatten(whole.params))
    assert int(rest.state.step) == 6


def test_weights_reach_the_objective():
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.1, 3, ROWS))
    result = _train(weights=weights)
    outputs, _ = helpers.network(
        helpers.as_layers(result.params), np.asarray(_data()[0]), helpers.scales_of(MODEL), "tanh"
    )
    expected = np.average(0.5 * (outputs - np.asarray(_data()[1]))[:, 0] ** 2, weights=weights)
    assert result.history["loss"][-1] == pytest.approx(expected, rel=1e-12)


INPUTS, TARGETS = _data()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": (INPUTS.at[3, 1].set(jnp.nan), TARGETS)},
            r"inputs must be finite; the first value that is not, nan, is at index \(3, 1\)",
        ),
        (
            {"data": (INPUTS, TARGETS.at[4, 0].set(jnp.inf))},
            r"targets must be finite.*inf, is at index \(4, 0\).*Impute or drop",
        ),
        ({"data": (INPUTS[:0], TARGETS[:0])}, r"the data hold no rows"),
        ({"data": (INPUTS, TARGETS[:5])}, r"inputs have 20 rows and targets 5"),
        ({"data": (INPUTS, jnp.zeros((ROWS, 2)))}, r"`SquaredError` needs targets of shape \[n, 1\]"),
        ({"data": (INPUTS, np.array(["a"] * ROWS))}, r"targets must be numbers; got dtype <U1. Encode labels"),
        ({"validation": (INPUTS, TARGETS * jnp.nan)}, r"targets must be finite"),
        ({"weights": jnp.zeros(ROWS)}, r"weights must be from 0 up with one above 0; got 0 to 0"),
        ({"weights": -jnp.ones(ROWS)}, r"weights must be from 0 up with one above 0; got -1 to -1"),
        ({"weights": jnp.ones(3)}, r"weights must have shape \[20\].*got \(3,\)"),
        ({"max_steps": 0}, r"`train\(max_steps=0\)`: must be a whole number from 1 up"),
        ({"max_steps": 2.5}, r"`train\(max_steps=2.5\)`: must be a whole number from 1 up"),
        ({"tolerance": -1.0}, r"`train\(tolerance=-1.0\)`: must be a number from 0 up"),
        ({"tolerance": float("nan")}, r"`train\(tolerance=nan\)`: must be a number from 0 up"),
        (
            {"batch_size": 0, "key": jax.random.key(0)},
            r"`train\(batch_size=0\)`: must be None or a whole number from 1 up",
        ),
        ({"batch_size": 5}, r"`train\(batch_size=5\)` shuffles the rows: pass key=jax.random.key\(0\)"),
        (
            {"batch_size": 5, "key": jax.random.key(0), "strength": cx.Evidence()},
            r"the evidence is that of all rows; use batch_size=None",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_data_and_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        _train(**change)


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (
            cx.BinaryCrossEntropy(),
            jnp.arange(ROWS),
            r"`BinaryCrossEntropy` needs targets in \[0, 1\]; got 0 to 19.*Encode the two classes",
        ),
        (
            cx.SoftmaxCrossEntropy(),
            jnp.arange(ROWS) - 1,
            r"`SoftmaxCrossEntropy` needs labels or probabilities from 0 up; got -1",
        ),
        (cx.SoftmaxCrossEntropy(), jnp.arange(ROWS), r"`SoftmaxCrossEntropy`.*19"),
    ],
)
def test_targets_without_a_meaning_are_named(loss, targets, message):
    model = cx.MLP(inputs=2, widths=(3,), outputs=3 if isinstance(loss, cx.SoftmaxCrossEntropy) else 1)
    params = helpers.draw_params(model, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        cx.train(model, loss, cx.L2(), params, (INPUTS, targets), strength=1e-3, max_steps=2)


def test_models_that_return_a_vector_are_named():
    with pytest.raises(ValueError, match=r"the model must return outputs of shape \[n, c\]; it returns \(20,\)"):
        cx.train(lambda p, x: x @ p, cx.SquaredError(), cx.L2(), jnp.ones(2), (INPUTS, TARGETS), strength=1e-3)


def test_any_model_on_pytrees_trains():
    def model(params, inputs):
        return (jnp.tanh(inputs["x"] @ params["in"]) @ params["out"])[:, None]

    rng = np.random.default_rng(0)
    params = {"in": jnp.asarray(rng.normal(size=(2, 6))), "out": jnp.asarray(rng.normal(size=6))}
    result = cx.train(model, *PARTS[1:], params, ({"x": INPUTS}, TARGETS), strength=1e-4, max_steps=10)
    assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
    assert set(result.params) == {"in", "out"}


@pytest.mark.usefixtures("unchecked")
def test_wrong_model_type_is_named():
    with pytest.raises(TypeError, match=r"`model='mlp'`: must be a callable"):
        cx.train("mlp", *PARTS[1:], _start(), _data(), strength=1e-3)


def test_a_model_that_turns_nan_stops_the_run():
    def model(params, inputs):
        return jnp.log(inputs @ params[:, None])

    result = cx.train(model, *PARTS[1:], -jnp.ones(2), (jnp.abs(INPUTS), TARGETS), strength=1e-3)
    assert result.status is cx.RunStatus.NONFINITE
    assert len(result.history["loss"]) == 1
    np.testing.assert_array_equal(result.params, -jnp.ones(2))
