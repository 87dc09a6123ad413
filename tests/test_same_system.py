"""Primal = dual = a least-squares reference, for every loss, regularizer, strength, damping and shape."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.metrics import DiagonalMetric, GroupMetric
from concordax.penalties import AbstractPenalty
from concordax.proximal import PreparedProximal
from concordax.solvers import AbstractSolver
from concordax.system import Problem, build_system, make_batch

STRENGTHS = (1e-8, 1e-4, 1.0)
PAIRS = [(tau, damping) for tau in STRENGTHS for damping in (0.0, 1e-6, 1.0, 1.0 - tau)]
BASIC = ("squared", "softmax")
SOLVERS = {
    "primal": cx.Primal(),
    "dual": cx.Dual(),
    # The tolerance bounds the error in the norm of the quadratic model; in ‖δ‖ it is larger by the root of the
    # condition of H, a hundred for the groups of units here.
    "structured": cx.StructuredCG(tolerance=1e-12, single=False, hand_over=False),
    # On a singular K at t = 1e-8 a factor in float32 says little about the null space: 300 iterations.
    "structured, factor in float32": cx.StructuredCG(tolerance=1e-12, max_iterations=500, single=True, hand_over=False),
}


_system = eqx.filter_jit(build_system)


class Nothing(AbstractPenalty):
    """R = 0: with it the proximal step is the plain one."""

    def value(self, x):
        return jnp.zeros((), x.dtype)

    def prox(self, z, h, weight):
        del h, weight
        return z

    def curvature(self, x, h, weight):
        del x, weight
        return DiagonalMetric(1 / h)


class _Proximally(eqx.Module):
    """Solves by the proximal step with no penalty, from the origin: without one its place does not matter."""

    solver: AbstractSolver

    def prepare(self, system):
        origin = jnp.zeros_like(system.gradient)
        return PreparedProximal(system, self.solver.prepare(system), self.solver.prepare, Nothing(), origin)


@eqx.filter_jit
def _directions(system, pairs):
    """Directions [solver, pair, p] of all solvers, from one linearisation, and whether each solve converged."""

    def all_pairs(solver):
        prepared = solver.prepare(system)
        solutions = jax.lax.map(lambda pair: prepared.solve(pair[0], pair[1]), pairs)
        return solutions.direction, solutions.stats.converged

    solvers = list(SOLVERS.values())
    if not isinstance(system.metric, GroupMetric):
        solvers.append(_Proximally(cx.Dual()))
    found = [all_pairs(solver) for solver in solvers]
    return tuple(jnp.stack(parts) for parts in zip(*found, strict=True))


@functools.cache
def _linearised(problem, loss):
    """The system of a case under L2, and the reference's."""
    case = helpers.make_case(problem, loss)
    flat, unravel = ravel_pytree(case.params)
    part, columns = helpers.LOSSES[loss], case.targets.shape[1]
    batch = make_batch(part, jnp.asarray(case.inputs), case.targets, case.weights, columns, flat.dtype)
    system = _system(Problem(case.model, part, cx.L2(), unravel), flat, batch)
    return flat, system, helpers.reference_system(case, loss)


def _limit(solver: str, tau: float, damping: float) -> float:
    """1e-8; at t = 1e-8 the proximal step, whose u holds all of r and not its image alone, keeps some eps/t."""
    return 1e-6 if solver == "proximal" and tau + damping < 1e-7 else 1e-8


@pytest.mark.combinations
@pytest.mark.parametrize("problem", helpers.PROBLEMS)
@pytest.mark.parametrize("regularizer", helpers.REGULARIZERS)
@pytest.mark.parametrize("loss", helpers.LOSSES)
def test_all_solvers_give_the_reference_direction(loss, regularizer, problem):
    flat, system, reference = _linearised(problem, loss)
    # What a regularizer adds to a system is its gradient and its metric: one compiled program serves all the losses.
    part = helpers.REGULARIZERS[regularizer]
    parts = (part.gradient(flat), part.metric(flat))
    system = eqx.tree_at(lambda s: (s.gradient, s.metric, s.model_jacobian), system, (*parts, None))
    found, converged = _directions(system, jnp.asarray(PAIRS))
    # All pairs for two losses and under L2; of the rest a few, since long doubles take their time.
    indices = range(len(PAIRS)) if loss in BASIC or regularizer == "l2" else (0, 3, 6)
    errors = {}
    pairs = [PAIRS[index] for index in indices]
    for index, expected in zip(indices, helpers.reference_directions(reference, regularizer, pairs), strict=True):
        for solver, directions, done in zip([*SOLVERS, "proximal"][: len(found)], found, converged, strict=True):
            # A solve that says it ran out of its budget is handed to the dual one; only a factor in float32 may.
            if done[index] or "float32" not in solver:
                errors[solver, *PAIRS[index]] = helpers.relative_error(directions[index], expected)
    misses = {key: error for key, error in errors.items() if not error < _limit(*key)}
    assert not misses
    assert converged.mean() > 0.95
    # Strength and damping do matter: the directions are not all one.
    assert helpers.relative_error(found[0, 0], found[0, -1]) > 1e-2


