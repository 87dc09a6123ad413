"""The (M, ν) calculus against third derivatives, and constants found by numbers against those derived by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx

INF = math.inf


def pseudo_huber(t):
    return jnp.sqrt(1 + t**2) - 1


def ostrovskii_bach(t):
    root = jnp.sqrt(1 + 4 * t**2)
    return 0.5 * (root - 1 - jnp.log((1 + root) / 2))


def log_cosh(t):
    return jnp.log(jnp.cosh(t))


def barrier(t):
    return -jnp.log(t) - jnp.log(1 - t)


CASES = {
    # name: φ, ν, domain, M to relative 1e-6, |t| where it is reached (None: only approached, or everywhere)
    "pseudo-Huber at 2": (pseudo_huber, 2.0, (-INF, INF), 1.5, 1.0),
    "pseudo-Huber at 2.6": (pseudo_huber, 2.6, (-INF, INF), 3 * math.sqrt(10) * 11**-0.55, math.sqrt(10)),
    "pseudo-Huber at 8/3": (pseudo_huber, 8 / 3, (-INF, INF), 3.0, None),
    "pseudo-Huber at 2.67": (pseudo_huber, 2.67, (-INF, INF), INF, INF),
    "pseudo-Huber at 3": (pseudo_huber, 3.0, (-INF, INF), INF, INF),
    "far from 0": (lambda t: pseudo_huber(t - 300), 2.6, (-INF, INF), 3 * math.sqrt(10) * 11**-0.55, None),
    "Ostrovskii-Bach at 2": (ostrovskii_bach, 2.0, (-INF, INF), 1.5907517, None),
    "Ostrovskii-Bach at 3": (ostrovskii_bach, 3.0, (-INF, INF), 2 * math.sqrt(2), None),
    "log cosh": (log_cosh, 2.0, (-INF, INF), 2.0, None),
    "log cosh at 2.6": (log_cosh, 2.6, (-INF, INF), INF, INF),
    "exponential": (lambda t: jnp.exp(-t), 2.0, (-INF, INF), 1.0, None),
    "exponential at 2.6": (lambda t: jnp.exp(-t), 2.6, (-INF, INF), INF, INF),
    "exponential below 2": (lambda t: jnp.exp(-t), 1.5, (-INF, INF), INF, INF),
    "square": (lambda t: t**2 / 2, 2.0, (-INF, INF), 0.0, None),
    "fourth power": (lambda t: t**4, 2.0, (-INF, INF), INF, 0.0),
    "barrier of a half-line": (lambda t: -jnp.log(t), 3.0, (0.0, INF), 2.0, None),
    "barrier of a half-line at 2": (lambda t: -jnp.log(t), 2.0, (0.0, INF), INF, 0.0),
    "mirrored": (lambda t: -jnp.log(-t), 3.0, (-INF, 0.0), 2.0, None),
    "barrier of an interval": (barrier, 3.0, (0.0, 1.0), 2.0, None),
}


@pytest.mark.parametrize("name", CASES)
def test_tightest(name):
    phi, order, domain, constant, at = CASES[name]
    found = cx.tightest(phi, order, domain=domain)
    assert found.order == order
    assert found.constant == pytest.approx(constant, rel=1e-6)
    if at is not None:
        assert abs(found.at) == pytest.approx(at, rel=1e-4)


def test_ostrovskii_bach_by_its_own_formula():
    # φ'' = 2/(1+s)·1/s, s = √(1+4t²), differentiated by hand, on a grid of its own.
    t = np.linspace(0.01, 5, 200001)
    s = np.sqrt(1 + 4 * t**2)
    second = 2 / (s * (1 + s))
    third = -2 * (4 * t / s) * (1 + 2 * s) / (s * (1 + s)) ** 2
    assert np.max(np.abs(third) / second) == pytest.approx(cx.tightest(ostrovskii_bach, 2.0).constant, rel=1e-8)


def test_verify():
    published = cx.verify(pseudo_huber, 2.0, 2.6)
    assert not published
    assert published.worst == pytest.approx(2.5372034 / 2, rel=1e-7)
    assert abs(published.at) == pytest.approx(math.sqrt(10), rel=1e-4)
    assert cx.verify(pseudo_huber, 1.5, 2.0)
    assert not cx.verify(pseudo_huber, 1.4999, 2.0)
    assert not cx.verify(pseudo_huber, 1e6, 3.0)
    assert cx.verify(lambda t: t**2, 0.0, 2.0)
    assert not cx.verify(lambda t: jnp.exp(t), 0.0, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cx.tightest(lambda t: -(t**2), 2.0), "not convex on the domain.*second derivative is -2 "),
        (lambda: cx.tightest(lambda t: -jnp.sqrt(t), 2.0, domain=(-2.0, -1.0)), "no point in the domain"),
        (lambda: cx.tightest(pseudo_huber, -1.0), r"`tightest\(order=-1.0"),
        (lambda: cx.tightest(pseudo_huber, 2.0, domain=(1.0, 1.0)), "low below high"),
        (lambda: cx.verify(pseudo_huber, -1.0, 2.0), r"`verify\(constant=-1.0\)`"),
        (lambda: cx.SelfConcordance(1.0, 3.5).affine(2.0), "orders from 2 to 3; this one is 3.5"),
        (lambda: cx.SelfConcordance(1.0, 2.0).affine(-2.0), r"affine\(norm=-2.0\)"),
        (lambda: cx.SelfConcordance.total([]), "at least one part"),
        (lambda: cx.SelfConcordance.total([cx.SelfConcordance(1.0, 2.0)], [0.0]), "a positive weight each"),
        (
            lambda: cx.SelfConcordance.total([cx.SelfConcordance(1.0, 2.0), cx.SelfConcordance(1.0, 3.0)]),
            r"orders \[2.0, 3.0\]",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _pseudo_huber_derivatives(t):
    return (1 + t**2) ** -1.5, -3 * t * (1 + t**2) ** -2.5


KNOWN = {2.0: 1.5, 2.6: 3 * math.sqrt(10) * 11**-0.55, 8 / 3: 3.0}


@pytest.mark.parametrize("order", KNOWN)
def test_affine_and_sum_hold_in_several_dimensions(order):
    """x ↦ Σ_i β_i φ(a_i·x + b_i): third derivatives by the chain rule against the constants of the calculus."""
    rng = np.random.default_rng(1)
    part = cx.SelfConcordance(KNOWN[order], order)
    largest = 0.0
    for size in (1, 2, 5):
        a, b = rng.normal(size=(4, size)), rng.normal(size=4)
        beta = np.exp(2 * rng.normal(size=4))
        total = cx.SelfConcordance.total([part.affine(float(np.linalg.norm(row))) for row in a], list(beta))
        x, u, v = rng.normal(size=(3, 500, size)) * np.exp(2 * rng.normal(size=(3, 500, 1)))
        second, third = _pseudo_huber_derivatives(x @ a.T + b)
        along_u, along_v = u @ a.T, v @ a.T
        left = np.abs((beta * third * along_u**2 * along_v).sum(axis=1))
        right = (
            (beta * second * along_u**2).sum(axis=1)
            * (beta * second * along_v**2).sum(axis=1) ** (order / 2 - 1)
            * (v**2).sum(axis=1) ** ((3 - order) / 2)
        )
        assert np.all(left <= total.constant * right * (1 + 1e-9))
        largest = max(largest, np.max(left / (total.constant * right)))
    # The bound is within reach, so that a wrong power of a norm or weight would break it.
    assert largest > 0.3


@pytest.mark.parametrize("order", KNOWN)
def test_affine_is_tight_in_one_dimension(order):
    found = cx.tightest(lambda t: 0.1 * pseudo_huber(5 * t + 1), order)
    expected = cx.SelfConcordance(KNOWN[order], order).affine(5.0).scaled(0.1)
    assert found.constant == pytest.approx(expected.constant, rel=1e-6)
