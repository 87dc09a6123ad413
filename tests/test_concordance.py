"""κ of every loss: |D³ℓ(o)[s, u, u]| ≤ κ(s) D²ℓ(o)[u, u] along any s and u, and no smaller κ would do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import concordax as cx
import helpers
from loss_cases import HUBER, LOSSES, MIXED, QUANTILE, WIDTH

ROWS, OUTPUTS = 400, 3


def _cross_entropy(o, y):
    return jax.nn.logsumexp(o) * jnp.sum(y) - y @ o


# One row's loss as it is first written down; constant terms left out.
FORMULAS = {
    "squared": lambda o, y: 0.5 * jnp.sum((o - y) ** 2),
    "pseudo-huber": lambda o, y: HUBER**2 * jnp.sum(jnp.sqrt(1 + ((o - y) / HUBER) ** 2)),
    "softmax": _cross_entropy,
    "binary": lambda o, y: jnp.sum(jnp.log(1 + jnp.exp(o)) - y * o),
    "poisson": lambda o, y: jnp.sum(jnp.exp(o) - y * o),
    "quantile": lambda o, y: jnp.sum(0.5 * jnp.sqrt(WIDTH**2 + (y - o) ** 2) + (QUANTILE - 0.5) * (y - o)),
    "custom": lambda o, y: jnp.sqrt(1 + jnp.sum((o - y) ** 2)),
    "per output": lambda o, y: 0.5 * (o[0] - y[0]) ** 2 + MIXED * _cross_entropy(o[1:], y[1:]),
}


def _second_and_third(formula):
    """D²ℓ(o)[u, u] and D³ℓ(o)[s, u, u] of a row."""

    def second(o, y, u):
        along = lambda f: lambda x: jax.jvp(f, (x,), (u,))[1]
        return along(along(lambda x: formula(x, y)))(o)

    def both(o, y, s, u):
        return jax.jvp(lambda x: second(x, y, u), (o,), (s,))

    return jax.jit(jax.vmap(both))


DERIVATIVES = {name: _second_and_third(formula) for name, formula in FORMULAS.items()}


BOUNDS = {name: jax.jit(jax.vmap(lambda s, loss=loss: loss.concordance(s[None]))) for name, loss in LOSSES.items()}


def _points(name, seed, spread):
    """Outputs, targets, directions s and u: those of all sizes, sparse ones among them."""
    rng = np.random.default_rng(seed)
    y = helpers.draw_targets(name, rng, ROWS, OUTPUTS)
    o = y + spread * rng.normal(size=(ROWS, OUTPUTS))
    s, u = rng.normal(size=(2, ROWS, OUTPUTS)) * (rng.random((2, ROWS, OUTPUTS)) < 0.7)
    return o, y, s, u


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 2**31), spread=st.floats(0.01, 6))
@settings(max_examples=25, deadline=None)
def test_bounds_the_third_derivative(name, seed, spread):
    o, y, s, u = _points(name, seed, spread)
    second, third = (np.asarray(part) for part in DERIVATIVES[name](o, y, s, u))
    bound = np.asarray(BOUNDS[name](s))
    # Rounding of the second and third derivatives, whose terms cancel.
    slack = 1e-12 * np.abs(s).max(axis=1) * (u**2).sum(axis=1) * np.exp(np.abs(o).max(axis=1) * (name == "poisson"))
    assert np.all(np.abs(third) <= bound * second * (1 + 1e-9) + slack)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "squared"])
def test_is_reached(name):
    rng = np.random.default_rng(0)
    y = helpers.draw_targets(name, rng, ROWS, OUTPUTS)
    o = y + 8 * (rng.random((ROWS, OUTPUTS)) - 0.5)
    if name == "custom":
        # Along the line through y, at a distance of 1.
        line = rng.normal(size=(ROWS, OUTPUTS))
        line /= np.linalg.norm(line, axis=1, keepdims=True)
        s, o = line, y + line
    else:
        s = np.eye(OUTPUTS)[rng.integers(1, OUTPUTS, ROWS)]
    second, third = (np.asarray(part) for part in DERIVATIVES[name](o, y, s, s))
    bound = float(LOSSES[name].concordance(jnp.asarray(s[:1])))
    assert np.max(np.abs(third) / (bound * second)) > 0.97


def test_the_largest_of_all_rows_and_outputs():
    slopes = np.array([[0.1, -0.2, 0.3], [1.0, -3.0, 0.5]])
    expected = {
        "squared": 0.0,
        "pseudo-huber": 1.5 * 3 / HUBER,
        "softmax": 4.0,
        "binary": 3.0,
        "poisson": 3.0,
        "quantile": 1.5 * 3 / WIDTH,
        "custom": 1.5 * np.sqrt(10.25),
        "per output": 3.5,
    }
    found = {name: float(loss.concordance(jnp.asarray(slopes))) for name, loss in LOSSES.items()}
    assert found == pytest.approx(expected)


def test_a_scalar_loss_has_the_constant_that_the_search_finds():
    quantile = FORMULAS["quantile"]
    found = cx.tightest(lambda t: quantile(t[None], jnp.zeros(1)), 2.0)
    assert found.constant == pytest.approx(1.5 / WIDTH, rel=1e-7)
    assert abs(found.at) == pytest.approx(WIDTH, rel=1e-3)