def test_direction_is_the_same_solve():
    case = helpers.make_case("wide", "softmax")
    expected = helpers.reference_direction(case, "softmax", "pseudo-huber 0.3", 1e-4, 1e-6)
    for solver in (cx.Primal(), cx.Auto()):
        solution = cx.direction(
            case.model,
            cx.SoftmaxCrossEntropy(),
            cx.PseudoHuber(0.3),
            case.params,
            jnp.asarray(case.inputs),
            case.targets,
            strength=1e-4,
            damping=1e-6,
            solver=solver,
            weights=case.weights,
        )
        assert bool(solution.status)
        assert helpers.relative_error(helpers.flatten(solution.direction), expected) < 1e-8
        assert jax.tree.structure(solution.direction) == jax.tree.structure(case.params)
        # By-products: W δ and ‖δ‖²_H give the decrement √(−∇Fᵀδ), and with it what the quadratic model promises.
        theta, delta = helpers.flatten(case.params), helpers.flatten(solution.direction)
        gradient = _objective_gradient(case, "softmax", "pseudo-huber 0.3", 1e-4)
        assert np.isclose(solution.decrement, np.sqrt(-gradient @ delta), rtol=1e-9)
        hessian = helpers.REFERENCE_REGULARIZERS["pseudo-huber 0.3"].hessian(theta)
        assert np.isclose(solution.squared_norm, delta @ hessian @ delta, rtol=1e-12)
        promised = -gradient @ delta - 0.5 * (jnp.sum(solution.image**2) + 1e-4 * delta @ hessian @ delta)
        assert np.isclose(solution.predicted_decrease(jnp.asarray(1e-4)), promised, rtol=1e-9)


def _objective_gradient(case, loss, regularizer, strength):
    outputs, jacobian = helpers.network(
        helpers.as_layers(case.params), case.inputs, helpers.scales_of(case.model), "tanh"
    )
    gradient = helpers.REFERENCE_LOSSES[loss].gradient(outputs, case.targets)
    data = np.einsum("i,iap,ia->p", case.weights / case.weights.sum(), jacobian, gradient)
    return data + strength * helpers.REFERENCE_REGULARIZERS[regularizer].gradient(helpers.flatten(case.params))


@eqx.filter_jit
def _dual_with_system(problem, flat, batch, strength):
    system = build_system(problem, flat, batch)
    return cx.Dual().prepare(system).solve(strength, jnp.zeros_like(strength)).direction, system


@pytest.mark.parametrize(("regularizer", "seed"), [(cx.L2(), 5), (cx.L2(), 6), (cx.PseudoHuber(1.0), 5)])
def test_float32_keeps_its_digits_at_a_small_shift(regularizer, seed):
    # 12 rows of 40 outputs, 480 numbers, against 4,584 parameters, at t = 1e-6.
    rng = np.random.default_rng(seed)
    model = cx.MLP(inputs=30, widths=(64,), outputs=40)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), helpers.draw_params(model, rng))
    inputs = jnp.asarray(rng.normal(size=(12, 30)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 40, 12))
    found = {}
    for dtype in (jnp.float32, jnp.float64):
        flat, unravel = ravel_pytree(jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), params))
        batch = make_batch(cx.SoftmaxCrossEntropy(), inputs.astype(dtype), labels, None, 40, dtype)
        problem = Problem(model, cx.SoftmaxCrossEntropy(), regularizer, unravel)
        found[dtype] = _dual_with_system(problem, flat, batch, jnp.asarray(1e-6, dtype))
    single, exact = found[jnp.float32][0], found[jnp.float64][0]
    assert single.dtype == jnp.float32
    error = helpers.relative_error(single, exact)
    assert error < 1e-5
    # The check has teeth: Woodbury on the summed gradient, in float32 and from the same system, errs by far more.
    assert helpers.relative_error(_woodbury_on_the_sum(found[jnp.float32][1], np.float32(1e-6)), exact) > 10 * error


def _woodbury_on_the_sum(system, t):
    size = system.jacobian.shape[2]
    inverse = np.asarray(system.metric.diagonal(size))
    w = np.asarray(system.jacobian.rows())
    b = w.T @ np.asarray(system.residual).ravel() + t * np.asarray(system.gradient)
    small = (w * inverse) @ w.T + t * np.eye(len(w), dtype=np.float32)
    return -(inverse * (b - w.T @ np.linalg.solve(small, w @ (inverse * b)))) / t
