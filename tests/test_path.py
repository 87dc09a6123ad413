"""A path over strengths: each point is a run of its own from the last point's parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers

MODEL = cx.MLP(inputs=3, widths=(6,), outputs=1)
RNG = np.random.default_rng(0)
START = helpers.draw_params(MODEL, RNG)
X = RNG.normal(size=(40, 3))
Y = np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=40)
PARTS = (MODEL, cx.SquaredError(), cx.L2())
DATA, HELD_OUT = (X[:30], Y[:30]), (X[30:], Y[30:])
OPTIONS = {"solver": cx.Primal(), "max_steps": 6, "validation": HELD_OUT}


@pytest.fixture(scope="module")
def path():
    return cx.strength_path(*PARTS, START, DATA, strengths=np.array([1e-1, 1e-3, 1e-2]), **OPTIONS)


def test_each_point_is_a_run_from_the_last_ones_parameters(path):
    assert path.strengths.tolist() == [1e-3, 1e-2, 1e-1]
    params = START
    for index, strength in enumerate(path.strengths.tolist()):
        run = cx.train(*PARTS, params, DATA, strength=strength, **OPTIONS)
        params = run.params
        for one, other in zip(jax.tree.leaves(path.params[index]), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
        assert path.status[index] == run.status
        assert path.steps[index] == len(run.history["loss"])
        outputs = helpers.network(helpers.as_layers(path.params[index]), X, helpers.scales_of(MODEL), "tanh")[0][:, 0]
        assert path.loss[index] == pytest.approx(0.5 * np.mean((outputs - Y)[:30] ** 2), rel=1e-9)
        assert path.validation_loss[index] == pytest.approx(0.5 * np.mean((outputs - Y)[30:] ** 2), rel=1e-9)


def test_counts_and_the_best_point(path):
    assert {name: values.tolist() for name, values in path.counts.items() if name != "hold 99.9 %"} == {
        "nonzeros": [31] * 3, "units": [6] * 3, "inputs": [3] * 3,
    }  # fmt: skip
    assert path.best == int(np.argmin(path.validation_loss))
    with pytest.raises(ValueError, match="validation"):
        path._replace(validation_loss=np.full(3, np.nan)).best  # noqa: B018
    # Counts at a tolerance, of parameters that are no layers: no units, no inputs.
    line = cx.strength_path(
        lambda w, x: x @ w, cx.SquaredError(), cx.L2(), jnp.ones((3, 1)), DATA, strengths=[10.0, 1e-3],
        keep_order=True, zero_tolerance=0.5, solver=cx.Primal(),
    )  # fmt: skip
    assert line.strengths.tolist() == [10.0, 1e-3]
    assert set(line.counts) == {"nonzeros", "hold 99.9 %"}
    for weights, strength, nonzeros in zip(line.params, line.strengths, line.counts["nonzeros"], strict=True):
        x = X[:30]
        ridge = np.linalg.solve(x.T @ x / 30 + strength * np.eye(3), x.T @ Y[:30] / 30)
        np.testing.assert_allclose(weights[:, 0], ridge, rtol=1e-5)
        assert nonzeros == np.sum(np.abs(ridge) > 0.5 * np.abs(ridge).max())


def test_all_runs_share_one_program():
    count = []

    def counted(w, x):
        count.append(None)
        return x @ w

    options = {"solver": cx.Primal(), "max_steps": 2}
    arguments = (counted, cx.SquaredError(), cx.L2(), jnp.ones((3, 1)), DATA)
    cx.strength_path(*arguments, strengths=[1.0], **options)
    first = len(count)
    cx.strength_path(*arguments, strengths=[1.0, 2.0, 3.0], **options)
    assert first > 0
    assert len(count) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": []}, "one strength or more"),
        ({"strengths": [1.0, 0.0]}, r"0\.0.*positive finite"),
        ({"strengths": [np.inf]}, "positive finite"),
        ({"strengths": [1.0], "strength": 1.0}, r"strength_path\(strength="),
        ({"strengths": [1.0], "step": cx.TrustRegion}, "Did you mean `TrustRegion"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_makes_no_path_is_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cx.strength_path(*PARTS, START, DATA, **options)
