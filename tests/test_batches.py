"""Mini-batches: an unbiased scale whatever the weights, streams of batches, tables that stay on the disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from compilations import compiled_steps
from concordax._types import Batch
from concordax.batches import Batches, StreamBatches
from concordax.system import Problem, build_system, make_batch

ROWS = 24
MODEL = cx.MLP(inputs=2, widths=(4,))
PARTS = (MODEL, cx.SquaredError(), cx.L2())
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(ROWS, 2))
TARGETS = np.sin(2 * INPUTS[:, :1])
WEIGHTS = RNG.uniform(0.01, 3.0, ROWS)
WEIGHTS[[3, 11]] = 1e-6
START = helpers.draw_params(MODEL, np.random.default_rng(1))
FLAT, UNRAVEL = ravel_pytree(START)
PROBLEM = Problem(*PARTS, UNRAVEL)


@jax.jit
def _gradient(batch):
    return jax.grad(lambda flat: PROBLEM.objective(flat, batch, jnp.asarray(0.1))[0])(FLAT)


@jax.jit
def _system(batch):
    system = build_system(PROBLEM, FLAT, batch)
    return system.loss, system.jacobian.rmv(system.residual)


def _full(weights=WEIGHTS):
    return make_batch(cx.SquaredError(), jnp.asarray(INPUTS), jnp.asarray(TARGETS), weights, 1, FLAT.dtype)


def _reference():
    """(loss, gradient of F at strength 0.1) of all rows, in plain NumPy."""
    outputs, jacobian = helpers.network(helpers.as_layers(START), INPUTS, helpers.scales_of(MODEL), "tanh")
    residual, share = outputs - TARGETS, WEIGHTS / WEIGHTS.sum()
    gradient = np.einsum("n,nc,ncp->p", share, residual, jacobian) + 0.1 * helpers.flatten(START)
    return 0.5 * np.sum(share * residual[:, 0] ** 2), gradient


def _epoch(batches):
    stream = iter(batches)
    found = [next(stream)]
    while not batches.epochs:
        found.append(next(stream))
    return found


def test_the_mean_of_an_epoch_is_the_whole():
    """Equal sizes, weights from 1e-6 to 3: gradient and loss of the batches average to those of all rows."""
    loss, gradient = _reference()
    batches = _epoch(Batches(_full(), 6, jax.random.key(0)))
    assert len(batches) == 4
    np.testing.assert_allclose(np.mean([_gradient(batch) for batch in batches], axis=0), gradient, rtol=1e-10)
    systems = [_system(batch) for batch in batches]
    assert np.mean([each[0] for each in systems]) == pytest.approx(loss, rel=1e-12)
    data_gradient = gradient - 0.1 * helpers.flatten(START)
    np.testing.assert_allclose(np.mean([each[1] for each in systems], axis=0), data_gradient, rtol=1e-10)


def test_a_stream_with_its_mean_weight_averages_to_the_whole():
    loss, _ = _reference()
    parts = [(INPUTS[i::4], TARGETS[i::4], WEIGHTS[i::4]) for i in range(4)]
    make = lambda *rows: make_batch(cx.SquaredError(), *rows, 1, FLAT.dtype)
    stream = StreamBatches(cx.Stream(parts, mean_weight=WEIGHTS.mean()), cx.SquaredError(), make)
    found = iter(stream)
    assert np.mean([_system(next(found))[0] for _ in range(4)]) == pytest.approx(loss, rel=1e-12)
    # Without it the mean so far stands in, which is that of all rows once an epoch is over.
    stream = StreamBatches(cx.Stream(parts), cx.SquaredError(), make)
    found = iter(stream)
    totals = [float(next(found).total) for _ in range(4)]
    seen = np.cumsum([part[2].sum() for part in parts]) / (6 * np.arange(1, 5))
    np.testing.assert_allclose(totals, 6 * seen, rtol=1e-12)
    assert stream.epochs == []
    next(found)
    assert stream.epochs == [4]


def test_a_batch_of_one_tiny_row_hardly_counts():
    batches = _epoch(Batches(_full(), 1, jax.random.key(0)))
    data = [np.linalg.norm(_system(batch)[1]) for batch in batches]
    weights = [float(batch.weights[0]) for batch in batches]
    tiny = np.array(data)[np.array(weights) == 1e-6]
    assert len(tiny) == 2
    assert tiny.max() < 1e-4 * np.median(data)


def test_rows_that_fill_up_do_not_dilute():
    """The last of three batches of ten holds four rows: its scale is that of four."""
    batches = _epoch(Batches(_full(), 10, jax.random.key(0)))
    np.testing.assert_allclose([float(batch.total) / WEIGHTS.mean() for batch in batches], [10, 10, 4])


def test_all_rows_are_divided_by_their_own_sum():
    assert next(iter(Batches(_full(), None, None))).total is None
    assert next(iter(Batches(_full(), ROWS, jax.random.key(0)))).total is None


# Streams --------------------------------------------------------------------------------------------------------------

OPTIONS = {"strength": 1e-3, "max_steps": 8, "tolerance": 0.0}
PIECES = [(INPUTS[a:b], TARGETS[a:b]) for a, b in ((0, 8), (8, 15), (15, 24))]


def test_lists_functions_and_generators_give_the_same_run():
    runs = [
        cx.train(*PARTS, START, data, **OPTIONS)
        for data in (PIECES, cx.Stream(PIECES), lambda: iter(PIECES), (piece for piece in PIECES * 3))
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(helpers.flatten(run.params), helpers.flatten(runs[0].params))
    assert len(runs[0].history["loss"]) == 8
    # The loss is that of the batch before its step: the first is a mean over the first eight rows at the start.
    outputs, _ = helpers.network(helpers.as_layers(START), INPUTS[:8], helpers.scales_of(MODEL), "tanh")
    assert runs[0].history["loss"][0] == pytest.approx(0.5 * np.mean((outputs - TARGETS[:8]) ** 2), rel=1e-12)


def test_batches_of_nearly_the_same_size_share_one_program():
    cx.train(*PARTS, START, [(INPUTS[:20], TARGETS[:20])] * 2, **OPTIONS)
    before = compiled_steps()
    sizes = (20, 17, 19, 3, 18)
    cx.train(*PARTS, START, [(INPUTS[:size], TARGETS[:size]) for size in sizes], **OPTIONS)
    assert compiled_steps() == before


def test_a_table_on_the_disk_is_never_read_whole(tmp_path):
    """Rows of a memmap, four of them a batch: no copy that is made holds more rows than a batch."""
    largest = []

    class Watched(np.memmap):
        def __array_finalize__(self, other):
            super().__array_finalize__(other)

        def __array__(self, *args, **kwargs):
            largest.append(self.shape[0])
            return np.asarray(np.array(self.view(np.ndarray)), *args, **kwargs)

        def __getitem__(self, index):
            found = super().__getitem__(index)
            largest.append(len(found))
            return found

    rows = 4000
    writable = np.memmap(tmp_path / "x", np.float32, "w+", shape=(rows, 2))
    writable[:] = np.random.default_rng(0).normal(size=(rows, 2))
    writable.flush()
    table = Watched(tmp_path / "x", np.float32, "r", shape=(rows, 2))

    def epoch():
        for start in np.random.default_rng(0).permutation(rows // 4) * 4:
            part = table[start : start + 4]
            yield part, np.sin(part[:, :1])

    result = cx.train(*PARTS, START, epoch, strength=1e-3, max_steps=12, tolerance=0.0)
    assert len(result.history["loss"]) == 12
    assert np.isfinite(result.history["loss"]).all()
    assert len(largest) >= 12
    assert max(largest) == 4


BAD = INPUTS[:8].copy()
BAD[2, 1] = np.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"the data hold no batches"),
        (
            iter(PIECES),
            r"the data ended after 3 batches and cannot be read again: pass a list",
        ),
        ([PIECES[0], (BAD, TARGETS[:8])], r"batch 2 of epoch 1: inputs must be finite.*nan, is at index \(2, 1\)"),
        ([PIECES[0], (INPUTS[:8], TARGETS[:7])], r"batch 2 of epoch 1: .*same number of rows; got \[7, 8\]"),
        ([PIECES[0], (INPUTS[:8, :1], TARGETS[:8])], r"batch 2 of epoch 1: rows have the shapes \[\(1,\), \(1,\)\]"),
        ([INPUTS], r"batch 1 of epoch 1: must be \(inputs, targets\) or \(inputs, targets, weights\); got ndarray"),
        ([(*PIECES[0], np.zeros(8))], r"batch 1 of epoch 1: weights must be from 0 up with one above 0"),
        ([(INPUTS[:0], TARGETS[:0])], r"batch 1 of epoch 1: the data hold no rows"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_batches_are_named(data, message):
    with pytest.raises(ValueError, match=message):
        cx.train(*PARTS, START, data, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4, "key": jax.random.key(0)}, r"`train\(batch_size=...\)` belongs to arrays"),
        ({"weights": np.ones(ROWS)}, r"`train\(weights=...\)` belongs to arrays"),
        ({"strength": cx.Evidence()}, r"the evidence is that of all rows; use batch_size=None and arrays"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_of_arrays_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cx.train(*PARTS, START, PIECES, **{**OPTIONS, **options})


@pytest.mark.usefixtures("unchecked")
def test_streams_are_made_of_something_iterable():
    with pytest.raises(TypeError, match=r"`Stream\(3\)`: must be a function"):
        cx.Stream(3)
    with pytest.raises(ValueError, match=r"`Stream\(mean_weight=-1\)`: must be a positive finite number"):
        cx.Stream([], mean_weight=-1)


def test_epochs_end_where_a_stream_does():
    """Convergence is judged on epochs: one that changes nothing more ends the run at its own end."""
    linear = cx.MLP(inputs=2, widths=())
    start = (cx.DenseLayer(jnp.ones((1, 2)), jnp.ones(1)),)
    result = cx.train(linear, cx.SquaredError(), cx.L2(), start, PIECES, strength=1e-3, max_steps=400, tolerance=0.05)
    assert result.status is cx.RunStatus.CONVERGED
    assert len(result.history["loss"]) % 3 == 1


def test_a_batch_is_a_tree_with_or_without_its_total():
    batch = Batch(jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.ones(2))
    assert len(jax.tree.leaves(batch)) == 3
    assert len(jax.tree.leaves(batch._replace(total=jnp.ones(())))) == 4
