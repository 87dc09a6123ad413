"""Steps corrected for the bending of the model against dense NumPy, and the second derivative against differences."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.jacobians import second_derivative
from concordax.optimizer import make_algorithm
from concordax.proximal import PreparedProximal
from concordax.system import Problem, build_system, make_batch


def _outputs(case, flat):
    """The network's outputs at flat parameters, by NumPy."""
    layers, begin = [], 0
    for weight, bias in helpers.as_layers(case.params):
        middle, end = begin + weight.size, begin + weight.size + bias.size
        layers.append((flat[begin:middle].reshape(weight.shape), flat[middle:end]))
        begin = end
    return helpers.network(layers, case.inputs, helpers.scales_of(case.model), "tanh")


def _second_difference(case, flat, direction, h=1e-3):
    """d²f(θ + sδ)/ds², to fourth order in h."""
    at = {k: _outputs(case, flat + k * h * direction)[0] for k in (-2, -1, 0, 1, 2)}
    return (-at[-2] + 16 * at[-1] - 30 * at[0] + 16 * at[1] - at[2]) / (12 * h**2)


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_bend_is_the_whitened_second_difference(loss):
    case = helpers.make_case("tall", loss)
    flat, unravel = ravel_pytree(case.params)
    direction = np.random.default_rng(5).normal(size=flat.size)
    problem = Problem(case.model, helpers.LOSSES[loss], cx.L2(), unravel)
    batch = make_batch(helpers.LOSSES[loss], jnp.asarray(case.inputs), case.targets, case.weights, 3, jnp.float64)
    found = jax.jit(problem.bend)(flat, batch, jnp.asarray(direction))
    second = _second_difference(case, np.asarray(flat), direction)
    factor, _ = helpers.REFERENCE_LOSSES[loss].factor(_outputs(case, np.asarray(flat))[0], case.targets)
    share = np.sqrt(case.weights / case.weights.sum())
    expected = share[:, None] * np.einsum("nck,nc->nk", factor, second)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_array_equal(found[3], 0.0)


class _Dense:
    """The squared error of a network under a smooth ℓ1 norm, with a damped step and its corrections, by NumPy."""

    def __init__(self, problem, targets, strength, damping):
        self.case = helpers.make_case(problem, "squared")._replace(targets=targets)
        self.flat, self.strength = helpers.flatten(self.case.params), strength
        self.penalty = helpers.REFERENCE_REGULARIZERS["pseudo-huber 0.3"]
        self.share = self.case.weights / self.case.weights.sum()
        self.outputs, self.jacobian = _outputs(self.case, self.flat)
        # The damping is in the metric that the penalty has at 0, I/μ.
        self.metric = strength * self.penalty.diagonal(self.flat) + damping / 0.3
        self.curvature = np.einsum("n,nkp,nkq->pq", self.share, self.jacobian, self.jacobian) + np.diag(self.metric)
        self.gradient = self._pulled(self.outputs - targets) + strength * self.penalty.gradient(self.flat)
        self.delta = -np.linalg.solve(self.curvature, self.gradient)

    def _pulled(self, x):
        return np.einsum("n,nkp,nk->p", self.share, self.jacobian, x)

    def objective(self, flat):
        errors = 0.5 * ((_outputs(self.case, flat)[0] - self.case.targets) ** 2).sum(axis=1)
        return self.share @ errors + self.strength * self.penalty.value(flat)

    def _norm(self, x):
        return np.sqrt((self.metric * x**2).sum())

    def _corrected(self, b):
        return self.delta - np.linalg.solve(self.curvature, self._pulled(b))

    def step(self, most):
        """The step that is tried, how many corrections it took, and whether the first one was followed."""
        image = self.jacobian @ self.delta
        damped = 0.5 * (self.share[:, None] * image**2).sum() + 0.5 * self.strength * (
            self.penalty.diagonal(self.flat) * self.delta**2
        ).sum()
        rest = self.objective(self.flat) + self.gradient @ self.delta + damped
        best = self._corrected(0.5 * _second_difference(self.case, self.flat, self.delta))
        small = 2 * self._norm(best - self.delta) <= 0.75 * self._norm(self.delta)
        best = best if small else self.delta
        for taken in range(1, most):
            value = self.objective(self.flat + best)
            if value - rest < 0.5 * abs(value):
                return best, taken, small
            missed = _outputs(self.case, self.flat + best)[0] - self.outputs - self.jacobian @ best
            tried = self._corrected(missed)
            lower = self.objective(self.flat + tried)
            best = tried if lower < value else best
            if value - lower < 0.5 * value:
                return best, taken + 1, small
        return best, most, small


