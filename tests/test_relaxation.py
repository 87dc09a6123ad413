"""Networks of a path trained again: ridge regression on the columns that each reads, where the network is linear."""

import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers

# Few rows and much noise: the best strength is not the same for all.
LEARNT = 10
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4))
Y = X[:, 1] - 2 * X[:, 3] + 0.5 + RNG.normal(size=50)
DATA, HELD_OUT = (X[:LEARNT], Y[:LEARNT]), (X[LEARNT:], Y[LEARNT:])
LINEAR = (cx.MLP(inputs=4, widths=()), cx.SquaredError())
READ = ([0, 1, 2, 3], [1, 3], [3])
STRENGTHS = (10.0, 1e-3, 1e-5)
OPTIONS = {"solver": cx.Primal(), "max_steps": 20, "validation": HELD_OUT}


def _path(*read) -> cx.StrengthPath:
    """A path whose points read the given columns, with weights far too small."""
    params = tuple(
        (cx.DenseLayer(jnp.zeros((1, 4)).at[:, jnp.array(columns)].set(0.01), jnp.zeros(1)),) for columns in read
    )
    nothing = np.full(len(read), np.nan)
    return cx.StrengthPath(nothing, nothing, nothing, (), params, (), np.zeros(len(read), int))


def _ridge(columns, strength):
    """Predictions for all rows by the minimizer of ½ mean (Aθ − y)² + ½ τ‖θ‖², A = [x/√d, 1]."""
    design = np.column_stack([X[:, columns] / np.sqrt(len(columns)), np.ones(50)])
    a, y = design[:LEARNT], Y[:LEARNT]
    return design @ np.linalg.solve(a.T @ a / LEARNT + strength * np.eye(design.shape[1]), a.T @ y / LEARNT)


def test_each_network_is_the_best_ridge_regression_on_its_columns():
    relaxed = cx.relax(*LINEAR, cx.L2(), _path(*READ), DATA, strengths=STRENGTHS, **OPTIONS)
    half_squares = lambda errors: 0.5 * np.mean(errors**2)
    for index, columns in enumerate(READ):
        fits = {strength: _ridge(columns, strength) for strength in STRENGTHS}
        best = min(fits, key=lambda strength: half_squares(fits[strength][LEARNT:] - Y[LEARNT:]))
        network = relaxed.networks[index]
        assert network.inputs.tolist() == columns
        np.testing.assert_allclose(network(jnp.asarray(X))[:, 0], fits[best], rtol=1e-6)
        assert relaxed.strengths[index] == best
        assert relaxed.validation_loss[index] == pytest.approx(half_squares(fits[best][LEARNT:] - Y[LEARNT:]), rel=1e-6)
        assert relaxed.loss[index] == pytest.approx(half_squares(fits[best][:LEARNT] - Y[:LEARNT]), rel=1e-6)
    assert set(relaxed.strengths) == {1e-5, 1e-3}
    assert relaxed.best == int(np.argmin(relaxed.validation_loss))
    assert relaxed.best == 1


def test_the_choice_falls_on_the_inputs_that_matter_where_the_paths_own_keeps_all():
    model = cx.MLP(inputs=8, widths=(5,))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 8))
    y = np.sin(x[:, 0]) + x[:, 1] + 0.3 * rng.normal(size=160)
    start = helpers.draw_params(model, rng)
    rows, options = (x[:80], y[:80]), {"validation": (x[80:], y[80:]), "max_steps": 40}
    step = cx.ProximalStep(cx.GroupLasso(cx.Groups.inputs(start)))
    parts = (model, cx.SquaredError())
    path = cx.strength_path(*parts, 0.1 * cx.L2(), start, rows, strengths=(1e-2, 6e-2), step=step, **options)
    relaxed = cx.relax(*parts, cx.L2(), path, rows, strengths=[1e-3], **options)
    assert path.counts["inputs"][path.best] > 2
    assert relaxed.best == 1
    assert relaxed.networks[1].inputs.tolist() == [0, 1]
    # The penalty drew the weights towards zero; without it the same inputs explain more.
    assert relaxed.loss[1] < path.loss[1]


@pytest.mark.usefixtures("unchecked")
def test_rows_to_choose_by_are_needed():
    with pytest.raises(ValueError, match=r"`relax\(validation=None\)`"):
        cx.relax(*LINEAR, cx.L2(), _path([1]), DATA, strengths=[1.0], validation=None)
    with pytest.raises(ValueError, match=r"strengths=\[\]"):
        cx.relax(*LINEAR, cx.L2(), _path([1]), DATA, strengths=[], validation=HELD_OUT)


def test_a_network_without_known_parts_is_refused():
    with pytest.raises(TypeError, match="must be a TwoLayer or MLP"):
        cx.relax(
            lambda w, x: x @ w, cx.SquaredError(), cx.L2(), _path([1]), DATA, strengths=[1.0], validation=HELD_OUT
        )
