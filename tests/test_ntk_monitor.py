"""`ntk.Monitor`: every figure against dense NumPy in float64, the time it takes, and that the run is the same."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import concordax as cx
import helpers
from concordax import ntk
from concordax.ntk import measures
from concordax.ntk.monitor import FIELDS

ROWS, TAU = 14, 1e-2


class Keeper(cx.Observer):
    """Keeps the parameters before and after each step."""

    def begin(self, view):
        self.path = [(view.params, view.params)]

    def observe(self, view):
        self.path.append((view.previous, view.params))


def _network(flat, x, widths, activation):
    """Outputs and pre-activations of the hidden layers in NTK scaling, from flat parameters."""
    hidden, place, seen = np.asarray(x), 0, []
    for depth, (d_in, d_out) in enumerate(itertools.pairwise(widths)):
        weight = flat[place : place + d_in * d_out].reshape(d_out, d_in)
        bias = flat[place + d_in * d_out : place + (d_in + 1) * d_out]
        place += (d_in + 1) * d_out
        hidden = hidden @ weight.T / np.sqrt(d_in) + bias
        if depth < len(widths) - 2:
            seen.append(hidden)
            hidden = activation(hidden)
    return hidden, seen


def _jacobian(function, flat, step=1e-5):
    """[m·c, p] by central differences of the fourth order."""
    columns = []
    for index in range(flat.size):
        e = np.zeros_like(flat)
        e[index] = step
        near, far = function(flat + e) - function(flat - e), function(flat + 2 * e) - function(flat - 2 * e)
        columns.append(((8 * near - far) / (12 * step)).ravel())
    return np.stack(columns, axis=1)


def _kernel(function, flat, weights, inverse_hessian, softmax):
    outputs = function(flat)
    root = np.zeros((outputs.size, outputs.size))
    for row, o in enumerate(outputs):
        p = helpers.softmax(o)
        # S Sᵀ is the loss's Hessian; K is that of Sᵀ J.
        factor = np.diag(np.sqrt(p)) - np.outer(p, np.sqrt(p)) if softmax else np.eye(o.size)
        place = slice(row * o.size, (row + 1) * o.size)
        root[place, place] = factor.T * np.sqrt(weights[row] / weights.sum())
    w = root @ _jacobian(function, flat)
    return w @ np.diag(inverse_hessian(flat)) @ w.T


def _expected(path, x, targets, weights, widths, activation, inverse_hessian, softmax):
    """The figures of every step, one after the other."""
    function = lambda flat: _network(flat, x, widths, activation)[0]
    shares = weights[:, None] / weights.sum()
    y = (np.sqrt(shares) * (targets - (shares * targets).sum(axis=0))).ravel()
    records, first = [], None
    for step, (before, after) in enumerate(path):
        kernel = _kernel(function, after, weights, inverse_hessian, softmax)
        signs = np.concatenate([np.ravel(z > 0) for z in _network(after, x, widths, activation)[1]])
        first = (kernel, signs) if first is None else first
        singular = np.linalg.svd(kernel, compute_uv=False)
        moved, slope = function(after) - function(before), _jacobian(function, before) @ (after - before)
        records.append({
            "step": step,
            "strength": TAU,
            "largest": singular[0],
            "smallest": singular[-1],
            "condition": np.inf if softmax else singular[0] / singular[-1],
            "shifted_condition": np.linalg.cond(kernel + TAU * np.eye(len(kernel))),
            "effective_dimension": np.trace(np.linalg.solve(kernel + TAU * np.eye(len(kernel)), kernel)),
            "alignment": np.sum(kernel * np.outer(y, y)) / np.sqrt(np.sum(kernel**2)) / (y @ y),
            "drift": np.sqrt(np.sum((kernel - first[0]) ** 2) / np.sum(first[0] ** 2)),
            "linearization_error": np.linalg.norm(moved.ravel() - slope) / np.linalg.norm(slope) if step else np.nan,
            "invariance": np.mean(signs == first[1]),
        })  # fmt: skip
    return {name: np.array([record[name] for record in records]) for name in FIELDS}


def _data(outputs, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, 3))
    return x, np.stack([np.sin(2 * x[:, index % 3]) + index for index in range(outputs)], axis=1), rng


HUBER = 1.5
# The regularizer, and 1/H of each parameter.
PENALTIES = {
    "l2": (cx.L2(), np.ones_like),
    "pseudo-Huber": (cx.PseudoHuber(HUBER), lambda x: (HUBER**2 + x**2) ** 1.5 / HUBER**2),
}
CASES = {
    "squared, L2, one output, relu": (cx.SquaredError(), "l2", 1, "relu"),
    "squared, pseudo-Huber, two outputs": (cx.SquaredError(), "pseudo-Huber", 2, "tanh"),
    "softmax, pseudo-Huber": (cx.SoftmaxCrossEntropy(), "pseudo-Huber", 3, "tanh"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_that_of_a_dense_computation(name):
    loss, penalty, outputs, activation = CASES[name]
    regularizer, inverse = PENALTIES[penalty]
    x, targets, rng = _data(outputs)
    softmax = name.startswith("softmax")
    given = rng.integers(3, size=ROWS) if softmax else targets
    encoded = np.eye(3)[given] if softmax else targets
    weights = rng.uniform(0.5, 2.0, size=ROWS)
    weights[[2, 7]] = 0.0
    widths = (3, 6, outputs) if activation == "relu" else (3, 4, 4, outputs)
    model = cx.MLP(3, widths[1:-1], outputs, activation=activation)
    params = helpers.draw_params(model, np.random.default_rng(3))
    # Few enough rows for gaps: 9 of 12.
    count = 9
    monitor, keeper = ntk.Monitor(every=1, rows=count * outputs + outputs - 1, share=1.0), Keeper()
    cx.train(
        model, loss, regularizer, params, (jnp.asarray(x), jnp.asarray(given)), weights=weights, strength=TAU,
        max_steps=3, tolerance=0.0, solver=cx.Dual(), step=cx.FixedStep(0.5), callbacks=[keeper, monitor],
    )  # fmt: skip
    present = np.flatnonzero(weights)
    chosen = present[np.round(np.linspace(0, len(present) - 1, count)).astype(int)]
    assert len(set(chosen)) == count < len(present)
    path = [(helpers.flatten(before), helpers.flatten(after)) for before, after in keeper.path]
    act = np.tanh if activation == "tanh" else lambda z: np.maximum(z, 0)
    expected = _expected(
        path, x[chosen], encoded[chosen], weights[chosen], widths, act, inverse, softmax
    )  # fmt: skip
    history = monitor.history
    assert next(iter(history)) == "step"
    assert {len(values) for values in history.values()} == {4}
    for field, values in expected.items():
        scale = history["largest"].max() if field == "smallest" else 0.0
        tolerance = 1e-4 if field == "condition" else 1e-6
        np.testing.assert_allclose(history[field], values, rtol=tolerance, atol=1e-9 * scale, err_msg=field)
    assert history["drift"][0] == 0
    assert np.all(history["drift"][1:] > 1e-3)
    assert history["invariance"][0] == 1
    assert history["invariance"][-1] < 1


def test_a_linear_model_under_l2_has_a_kernel_that_stays():
    x, targets, _ = _data(1)
    model = cx.MLP(3, (), 1)
    params = helpers.draw_params(model, np.random.default_rng(0))
    monitor = ntk.Monitor(every=1, share=1.0)
    parts = model, cx.SquaredError(), cx.L2(), params
    cx.train(*parts, (x, targets), strength=TAU, max_steps=2, step=cx.FixedStep(0.5), callbacks=[monitor])
    history = monitor.history
    assert np.all(history["drift"] == 0)
    assert np.isnan(history["linearization_error"][0])
    assert np.all(history["linearization_error"][1:] < 1e-13)
    # No hidden layer, no signs.
    assert np.isnan(history["invariance"]).all()


def _run(callbacks=(), max_steps=6, **options):
    x, targets, _ = _data(1)
    model = cx.MLP(3, (5,), 1)
    params = helpers.draw_params(model, np.random.default_rng(0))
    if "optimizer" not in options:
        options = {"solver": cx.Dual(), "step": cx.FixedStep(0.5), **options}
    options = {"strength": TAU, "tolerance": 0.0, **options}
    return cx.train(
        model, cx.SquaredError(), cx.L2(), params, (x, targets), max_steps=max_steps, callbacks=callbacks, **options
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 5, "key": jax.random.key(0)}, {"optimizer": optax.sgd(1e-2)}],
    ids=["full", "mini-batches", "first order"],
)
def test_a_watched_run_has_the_same_bits(options):
    monitor = ntk.Monitor(every=1, share=1.0)
    alone, watched = _run(**options), _run([monitor], **options)
    assert np.all(np.isfinite(monitor.history["drift"]))
    assert monitor.history["step"][-1] == 6
    np.testing.assert_array_equal(helpers.flatten(alone.params), helpers.flatten(watched.params))
    for name in set(alone.history) - {"seconds"}:
        np.testing.assert_array_equal(alone.history[name], watched.history[name])


def test_what_is_within_rounding_of_zero_is_no_smallest_eigenvalue():
    kernel = np.diag([1.0, 0.5, 2e-16])
    assert measures.spectrum(kernel, TAU, np.finfo(np.float64).eps)["condition"] == np.inf
    assert measures.spectrum(kernel, TAU, 1e-18)["condition"] == pytest.approx(1 / 2e-16)


def test_batches_of_a_stream_are_judged_by_the_rows_of_the_first():
    x, targets, _ = _data(1)
    model = cx.MLP(3, (5,), 1)
    parts = model, cx.SquaredError(), cx.L2(), helpers.draw_params(model, np.random.default_rng(0))
    rows, stream = ntk.Monitor(), ntk.Monitor()
    options = {"strength": TAU, "optimizer": optax.sgd(1e-2), "max_steps": 1}
    cx.train(*parts, (x[:7], targets[:7]), callbacks=[rows], **options)
    # What a batch is divided by within a run is nothing to the kernel of its rows.
    data = cx.Stream([(x[:7], targets[:7]), (x[7:], targets[7:])], mean_weight=3.0)
    cx.train(*parts, data, callbacks=[stream], **options)
    for name in FIELDS:
        np.testing.assert_allclose(stream.history[name][0], rows.history[name][0], rtol=1e-9, err_msg=name)


def test_float32_sees_the_same():
    x, targets, _ = _data(1)
    model = cx.MLP(3, (5,), 1)
    start = helpers.draw_params(model, np.random.default_rng(0))
    seen = {}
    for dtype in (jnp.float32, jnp.float64):
        # Few rows: a kernel whose smallest eigenvalue float32 still sees.
        monitor, larger = ntk.Monitor(rows=5), ntk.Monitor()
        params = jax.tree.map(lambda leaf, to=dtype: leaf.astype(to), start)
        options = {"strength": TAU, "optimizer": optax.sgd(0.3), "max_steps": 2}
        cx.train(model, cx.SquaredError(), cx.L2(), params, (x, targets), callbacks=[monitor, larger], **options)
        seen[dtype] = monitor.history
        # A millionth of the largest is no number in float32.
        condition = larger.history["condition"][-1]
        assert condition == np.inf if dtype == jnp.float32 else 1e6 < condition < 1e7
    for name in FIELDS:
        rough = 1e-2 if name in ("smallest", "condition") else 1e-4
        np.testing.assert_allclose(seen[jnp.float32][name], seen[jnp.float64][name], rtol=rough, err_msg=name)


def test_a_refused_step_has_no_linearization_error():
    monitor = ntk.Monitor()
    _run([monitor], max_steps=1, optimizer=optax.sgd(1e200))
    assert np.isnan(monitor.history["linearization_error"]).all()
    assert monitor.history["drift"].tolist() == [0, 0]


def test_equal_targets_have_no_alignment_and_other_figures_stay():
    x, _, _ = _data(1)
    model = cx.MLP(3, (5,), 1)
    params = helpers.draw_params(model, np.random.default_rng(0))
    monitor = ntk.Monitor()
    parts = model, cx.SquaredError(), cx.L2(), params
    cx.train(*parts, (x, np.full(ROWS, 0.3)), strength=TAU, max_steps=1, optimizer=optax.sgd(0.1), callbacks=[monitor])
    history = monitor.history
    assert np.isnan(history["alignment"]).all()
    assert np.all(history["largest"] > 0)


def test_a_run_that_goes_on_keeps_its_start():
    """Three and two steps from the state are five, as the monitor sees them; a run of its own begins anew."""
    whole, parts = ntk.Monitor(every=1, share=1.0), ntk.Monitor(every=1, share=1.0)
    _run([whole], max_steps=5)
    first = _run([parts], max_steps=3)
    x, targets, _ = _data(1)
    # The subset stays that of the first rows.
    parts_of_run = cx.MLP(3, (5,), 1), cx.SquaredError(), cx.L2(), first.params
    cx.train(
        *parts_of_run, (x[::-1], targets[::-1]), strength=TAU, tolerance=0.0, max_steps=2, state=first.state,
        solver=cx.Dual(), step=cx.FixedStep(0.5),         callbacks=[parts],
    )  # fmt: skip
    for name in FIELDS:
        np.testing.assert_allclose(parts.history[name], whole.history[name], rtol=1e-9, err_msg=name)
    _run([parts], max_steps=1)
    assert parts.history["step"].tolist() == [0, 1]


class Clock:
    """Time that passes when told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("share", "steps", "measured"),
    [(0.05, 60, [0, 38, 53, 57, 60]), (0.1, 30, [0, 18, 25, 28, 30]), (1.0, 9, [0, 3, 6, 9])],
)
def test_measurements_wait_until_the_run_has_lasted_long_enough(monkeypatch, share, steps, measured):
    """A step takes 1 s, the first measurement 2 s, each other 0.25 s; time for the last one is kept."""
    clock, costs, sight = Clock(), itertools.chain([2.0], itertools.repeat(0.25)), measures.sight

    def slow(*parts):
        clock.now += next(costs)
        return sight(*parts)

    def step(*_):
        clock.now += 1.0

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(measures, "sight", slow)
    monitor = ntk.Monitor(every=3, share=share)
    _run([step, monitor], max_steps=steps)
    assert monitor.history["step"].tolist() == measured
    assert monitor.seconds == 2 + 0.25 * (len(measured) - 1)
    assert monitor.seconds <= share * (steps + monitor.seconds)
    for others, number in enumerate(measured[1:-1], start=1):
        spent = 2 + 0.25 * others
        # What the first one took says nothing of the next.
        assert spent + 0.25 <= share * (number + spent + 0.25) + 0.5 * (others == 1)


@pytest.mark.parametrize(
    ("options", "argument"),
    [({"every": 0}, "every=0"), ({"rows": 0}, "rows=0"), ({"rows": True}, "rows=True"),
     ({"share": 0.0}, "share=0.0"), ({"share": 1.5}, "share=1.5")],
)  # fmt: skip
def test_what_cannot_be(options, argument):
    with pytest.raises(ValueError, match=rf"Monitor\({argument}\)"):
        ntk.Monitor(**options)


def test_before_a_run_there_is_nothing():
    history = ntk.Monitor().history
    assert tuple(history) == FIELDS
    assert {len(values) for values in history.values()} == {0}