@pytest.mark.parametrize("most", [1, 2, 4, 9])
@pytest.mark.parametrize("problem", helpers.PROBLEMS)
def test_step_is_that_of_dense_numpy(problem, most):
    """To second order where that is small beside δ, then by chords as long as each halves F.

    Over dampings, with targets that the network reaches at some distance of its parameters.
    """
    start, rng = helpers.make_case(problem, "squared"), np.random.default_rng(0)
    flat, way = helpers.flatten(start.params), rng.normal(size=helpers.flatten(start.params).size)
    strength, found = 1e-7, []
    algorithm = make_algorithm(
        start.model, cx.SquaredError(), cx.PseudoHuber(0.3), strength=strength, damping=0.0,
        solver=cx.Dual() if problem == "wide" else cx.Primal(), step=cx.TrustRegion(1, corrections=most),
    )  # fmt: skip
    update = jax.jit(algorithm.update)
    for distance, damping in itertools.product((0.1, 0.3, 1.0), (1e-4, 1e-3, 0.03, 0.3)):
        dense = _Dense(problem, _outputs(start, flat + distance * way)[0], strength, damping)
        batch = algorithm.batch(start.params, start.inputs, dense.case.targets, start.weights)
        state = algorithm.init(start.params)
        state = state._replace(rule=state.rule._replace(next_damping=jnp.asarray(damping)))
        updates, state = update(state, start.params, batch)
        if not bool(state.info.accepted):
            continue
        expected, taken, small = dense.step(most)
        found.append((taken, small))
        assert helpers.relative_error(helpers.flatten(updates), expected) < 1e-6
        assert helpers.relative_error(expected, dense.delta) > 1e-4 or not small
        assert float(state.info.new_objective) == pytest.approx(dense.objective(dense.flat + expected), rel=1e-4)
        assert float(state.info.new_objective) < float(state.info.objective)
    assert {small for _, small in found} == {True, False}
    assert {taken for taken, _ in found} >= set(range(1, min(most, 3) + 1))


@pytest.mark.parametrize("rows", [1, 256, 257, 700])
def test_second_derivative_of_many_rows(rows):
    """(θᵀx)³ has 6 (θᵀx)(δᵀx)²; rows beyond a chunk are cut and filled up, of an input with a third axis too."""
    rng = np.random.default_rng(rows)
    x, theta, delta = rng.normal(size=(rows, 2, 3)), rng.normal(size=3), rng.normal(size=3)
    cube = lambda at, x: jnp.einsum("nij,j->ni", x["rows"], at) ** 3
    value, second = jax.jit(second_derivative, static_argnums=0)(cube, theta, {"rows": jnp.asarray(x)}, delta)
    np.testing.assert_allclose(value, (x @ theta) ** 3, rtol=1e-12)
    np.testing.assert_allclose(second, 6 * (x @ theta) * (x @ delta) ** 2, rtol=1e-10, atol=1e-13)


