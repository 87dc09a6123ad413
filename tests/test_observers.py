"""Observers beside plain callbacks: what they are shown, when, and that nobody's run changes for it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import concordax as cx
import helpers

MODEL = cx.MLP(inputs=2, widths=(4,))
PARTS = (MODEL, cx.SquaredError(), cx.L2())
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 2)), RNG.normal(size=(12, 1))
START = helpers.draw_params(MODEL, np.random.default_rng(1))


class Recorder(cx.Observer):
    def __init__(self, stop=None):
        self.views, self.ends, self.stop = [], [], stop

    def begin(self, view):
        assert self.views == []
        self.views.append(view)

    def observe(self, view):
        self.views.append(view._replace(record=dict(view.record)))
        view.record.clear()
        return view.step == self.stop

    def end(self, view):
        self.ends.append(view.step)


def _train(**options):
    if "optimizer" not in options:
        options = {"solver": cx.Primal(), "step": cx.FixedStep(0.5), **options}
    options = {"strength": 1e-3, "max_steps": 4, "tolerance": 0.0, **options}
    return cx.train(*PARTS, START, (jnp.asarray(X), jnp.asarray(Y)), **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 5, "key": jax.random.key(0)}, {"optimizer": optax.sgd(1e-2)}],
    ids=["full", "mini-batches", "first order"],
)
def test_an_observer_sees_the_start_and_every_step(options):
    recorder, seen = Recorder(), []
    callbacks = [lambda _, record: record.clear(), recorder, lambda step, record: seen.append((step, record["loss"]))]
    result = _train(callbacks=callbacks, **options)
    views = recorder.views
    assert [view.step for view in views] == [0, 1, 2, 3, 4]
    assert recorder.ends == [4]
    assert views[0].params is START
    assert views[0].previous is START
    assert views[0].record == {}
    for before, after in itertools.pairwise(views):
        assert after.previous is before.params
        assert float(after.state.info.strength) == 1e-3
        np.testing.assert_array_equal(after.sample.inputs, X)
        assert len(after.batch.weights) == options.get("batch_size", 12)
    assert views[-1].params is result.params
    assert views[-1].algorithm.model == MODEL
    # One that empties its record spoils neither the history nor what those beside it see.
    losses = list(result.history["loss"])
    assert [view.record["loss"] for view in views[1:]] == losses
    assert seen == list(zip([1, 2, 3, 4], losses, strict=True))


def test_a_refused_step_leaves_the_parameters():
    # 1e200 overflows in every trial: the step is refused, and what came before is what is now.
    recorder = Recorder()
    _train(callbacks=[recorder], max_steps=1, optimizer=optax.sgd(1e200))
    before, after = recorder.views
    assert not bool(after.state.info.accepted)
    np.testing.assert_array_equal(helpers.flatten(after.params), helpers.flatten(before.params))


def test_an_observer_stops_the_run_and_is_told_of_the_end():
    recorder = Recorder(stop=2)
    assert _train(callbacks=[recorder]).status is cx.RunStatus.STOPPED_BY_CALLBACK
    assert recorder.ends == [2]


def test_after_an_interrupt_there_is_no_end():
    class Interrupting(Recorder):
        def observe(self, view):
            super().observe(view)
            raise KeyboardInterrupt

    recorder = Interrupting()
    assert _train(callbacks=[recorder]).status is cx.RunStatus.INTERRUPTED
    assert recorder.ends == []
