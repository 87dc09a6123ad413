"""Several networks that predict together: who chooses, who follows, and the mixture that they are."""

import copy

import numpy as np
import pytest
from scipy.special import expit

import concordax as cx
from concordax._status import RunStatus

pytest.importorskip("sklearn")
from concordax.sklearn import GGNClassifier, GGNRegressor
from concordax.sklearn import networks as module
from concordax.sklearn.defaults import networks
from table_cases import sine

THREE = {"hidden_widths": (8,), "n_networks": 3, "max_steps": 12}


def _alone(model):
    """The networks of a fit, each as an estimator of its own."""
    for number, network in enumerate(model.networks_):
        one = copy.copy(model)
        one.networks_, one.strengths_, one._cache = [network], model.strengths_[[number]], {}
        yield one


@pytest.fixture(scope="module", params=["evidence", "held_out", 1e-3])
def fitted(request):
    x, y = sine(120)
    told = []
    model = GGNRegressor(**THREE, strength=request.param, callback=lambda step, record: told.append((step, record)))
    return model.fit(x, y), x, y, told


# Who chooses ----------------------------------------------------------------------------------------------------------


def test_the_first_network_is_the_one_that_a_single_one_would_be(fitted):
    model, x, y, _ = fitted
    alone = GGNRegressor(**{**THREE, "n_networks": 1}, strength=model.strength).fit(x, y)
    for (weight, bias), (other, offset) in zip(model.networks_[0], alone.networks_[0], strict=True):
        np.testing.assert_array_equal(weight, other)
        np.testing.assert_array_equal(bias, offset)
    assert model.strength_ == alone.strength_
    assert len(model.networks_) == 3


def test_the_others_take_its_steps_at_its_strengths(fitted):
    model, _, _, told = fitted
    first, *others = [[record for _, record in told if record["network"] == k] for k in (1, 2, 3)]
    assert len(first) == model.n_steps_
    assert not np.array_equal(model.networks_[1][0][0], model.networks_[2][0][0])
    if model.strength == "held_out":
        return
    expected = [record["strength"] for record in first[: model.best_step_]]
    for run in others:
        assert [record["strength"] for record in run] == pytest.approx(expected)
    assert model.strengths_.tolist() == [model.strength_] * 3
    assert (len(set(expected)) > 3) == (model.strength == "evidence")


def test_courses_of_all_fits_are_of_one_length(monkeypatch):
    """A schedule as long as its run would be a program for each fit."""
    x, y = sine(60)
    seen = []

    def spy(*args, **options):
        seen.append(options["strength"])
        return cx.train(*args, **options)

    monkeypatch.setattr(module, "train", spy)
    model = GGNRegressor(**{**THREE, "max_steps": 25}, strength="evidence").fit(x, y)
    assert model.best_step_ < 25
    assert [len(course.values) for course in seen[1:]] == [25, 25]


def test_where_no_step_is_better_than_the_start_all_stay_there(monkeypatch):
    x, y = sine(60)

    def fake(*args, **options):
        return cx.train(*args, **options)._replace(best_step=0, best_params=args[3])

    monkeypatch.setattr(module, "train", fake)
    model = GGNRegressor(**THREE, strength=1e-3).fit(x, y)
    assert len({network[0][0].tobytes() for network in model.networks_}) == 3


def test_each_holds_out_a_tenth_of_its_own(monkeypatch):
    x, y = sine(120)
    tenths, kept = [], []

    def spy(*args, **options):
        if options.get("validation") is not None:
            tenths.append({row.tobytes() for row in options["validation"].inputs})
        result = cx.train(*args, **options)
        judged = options.get("validation") is not None
        # Strengths that differ, whatever the rows would choose.
        result = result._replace(best_strength=result.best_strength * (len(tenths) if judged else 1))
        kept.append((judged, result.best_strength))
        return result

    monkeypatch.setattr("concordax.sklearn.held_out.train", spy)
    model = GGNRegressor(**THREE, strength="held_out").fit(x, y)
    assert len(tenths) == 3
    assert min(map(len, tenths)) > 0
    assert sum(map(len, tenths)) == len(set.union(*tenths))
    assert model.strengths_.tolist() == [strength for judged, strength in kept if judged]
    assert model.strength_ == model.strengths_[0]
    assert len(set(model.strengths_)) == 3


