"""Centered models, and how linear a network stayed, against dense NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from certificate_cases import PENALTIES, ROWS, STRENGTH, Dense, linear, penalty_parts
from concordax import ntk
from concordax.jacobians import linearize


@pytest.mark.parametrize("layered", [True, False])
def test_centered_model_has_the_jacobian_of_the_network(layered):
    case = Dense()
    model = case.change if layered else ntk.centered(lambda params, x: case.model(params, x), case.params)[0]
    flat, unravel = ravel_pytree(case.start)

    @jax.jit
    def both(flat):
        outputs, jacobian = linearize(model, unravel, flat, jnp.asarray(case.inputs))
        return outputs, jacobian.mv(jnp.asarray(case.flat))

    outputs, slopes = both(flat)
    expected, rows = case.network(case.center + case.flat)
    np.testing.assert_allclose(outputs, expected - case.first, atol=1e-12)
    np.testing.assert_allclose(slopes[:, 0], rows @ case.flat, rtol=1e-10)
    assert type(model).__name__ == ("CenteredLayers" if layered else "Centered")


def test_linearization_equals_dense_numpy():
    """Error, kernel drift, and what a linear model fitted again would leave, in the metric of the penalty."""
    name, rng = "pseudo-Huber", np.random.default_rng(4)
    case = Dense(name)
    last = case.flat + 0.3 * rng.normal(size=case.flat.size)
    end = ravel_pytree(case.start)[1](jnp.asarray(last))
    other = Dense(name)
    other.inputs = rng.normal(size=(ROWS, 3))
    hessian = penalty_parts(name, case.flat)[2]

    def line(dense):
        (before, jacobian), (after, turned) = (dense.network(case.center + d) for d in (case.flat, last))
        return (after - before)[:, 0], (after - before)[:, 0] - jacobian @ (last - case.flat), jacobian, turned

    change, missed, jacobian, turned = line(other)
    _, fitted, rows, _ = line(case)
    kernel = lambda a, b: a / hessian @ b.T
    left = missed - kernel(jacobian, rows) @ np.linalg.solve(kernel(rows, rows) + ROWS * STRENGTH * np.eye(6), fitted)
    drift = kernel(turned, turned) - kernel(jacobian, jacobian)
    metric = PENALTIES[name].metric(jnp.asarray(case.flat))
    options = {"trained_on": case.inputs, "strength": STRENGTH, "metric": metric}
    found = ntk.linearization(case.change, case.start, end, other.inputs, **options)
    size = np.linalg.norm(change)
    assert found.error == pytest.approx(np.linalg.norm(missed) / size, rel=1e-8)
    assert found.left == pytest.approx(np.linalg.norm(left) / size, rel=1e-8)
    assert found.kernel_drift == pytest.approx(np.linalg.norm(drift) / np.linalg.norm(kernel(jacobian, jacobian)))
    assert abs(found.left - found.error) > 0.01
    between = 0.5 * (found.left + found.error)
    judge = lambda **rows: ntk.linearization(case.change, case.start, end, other.inputs, **rows, tolerance=between)
    assert judge(**options).broke == (found.left > between)
    assert judge().broke == (found.error > between)
    assert judge().left is None


def test_linearization_at_its_ends():
    """A linear model never breaks, parameters that are not finite always do; what does not fit is refused."""
    start, inputs = jnp.zeros(3), np.eye(3)
    assert ntk.linearization(linear, start, start + 5, inputs).error == pytest.approx(0, abs=1e-12)
    assert not ntk.linearization(linear, start, start, inputs).broke
    assert ntk.linearization(linear, start, start + jnp.nan, inputs).broke
    with pytest.raises(ValueError, match="one model"):
        ntk.linearization(linear, start, jnp.zeros(4), inputs)
    with pytest.raises(ValueError, match="tolerance"):
        ntk.linearization(linear, start, start, inputs, tolerance=0.0)
    with pytest.raises(ValueError, match="strength"):
        ntk.linearization(linear, start, start, inputs, strength=-1.0)
