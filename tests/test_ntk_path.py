"""The path in function space against steps that are taken, one after the other, in the space of the parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import minimize

import concordax as cx
from concordax import ntk
from concordax.metrics import DiagonalMetric
from test_import import EXTRAS, loaded_by

ROWS, NEW, OUTPUTS = 12, 4, 2
STEPS = (0, 1, 2, 7, 40)
TAU, LAM, ALPHA = 3e-3, 2e-2, 0.6
RULES = {
    "Gauss-Newton": ntk.GaussNewtonPath(ALPHA, damping=LAM),
    "undamped": ntk.GaussNewtonPath(1.0),
    "descent": ntk.GradientDescentPath(0.05),
    "flow": ntk.GradientFlow(),
}


def linear(params, inputs):
    return inputs @ params


class Problem:
    """A linear model of `features` parameters an output: rows that repeat with other targets, weights 0 and 2."""

    def __init__(self, features):
        rng = np.random.default_rng(features)
        self.x, self.new = rng.normal(size=(ROWS, features)), rng.normal(size=(NEW, features))
        self.x[3] = self.x[4] = self.x[5]
        self.y = rng.normal(size=(ROWS, OUTPUTS))
        self.weights = np.array([1.0, 2.0, 0.0, 0.5, 1.0, 2.0] + [1.0] * (ROWS - 6))
        self.start = rng.normal(size=(features, OUTPUTS))
        self.curvature = rng.uniform(0.5, 2.0, size=features)
        share = self.weights / self.weights.sum()
        self.normal, self.share = self.x.T @ (share[:, None] * self.x), share

    def gradient(self, theta, decay):
        return self.x.T @ (self.share[:, None] * (self.x @ theta - self.y)) + decay * theta

    def predict(self, rule, steps, **options):
        data = (jnp.asarray(self.x), jnp.asarray(self.y))
        return ntk.predict_training(
            linear, jnp.asarray(self.start), data, path=rule, steps=steps, weights=self.weights, test_inputs=self.new,
            **options,
        )  # fmt: skip

    def taken(self, rule, steps, strength, decay, metric=None):
        """The parameters after each number of steps, by a loop, or for the flow by the exponential of a matrix."""
        metric = np.eye(len(self.start)) if metric is None else metric
        if isinstance(rule, ntk.GradientFlow):
            slope, force = self.normal + decay * np.eye(len(self.start)), self.gradient(0 * self.start, decay)
            whole = np.zeros((len(slope) + OUTPUTS,) * 2)
            whole[: len(slope)] = np.linalg.solve(metric, np.hstack([-slope, -force]))
            return [(expm(t * whole) @ np.vstack([self.start, np.eye(OUTPUTS)]))[: len(slope)] for t in steps]
        theta, seen = self.start, {0: self.start}
        for step in range(1, max(steps) + 1):
            gradient = self.gradient(theta, decay)
            if isinstance(rule, ntk.GaussNewtonPath):
                matrix = self.normal + (strength + rule.damping) * metric
                theta = theta - rule.step_size * np.linalg.solve(matrix, gradient)
            else:
                theta = theta - rule.rate * np.linalg.solve(metric, gradient)
            seen[step] = theta
        return [seen[step] for step in steps]

    def agrees(self, found, thetas, tolerance=1e-10):
        train, new = (np.stack([x @ theta for theta in thetas]) for x in (self.x, self.new))
        np.testing.assert_allclose(found.train_outputs, train, atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(found.test_outputs, new, atol=tolerance, rtol=tolerance)
        loss = 0.5 * np.einsum("snc,n->s", (train - self.y) ** 2, self.share)
        np.testing.assert_allclose(found.loss, loss, atol=tolerance, rtol=tolerance)
        assert found.train_outputs.dtype == found.loss.dtype == np.float64


PROBLEMS = {features: Problem(features) for features in (5, 20)}


@pytest.mark.parametrize("features", PROBLEMS)
@pytest.mark.parametrize("penalized", [False, True], ids=["no penalty", "l2"])
@pytest.mark.parametrize("rule", RULES)
def test_path_is_that_of_the_steps(rule, penalized, features):
    problem, newton = PROBLEMS[features], isinstance(RULES[rule], ntk.GaussNewtonPath)
    strength = TAU if penalized or newton else 0.0
    options = {"strength": strength, "regularizer": cx.L2() if penalized else None}
    thetas = problem.taken(RULES[rule], STEPS, strength, TAU if penalized else 0.0)
    problem.agrees(problem.predict(RULES[rule], STEPS, **options), thetas)
    assert np.abs(thetas[0] - thetas[-1]).max() > 0.1


@pytest.mark.parametrize("rule", RULES)
def test_a_metric_takes_part(rule):
    problem, newton = PROBLEMS[20], isinstance(RULES[rule], ntk.GaussNewtonPath)
    # Flat parameters are row by row: those of one feature have one curvature.
    metric = DiagonalMetric(jnp.asarray(1 / np.repeat(problem.curvature, OUTPUTS)))
    strength = TAU if newton else 0.0
    thetas = problem.taken(RULES[rule], STEPS, strength, 0.0, np.diag(problem.curvature))
    problem.agrees(problem.predict(RULES[rule], STEPS, strength=strength, metric=metric), thetas)


@pytest.mark.parametrize("features", PROBLEMS)
@pytest.mark.parametrize("penalized", [False, True], ids=["no penalty", "l2"])
@pytest.mark.parametrize("rule", RULES)
def test_the_limit_is_the_minimum_next_to_the_start(rule, penalized, features):
    """Also where the kernel is singular, and after so many steps that rounding would have grown."""
    problem, newton = PROBLEMS[features], isinstance(RULES[rule], ntk.GaussNewtonPath)
    decay = 0.1 if penalized else 0.0
    root = np.sqrt(problem.share)[:, None]
    gap = root * (problem.y - problem.x @ problem.start)
    theta = problem.start + np.linalg.lstsq(root * problem.x, gap)[0]
    if penalized:
        theta = np.linalg.solve(problem.normal + decay * np.eye(features), -problem.gradient(0 * theta, 0.0))
    options = {"strength": 0.1 if penalized or newton else 0.0, "regularizer": cx.L2() if penalized else None}
    problem.agrees(problem.predict(RULES[rule], (math.inf, 10**8), **options), [theta, theta], 1e-7)


def test_growth_beyond_the_stable_rate_is_foreseen():
    problem = PROBLEMS[20]
    rate = 2.2 / np.linalg.eigvalsh(problem.normal)[-1]
    rule, steps = ntk.GradientDescentPath(rate), (1, 10, 30)
    problem.agrees(problem.predict(rule, steps), problem.taken(rule, steps, 0.0, 0.0), 1e-9)
    assert problem.predict(rule, steps).loss[-1] > problem.predict(rule, [0]).loss[0]
    with pytest.raises(ValueError, match=r"diverges beyond all numbers.*below"):
        problem.predict(rule, [10**6])
    with pytest.raises(ValueError, match="diverges"):
        problem.predict(rule, [math.inf])


def test_path_is_that_of_train():
    problem = PROBLEMS[5]
    options = {"strength": TAU, "damping": LAM, "step": cx.FixedStep(ALPHA), "max_steps": 9, "tolerance": 0.0}
    data, start = (jnp.asarray(problem.x), jnp.asarray(problem.y)), jnp.asarray(problem.start)
    run = cx.train(linear, cx.SquaredError(), cx.L2(), start, data, weights=problem.weights, **options)
    found = problem.predict(RULES["Gauss-Newton"], range(1, 10), strength=TAU, regularizer=cx.L2())
    np.testing.assert_allclose(found.loss, run.history["loss"], rtol=1e-10)
    np.testing.assert_allclose(found.train_outputs[-1], problem.x @ np.asarray(run.params), atol=1e-10)


# Penalties other than L2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["Gauss-Newton", "descent"])
def test_path_under_a_penalty_whose_hessian_moves(rule):
    """Pseudo-Huber: g' = t/√(1 + t²/μ²)/μ, g'' = (1 + t²/μ²)^{−3/2}/μ."""
    problem, smoothing, strength = PROBLEMS[5], 0.3, 0.05
    theta, seen = problem.start, [problem.start]
    for _ in range(6):
        stretch = 1 + (theta / smoothing) ** 2
        gradient = problem.gradient(theta, 0.0) + strength * theta / smoothing / np.sqrt(stretch)
        if rule == "descent":
            theta = theta - RULES[rule].rate * gradient
        else:
            curvature = stretch**-1.5 / smoothing
            shift = strength + LAM
            columns = [
                np.linalg.solve(problem.normal + shift * np.diag(h), g)
                for h, g in zip(curvature.T, gradient.T, strict=True)
            ]
            theta = theta - ALPHA * np.stack(columns, axis=1)
        seen.append(theta)
    options = {"strength": strength, "regularizer": cx.PseudoHuber(smoothing)}
    problem.agrees(problem.predict(RULES[rule], (6, 0, 2), **options), [seen[6], seen[0], seen[2]])