def test_a_step_takes_the_bend_in_single_precision():
    """To the digits that float32 has, and no more; a run in float32 is as it was."""
    case = helpers.make_case("tall", "squared")
    flat, unravel = ravel_pytree(case.params)
    direction = jnp.asarray(np.random.default_rng(5).normal(size=flat.size))
    problem = Problem(case.model, cx.SquaredError(), cx.L2(), unravel)
    batch = make_batch(cx.SquaredError(), jnp.asarray(case.inputs), case.targets, case.weights, 3, jnp.float64)
    bend = jax.jit(problem.bend, static_argnames="single")
    exact, single = (bend(flat, batch, direction, single=choice) for choice in (False, True))
    assert single.dtype == exact.dtype == jnp.float64
    assert 1e-9 < helpers.relative_error(single, exact) < 1e-5
    taken = []

    def watched(params, x):
        taken.extend(leaf.dtype for leaf in jax.tree.leaves((params, x)))
        return case.model(params, x)

    watching = Problem(watched, cx.SquaredError(), cx.L2(), unravel)
    jax.eval_shape(lambda flat: watching.bend(flat, batch, direction, single=True), flat)
    assert set(taken) == {jnp.dtype(jnp.float32)}
    for corrections in (1, 0):
        taken.clear()
        algorithm = make_algorithm(
            watched, cx.SquaredError(), cx.L2(), strength=1e-3, solver=cx.Dual(), damping=0.0,
            step=cx.TrustRegion(corrections=corrections),
        )  # fmt: skip
        jax.eval_shape(algorithm.update, algorithm.init(case.params), case.params, batch)
        assert (jnp.dtype(jnp.float32) in taken) == bool(corrections)


_SOLVERS = {
    "dual": (cx.Dual(), 1e-9),
    "primal": (cx.Primal(), 1e-9),
    "structured": (cx.StructuredCG(single=False), 1e-9),
    "structured, single": (cx.StructuredCG(single=True), 1e-3),
    "nystrom": (cx.NystromCG(), 0.6),
}


@pytest.mark.parametrize("solver", _SOLVERS)
@pytest.mark.parametrize("problem", helpers.PROBLEMS)
def test_following_a_change_of_the_residual(problem, solver):
    """δ − (WᵀW + tH)⁻¹Wᵀx by dense NumPy, in the norm of WᵀW + tH; without a factor, roughly."""
    case = helpers.make_case(problem, "squared")
    flat, unravel = ravel_pytree(case.params)
    columns = case.targets.shape[1]
    batch = make_batch(cx.SquaredError(), jnp.asarray(case.inputs), case.targets, case.weights, columns, jnp.float64)
    system = build_system(Problem(case.model, cx.SquaredError(), cx.L2(), unravel), flat, batch)
    reference = helpers.reference_system(case, "squared")
    w, change = np.asarray(reference.w, float), np.random.default_rng(0).normal(size=system.residual.shape)
    strength, damping = 1e-3, 1e-2
    matrix = w.T @ w + (strength + damping) * np.eye(flat.size)
    expected = -np.linalg.solve(matrix, w.T @ change.ravel())
    root = np.linalg.cholesky(matrix).T
    part, limit = _SOLVERS[solver]

    @eqx.filter_jit
    def follow(system, change):
        factored = part.prepare(system).at(jnp.asarray(strength), jnp.asarray(damping))
        direction = factored.solve().direction
        return factored.follow(direction, change) - direction

    found = follow(system, jnp.asarray(change))
    assert helpers.relative_error(root @ np.asarray(found), root @ expected) < limit


def test_with_a_penalty_the_change_is_solved_for_anew():
    """Exact zeros may be others: those of the system whose residual is r + x from the start."""
    case = helpers.make_case("wide", "squared")
    flat, unravel = ravel_pytree(case.params)
    columns = case.targets.shape[1]
    batch = make_batch(cx.SquaredError(), jnp.asarray(case.inputs), case.targets, case.weights, columns, jnp.float64)
    system = build_system(Problem(case.model, cx.SquaredError(), cx.L2(), unravel), flat, batch)
    change = jnp.asarray(np.random.default_rng(0).normal(size=system.residual.shape))

    def at(system):
        prepared = PreparedProximal(system, cx.Dual().prepare(system), cx.Dual().prepare, cx.L1(), flat)
        return prepared.at(jnp.asarray(0.03), jnp.asarray(0.1))

    factored = at(system)
    direction = factored.solve().direction
    changed = at(eqx.tree_at(lambda s: s.residual, system, system.residual + change)).solve().direction
    np.testing.assert_array_equal(factored.follow(direction, change), changed)
    zeros = [np.asarray(flat + step == 0) for step in (direction, changed)]
    assert zeros[0].any()
    assert (zeros[0] != zeros[1]).any()