@pytest.mark.parametrize("part", ["without some rows", "with all rows"])
def test_a_callback_ends_either_part_of_a_run_with_held_out_rows(part):
    x, y = sine(200)

    def callback(step, record):
        return step == 20 if part == "without some rows" else np.isnan(record["validation_loss"])

    options = {"hidden_widths": (8,), "max_steps": 40, "n_networks": 2, "strength": "held_out", "tolerance": 0.0}
    model = GGNRegressor(**options, callback=callback).fit(x, y)
    assert len(model.networks_) == 1
    assert model.status_ == RunStatus.STOPPED_BY_CALLBACK
    judged = np.isfinite(model.history_["validation_loss"])
    assert judged.sum() == (20 if part == "without some rows" else 40)
    assert (~judged).sum() == (0 if part == "without some rows" else 1)


def test_error_bars_are_those_of_each_networks_strength():
    x, y = sine(80)
    model = GGNRegressor(**THREE, strength=1e-3).fit(x, y)
    model.strengths_ = np.array([1e-3, 1e-2, 1e-1])
    found = [float(model._posterior(number).effective_parameters) for number in range(3)]
    # γ = Σ e/(e + τ) over the eigenvalues of each kernel, which do not depend on τ.
    for number, strength in enumerate(model.strengths_):
        values = np.asarray(model._posterior(number).eigenvalues())
        assert found[number] == pytest.approx(np.sum(values / (values + strength)), rel=1e-6)
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize(("network", "kept"), [(1, 1), (2, 1), (3, 2)])
def test_a_callback_ends_the_fit_with_the_networks_that_are_there(network, kept):
    x, y = sine(60)
    model = GGNRegressor(**THREE, strength=1e-3, callback=lambda _, record: record["network"] == network)
    assert len(model.fit(x, y).networks_) == kept
    assert np.isfinite(model.predict(x, return_std=True)).all()


def test_an_observer_sees_the_first_network_alone():
    class Watcher(cx.Observer):
        seen = 0

        def observe(self, view):
            self.seen = view.step

    x, y = sine(60)
    watcher = Watcher()
    assert GGNRegressor(**THREE, callback=watcher).fit(x, y).n_steps_ == watcher.seen


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [(30, 5), (500, 5), (501, 4), (833, 3), (834, 2), (5000, 2), (5001, 1), (10_000, 1), (10_001, 2), (1e6, 2)],
)
def test_how_many_follows_the_size(numbers, expected):
    assert networks("auto", min(float(numbers), 30_000.0), float(numbers)) == expected
    assert networks(4, 50_000.0, float(numbers)) == 4
    assert networks("auto", 30_001.0, numbers + 30_001.0) == 1


def test_weights_count_for_how_many():
    x, y = sine(80)
    fit = lambda weight: GGNRegressor(max_steps=1, strength=1e-3).fit(x, y, sample_weight=np.full(80, weight))
    assert [len(fit(weight).networks_) for weight in (1.0, 10.0)] == [5, 3]


def test_mini_batches_are_shuffled_anew_for_each_network(monkeypatch):
    x, y = sine(100)
    keys = []

    def spy(*args, **options):
        keys.append(str(options["key"]))
        return cx.train(*args, **options)

    monkeypatch.setattr(module, "train", spy)
    model = GGNRegressor(**THREE, batch_size=25, strength=1e-3).fit(x, y)
    assert len(set(keys)) == 3
    assert np.isfinite(model.predict(x)).all()


def test_a_second_fit_goes_on_with_all_and_starts_anew_with_another_number():
    x, y = sine(60)
    model = GGNRegressor(**{**THREE, "max_steps": 4}, strength=1e-5, warm_start=True, tolerance=0.0).fit(x, y)
    error = lambda: [np.mean((one.predict(x) - y) ** 2) for one in _alone(model)]
    before = error()
    model.fit(x, y)
    assert np.all(np.array(error()) < before)
    assert len({network[0][0].tobytes() for network in model.networks_}) == 3
    cold = GGNRegressor(**{**THREE, "max_steps": 4, "n_networks": 2}, strength=1e-5, tolerance=0.0).fit(x, y)
    model.set_params(n_networks=2).fit(x, y)
    np.testing.assert_array_equal(model.predict(x), cold.predict(x))