def test_limit_under_another_penalty_is_its_minimum():
    problem, smoothing, strength = PROBLEMS[5], 0.3, 0.05

    def objective(flat):
        theta = flat.reshape(problem.start.shape)
        loss = 0.5 * np.sum(problem.share[:, None] * (problem.x @ theta - problem.y) ** 2)
        return loss + strength * np.sum(np.sqrt(smoothing**2 + theta**2))

    best = minimize(objective, np.zeros(problem.start.size), method="BFGS", options={"gtol": 1e-9})
    found = problem.predict(RULES["descent"], [math.inf], strength=strength, regularizer=cx.PseudoHuber(smoothing))
    problem.agrees(found, [best.x.reshape(problem.start.shape)], 1e-5)
    with pytest.raises(TypeError, match=r"gradient flow has a closed form with L2\(\)"):
        problem.predict(RULES["flow"], [1.0], strength=strength, regularizer=cx.PseudoHuber(smoothing))


# Networks -------------------------------------------------------------------------------------------------------------


def _network(width, dtype=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    model = cx.MLP(inputs=3, widths=(width,))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype or float), model.init(jax.random.key(0)))
    return model, params, (jnp.asarray(x, dtype), jnp.asarray(np.sin(x[:, 0]), dtype))


@pytest.mark.parametrize("plain", [False, True], ids=["layered", "plain"])
def test_linearized_network_is_the_tangent(plain):
    model, params, (x, _) = _network(6)
    model = model.__call__ if plain else model
    tangent = ntk.linearized(model, params)
    assert isinstance(tangent, cx.LayeredModel) is not plain
    away = jax.tree.map(lambda leaf: leaf + jnp.sin(7 * jnp.arange(leaf.size).reshape(leaf.shape)), params)
    shifted = lambda s: model(jax.tree.map(lambda a, b: a + s * (b - a), params, away), x)
    expected = np.asarray(model(params, x) + (shifted(1e-5) - shifted(-1e-5)) / 2e-5)
    np.testing.assert_allclose(tangent(away, x), expected, atol=1e-8)
    assert np.abs(expected - np.asarray(shifted(1.0))).max() > 0.1
    # Its steps are those that the closed form foresees, from the Jacobian at the start.
    run = cx.train(
        tangent, cx.SquaredError(), cx.L2(), params, (x, x[:, :1]), strength=TAU, damping=LAM,
        step=cx.FixedStep(ALPHA), max_steps=3, tolerance=0.0, solver=cx.Dual(),
    )  # fmt: skip
    options = {"path": RULES["Gauss-Newton"], "steps": [1, 2, 3], "strength": TAU, "regularizer": cx.L2()}
    found = ntk.predict_training(model, params, (x, x[:, :1]), **options)
    np.testing.assert_allclose(found.loss, run.history["loss"], rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_network_follows_its_path(dtype):
    """At width 1024 twenty steps to within 3 %; the tolerance is that of the width, not of the type."""
    model, params, data = _network(1024, dtype)
    run = cx.train(
        model, cx.SquaredError(), cx.L2(), params, data, strength=1e-6, damping=0.05, step=cx.FixedStep(0.2),
        max_steps=20, tolerance=0.0,
    )  # fmt: skip
    rule = ntk.GaussNewtonPath(0.2, damping=0.05)
    found = ntk.predict_training(model, params, data, path=rule, steps=range(1, 21), strength=1e-6, regularizer=cx.L2())
    np.testing.assert_allclose(found.loss, run.history["loss"], rtol=0.03)
    assert found.loss[-1] < 0.2 * found.loss[0]


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"path": cx.FixedStep(1.0)}, TypeError, "must be `GaussNewtonPath"),
        ({"steps": []}, ValueError, "one number of steps or more"),
        ({"steps": [1.5]}, ValueError, "whole numbers from 0 up"),
        ({"path": ntk.GradientFlow(), "strength": 0.0, "steps": [-1.0]}, ValueError, "numbers from 0 up"),
        ({"path": ntk.GradientFlow(), "steps": [1.5]}, ValueError, "without a regularizer has no effect"),
        ({"strength": -1.0}, ValueError, "finite number from 0 up"),
        ({"strength": 0.0}, ValueError, "must be positive"),
        ({"strength": 0.0, "regularizer": cx.L2()}, ValueError, "has no effect: pass a positive strength"),
        ({"regularizer": cx.L2(), "metric": DiagonalMetric(jnp.ones(10))}, ValueError, "one of the two"),
        ({"metric": cx.L2()}, TypeError, "must be a metric"),
        ({"weights": np.ones(3)}, ValueError, "the same number"),
        ({"data": (np.ones((2, 5)), np.array([[1.0, np.nan], [0.0, 0.0]]))}, ValueError, "targets must be finite"),
        ({"data": (np.ones((2, 5)), np.ones((3, 2)))}, ValueError, "the same number"),
    ],
)
def test_errors_say_what_to_do(changed, error, message):
    options = {"data": (np.ones((2, 5)), np.ones((2, 2))), "path": ntk.GaussNewtonPath(), "steps": [1], "strength": 0.1}
    options |= changed
    with pytest.raises(error, match=message):
        ntk.predict_training(linear, jnp.zeros((5, 2)), options.pop("data"), **options)


@pytest.mark.parametrize(
    "make",
    [lambda: ntk.GaussNewtonPath(0.0), lambda: ntk.GaussNewtonPath(1.0, -1.0), lambda: ntk.GradientDescentPath(-1.0)],
)
def test_rules_refuse_numbers_out_of_range(make):
    with pytest.raises(ValueError, match="must be a"):
        make()


def test_paths_need_no_extras():
    assert loaded_by("from concordax.ntk import predict_training, linearized", EXTRAS) == []
