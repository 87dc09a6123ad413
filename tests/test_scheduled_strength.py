"""Strengths that are known in advance: each step has the one that it is due, whatever the run went on from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from compilations import compiled_steps
from concordax._status import StepStatus


def _run(strength, start=None, **options):
    x = jnp.linspace(-1, 1, 20)[:, None]
    model = cx.MLP(inputs=1, widths=(5,))
    start = model.init(jax.random.key(0)) if start is None else start
    return cx.train(model, cx.SquaredError(), cx.L2(), start, (x, x**2), strength=strength, **options)


def test_a_schedule_is_followed_step_by_step():
    values, step = [1e-2, 3e-2, 1e-4], cx.TrustRegion(damping_rule=cx.GainRatio(), corrections=0)
    result = _run(cx.ScheduledStrength(values), max_steps=6, step=step, tolerance=0.0)
    np.testing.assert_allclose(result.history["strength"], [*values, 1e-4, 1e-4, 1e-4], rtol=1e-6)
    steps = start = None
    for value in (*values, 1e-4):
        # The same by numbers, each from where the last one ended, damping and all.
        steps = _run(value, start, max_steps=1, step=step, state=steps and steps.state)
        start = steps.params
    some = _run(cx.ScheduledStrength(values), max_steps=4, step=step, tolerance=0.0)
    np.testing.assert_array_equal(helpers.flatten(some.params), helpers.flatten(start))


def test_no_schedule_ends_a_run_before_its_last_strength():
    first, then = [1e-1] * 30, [1e-2] * 2
    assert len(_run(first[0], max_steps=200).history["loss"]) < 25
    result = _run(cx.ScheduledStrength([*first, *then]), max_steps=200)
    assert 31 < len(result.history["loss"]) < 200
    assert result.history["strength"][-1] == pytest.approx(then[-1])


def test_a_schedule_goes_on_where_a_strength_leaves_nothing_to_gain():
    """From τ = 1e3, where all weights are zero after some steps and each more is stationary, on to the next τ."""
    result = _run(cx.ScheduledStrength([1e3] * 10 + [1.0] * 2), max_steps=12, tolerance=0.0)
    assert result.history["status"][8] == StepStatus.STATIONARY
    np.testing.assert_allclose(result.history["strength"], [1e3] * 10 + [1.0] * 2, rtol=1e-6)


def test_a_schedule_goes_on_where_a_run_ended_and_a_number_is_taken_as_given():
    schedule = cx.ScheduledStrength([4e-3, 3e-3, 2e-3, 1e-3])
    whole = _run(schedule, max_steps=4, tolerance=0.0)
    half = _run(schedule, max_steps=2, tolerance=0.0)
    rest = _run(schedule, half.params, state=half.state, max_steps=2, tolerance=0.0)
    np.testing.assert_array_equal(helpers.flatten(rest.params), helpers.flatten(whole.params))
    other = _run(5e-2, half.params, state=half.state, max_steps=1)
    assert other.history["strength"] == pytest.approx(5e-2)
    assert float(other.state.info.strength) == pytest.approx(5e-2)
    third = _run(1e-2, max_steps=3, tolerance=0.0)
    assert third.history["accepted"].all()
    late = _run(schedule, third.params, state=third.state, max_steps=1)
    assert late.history["strength"] == pytest.approx(1e-3)
    adaptive = _run(cx.Evidence(initial=1.0, wait=50), half.params, state=half.state, max_steps=1)
    # An update is due, and may move τ from the state's by a factor of three.
    assert abs(np.log(adaptive.history["strength"][0] / 3e-3)) <= np.log(3) + 1e-6


def test_what_a_run_goes_on_with_is_shown_from_the_start():
    class Watcher(cx.Observer):
        def begin(self, view):
            self.strength = float(view.state.info.strength)

        def observe(self, view):
            pass

    watcher = Watcher()
    _run(5e-2, state=_run(1e-2, max_steps=1).state, max_steps=1, callbacks=[watcher])
    assert watcher.strength == pytest.approx(5e-2)


def test_a_number_after_a_schedule_shares_the_program_of_numbers():
    first = _run(1e-2, max_steps=1)
    # Of a length that no other test has.
    scheduled = _run(cx.ScheduledStrength(np.geomspace(1, 1e-3, 150)), max_steps=1)
    _run(1e-2, state=first.state, max_steps=1)
    before = compiled_steps()
    _run(1e-3, state=scheduled.state, max_steps=1)
    assert compiled_steps() == before


def test_schedules_share_one_program():
    _run(cx.ScheduledStrength([1e-2, 1e-3]), max_steps=2, tolerance=0.0)
    before = compiled_steps()
    _run(cx.ScheduledStrength(np.geomspace(1, 1e-3, 16)), max_steps=3, tolerance=0.0)
    _run(cx.AnnealedStrength(0.7, 0.2), max_steps=3, tolerance=0.0)
    assert compiled_steps() == before
    _run(cx.ScheduledStrength(np.geomspace(1, 1e-3, 70)), max_steps=1, tolerance=0.0)
    assert compiled_steps() == before + 1


def test_a_schedule_on_mini_batches_counts_batches():
    values = [1e-2, 1e-3, 1e-4]
    options = {"batch_size": 10, "key": jax.random.key(0), "step": cx.TrustRegion(), "tolerance": 0.0}
    result = _run(cx.ScheduledStrength(values), max_steps=4, **options)
    np.testing.assert_allclose(result.history["strength"], [*values, 1e-4], rtol=1e-6)


def test_no_schedule_ends_a_run_on_mini_batches_before_its_last_strength():
    """Rows that are all the same make each batch the whole problem."""
    same = jnp.ones((20, 1)), jnp.ones((20, 1))
    model = cx.MLP(inputs=1, widths=(5,))
    parts = model, cx.SquaredError(), cx.L2(), model.init(jax.random.key(0)), same
    options = {"batch_size": 10, "key": jax.random.key(0), "step": cx.TrustRegion(), "max_steps": 200}
    assert len(cx.train(*parts, strength=1e-1, **options).history["loss"]) < 40
    result = cx.train(*parts, strength=cx.ScheduledStrength([1e-1] * 60 + [1e-2]), **options)
    assert 60 < len(result.history["loss"]) < 200


@pytest.mark.parametrize("values", [[], [0.0], [1e-3, -1.0], [np.inf], [np.nan]])
def test_schedules_of_other_than_positive_numbers_are_refused(values):
    with pytest.raises(ValueError, match=r"ScheduledStrength\(values=\[.*one positive finite number or more"):
        cx.ScheduledStrength(values)


def test_annealed_strength_follows_its_path():
    strength = cx.AnnealedStrength(1e-2, 1e-3, factor=0.25)
    x = jnp.linspace(-1, 1, 20)[:, None]
    model = cx.MLP(inputs=1, widths=(5,))
    start = model.init(jax.random.key(0))
    result = cx.train(
        model, cx.SquaredError(), cx.L2(), start, (x, x**2), strength=strength, max_steps=4, tolerance=0.0,
        validation=(x[:5] + 0.01, x[:5] ** 2, jnp.arange(5.0)),
    )  # fmt: skip
    np.testing.assert_allclose(result.history["strength"], np.maximum(1e-2 * 0.25 ** np.arange(4), 1e-3), rtol=1e-6)
    errors = 0.5 * (model(result.params, x[:5] + 0.01) - x[:5] ** 2)[:, 0] ** 2
    assert result.history["validation_loss"][-1] == pytest.approx(
        float(jnp.average(errors, weights=jnp.arange(5.0))), rel=1e-4
    )


@pytest.mark.parametrize("arguments", [(1e-3, 1e-2), (1e-3, 0.0), (np.inf, 1.0)])
def test_paths_that_do_not_fall_are_refused(arguments):
    with pytest.raises(ValueError, match="between"):
        cx.AnnealedStrength(*arguments)
    with pytest.raises(ValueError, match="factor"):
        cx.AnnealedStrength(1.0, 0.1, factor=1.0)