# The mixture ----------------------------------------------------------------------------------------------------------


def test_numbers_are_the_moments_of_the_mixture(fitted):
    model, *_ = fitted
    new = np.random.default_rng(1).uniform(-3, 3, size=(7, 3))
    means, deviations = np.array([one.predict(new, return_std=True) for one in _alone(model)]).transpose(1, 0, 2)
    mean, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(mean, means.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std**2, (deviations**2).mean(axis=0) + means.var(axis=0), rtol=1e-10)
    np.testing.assert_array_equal(model.predict(new), mean)
    joints = np.array([one.predict(new, return_cov=True)[1] for one in _alone(model)])
    joint = model.predict(new, return_cov=True)[1]
    np.testing.assert_allclose(joint, joints.mean(axis=0) + np.cov(means.T, bias=True), rtol=1e-10, atol=1e-14)
    noise = [one.noise_ for one in _alone(model)]
    assert model.noise_ == pytest.approx(np.sqrt(np.mean(np.square(noise))), rel=1e-12)
    assert len(set(noise)) == 3
    left_out = np.mean([one.loo_residuals_ for one in _alone(model)], axis=0)
    np.testing.assert_allclose(model.loo_residuals_, left_out, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_the_mean_of_the_networks(classes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2))
    y = (np.abs(x[:, 0] + 0.3 * rng.normal(size=90)) * classes / 2).astype(int).clip(0, classes - 1)
    model = GGNClassifier(**THREE, strength=1e-4).fit(x, y)
    for corrected in (False, True):
        each = [one.predict_proba(x, corrected=corrected) for one in _alone(model)]
        np.testing.assert_allclose(model.predict_proba(x, corrected=corrected), np.mean(each, axis=0), rtol=1e-9)
    found, decision = model.predict_proba(x), model.decision_function(x)
    if classes == 2:
        np.testing.assert_allclose(expit(decision), found[:, 1], rtol=1e-9)
    else:
        logarithms = np.log(found)
        np.testing.assert_allclose(decision, logarithms - logarithms.mean(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_array_equal(model.predict(x), model.classes_[found.argmax(axis=1)])


def test_probabilities_far_from_a_half_keep_their_digits():
    x = np.linspace(-1, 1, 40)[:, None]
    model = GGNClassifier(**THREE, strength=1e-3).fit(x, x[:, 0] > 0)
    # Logits whose exponentials underflow.
    model.networks_ = [[*layers, (1e3 * weight, 1e3 * bias)] for *layers, (weight, bias) in model.networks_]
    logits = [one.decision_function(x) for one in _alone(model)]
    decision = model.decision_function(x)
    assert np.abs(decision).max() > 1000
    # Of odds so large the mean is that of the least sure network, up to log 3.
    surest = np.min(np.abs(logits), axis=0)
    np.testing.assert_array_less(surest - 1e-6, np.abs(decision))
    np.testing.assert_array_less(np.abs(decision), surest + np.log(3) + 1e-6)


def test_networks_of_a_convex_problem_are_the_same():
    x, y = sine(50)
    convex = {"hidden_widths": (), "activation": "linear", "regularizer": "l2", "strength": 1e-2, "tolerance": 0.0}
    mean, std = GGNRegressor(**convex, n_networks=3, max_steps=30).fit(x, y).predict(x, return_std=True)
    one, alone = GGNRegressor(**convex, n_networks=1, max_steps=30).fit(x, y).predict(x, return_std=True)
    np.testing.assert_allclose(mean, one, rtol=1e-6)
    np.testing.assert_allclose(std, alone, rtol=1e-6)


def test_posteriors_that_would_not_fit_together_are_made_when_needed(monkeypatch):
    x, y = sine(60)
    model = GGNRegressor(**THREE, strength=1e-3).fit(x, y)
    expected = model.predict(x, return_std=True)
    assert len(model._cache) == 3
    model._cache = {}
    monkeypatch.setattr("concordax.sklearn.fitted.free_bytes", lambda: 1e5)
    np.testing.assert_array_equal(model.predict(x, return_std=True), expected)
    assert list(model._cache) == [0]
