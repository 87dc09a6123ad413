"""Steps, sketches and stochastic estimates from products alone, against dense NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.jacobians import ImplicitJacobian
from concordax.solvers import stochastic
from concordax.solvers.nystrom import NystromSketch, nystrom_sketch
from concordax.system import Problem, build_system, make_batch

CASES = {
    "two layers, pseudo-Huber": (cx.TwoLayer(5, 40), cx.SquaredError(), cx.PseudoHuber(2.0)),
    "deep": (cx.MLP(4, (12, 10)), cx.SquaredError(), cx.L2()),
    "softmax": (cx.MLP(4, (20,), 3), cx.SoftmaxCrossEntropy(), cx.PseudoHuber(1.0)),
    "fewer parameters than numbers": (cx.MLP(4, (5,), 2), cx.SquaredError(), cx.L2()),
}


def _systems(name, rows=60, dtype=jnp.float64, weights=None):
    """The system by products alone, and M = D^½ WᵀW D^½, D^½ W ᵀr and so on from the dense one."""
    model, loss, regularizer = CASES[name]
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda x: x.astype(dtype), helpers.draw_params(model, rng))
    inputs = jnp.asarray(rng.normal(size=(rows, model.inputs)), dtype)
    outputs = jax.eval_shape(model, params, inputs).shape[1]
    kind = "softmax" if isinstance(loss, cx.SoftmaxCrossEntropy) else "squared"
    targets = jnp.asarray(helpers.draw_targets(kind, rng, rows, outputs))
    flat, unravel = ravel_pytree(params)
    batch = make_batch(loss, inputs, targets, weights, outputs, dtype)
    problem = Problem(model, loss, regularizer, unravel)
    dense = build_system(Problem(lambda p, x: model(p, x), loss, regularizer, unravel), flat, batch)
    return problem, flat, batch, dense


def _dense(system):
    """W [N, p] and D [p] as NumPy arrays."""
    matrix = np.asarray(system.jacobian.matrix, float)
    return matrix.reshape(-1, matrix.shape[2]), np.asarray(system.metric.diagonal(matrix.shape[2]), float)


@eqx.filter_jit
def _solve(solver, problem, flat, batch, strength, damping):
    prepared = solver.prepare(build_system(problem, flat, batch, matrix_free=True))
    return prepared.solve(strength, damping), prepared.trace()


@eqx.filter_jit
def _complexity(solver, problem, flat, batch, strength):
    return solver.prepare(build_system(problem, flat, batch, matrix_free=True)).complexity(strength)


@pytest.mark.combinations
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("strength", "damping"), [(1e-2, 0.0), (1e-5, 1e-3), (1e-5, 0.0)])
def test_direction_and_by_products(name, strength, damping):
    problem, flat, batch, system = _systems(name)
    solver = cx.NystromCG(rank=15, tolerance=1e-8, max_iterations=500)
    found, _ = _solve(solver, problem, flat, batch, jnp.asarray(strength), jnp.asarray(damping))
    matrix, inverse = _dense(system)
    shift = strength + damping
    gradient = matrix.T @ np.asarray(system.residual).ravel() + strength * np.asarray(system.gradient)
    expected = -np.linalg.solve(matrix.T @ matrix + shift * np.diag(1 / inverse), gradient)
    assert bool(found.stats.converged)
    # The bound is on the energy; the parameters' own error may be √(‖M‖/t) times as large.
    error = np.asarray(found.direction) - expected
    energy = lambda v: np.sqrt(np.sum((matrix @ v) ** 2) + shift * np.sum(v**2 / inverse))
    assert energy(error) < 1.01e-8 * energy(expected)
    np.testing.assert_allclose(found.image.ravel(), matrix @ found.direction, atol=1e-9)
    assert float(found.squared_norm) == pytest.approx(np.sum(np.asarray(found.direction) ** 2 / inverse))
    # −∇Fᵀδ and F − model(δ), written out.
    model = gradient @ expected + 0.5 * energy(expected) ** 2 - 0.5 * damping * np.sum(expected**2 / inverse)
    assert float(found.decrement) == pytest.approx(np.sqrt(-gradient @ expected), rel=1e-6)
    assert float(found.predicted_decrease(jnp.asarray(strength))) == pytest.approx(-model, rel=1e-6)


def test_a_solve_cut_short_still_lowers_the_model_and_says_so():
    problem, flat, batch, system = _systems("two layers, pseudo-Huber")
    matrix, inverse = _dense(system)
    strength = 1e-7
    gradient = matrix.T @ np.asarray(system.residual).ravel() + strength * np.asarray(system.gradient)
    best = np.inf
    for budget in (1, 2, 4, 8):
        solver = cx.NystromCG(rank=budget, max_iterations=budget)
        found, _ = _solve(solver, problem, flat, batch, jnp.asarray(strength), jnp.asarray(0.0))
        direction = np.asarray(found.direction)
        assert bool(found.status)
        assert not bool(found.stats.converged)
        assert int(found.stats.iterations) == 2 * budget
        quadratic = 0.5 * (np.sum((matrix @ direction) ** 2) + strength * np.sum(direction**2 / inverse))
        value = gradient @ direction + quadratic
        assert value < 0
        assert float(found.predicted_decrease(jnp.asarray(strength))) == pytest.approx(-value, rel=1e-9)
        assert value < best
        best = value


def test_the_sketch_is_made_only_when_plain_iterations_are_not_enough():
    args = _systems("deep")[:3]
    few, _ = _solve(cx.NystromCG(rank=40), *args, jnp.asarray(1e-5), jnp.asarray(10.0))
    assert int(few.stats.iterations) < 20
    many, _ = _solve(cx.NystromCG(rank=40), *args, jnp.asarray(1e-7), jnp.asarray(0.0))
    assert int(many.stats.iterations) > 40
    assert bool(few.stats.converged)
    assert bool(many.stats.converged)


@given(
    size=st.sampled_from([4, 17, 40]), rank=st.sampled_from([1, 5, 12]), decay=st.floats(0.1, 2.0),
    seed=st.integers(0, 10_000),
    shift=st.floats(1e-6, 1.0),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_sketch_laws(size, rank, decay, seed, shift):
    """0 ⪯ UΛUᵀ ⪯ M, Uᵀ orthonormal, and the bound is one."""
    rng = np.random.default_rng(seed)
    rank = min(rank, size)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = (basis * np.exp(-decay * np.arange(size))) @ basis.T
    sketch = nystrom_sketch(lambda v: jnp.asarray(matrix) @ v, size, rank, jax.random.key(seed), jnp.dtype(float))
    u, values = np.asarray(sketch.basis).T, np.asarray(sketch.values)
    np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=1e-10)
    assert (values >= 0).all()
    assert (np.diff(values) <= 0).all()
    low_rank = (u * values) @ u.T
    assert np.linalg.eigvalsh(matrix - low_rank).min() > -1e-9
    residual = rng.normal(size=size)
    exact = residual @ np.linalg.solve(matrix + shift * np.eye(size), residual)
    assert float(sketch.error_bound(jnp.asarray(residual), jnp.asarray(shift))) > exact * (1 - 1e-6)
    full = low_rank + values[-1] * (np.eye(size) - u @ u.T) + shift * np.eye(size)
    np.testing.assert_allclose(
        sketch.precondition(jnp.asarray(residual), jnp.asarray(shift)), np.linalg.solve(full, residual), rtol=1e-6,
        atol=1e-9 * exact,
    )  # fmt: skip
    half = sketch.root(jnp.asarray(residual), jnp.asarray(shift), 0.5)
    np.testing.assert_allclose(sketch.root(half, jnp.asarray(shift), 0.5), full @ residual, rtol=1e-6, atol=1e-9)
    assert float(sketch.log_determinant(size, jnp.asarray(shift))) == pytest.approx(np.linalg.slogdet(full)[1])


def test_a_sketch_of_full_rank_is_the_matrix():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 30))
    matrix = rows.T @ rows
    sketch = nystrom_sketch(lambda v: jnp.asarray(matrix) @ v, 30, 8, jax.random.key(0), jnp.dtype(float))
    np.testing.assert_allclose((sketch.basis.T * sketch.values) @ sketch.basis, matrix, atol=1e-7)


@pytest.mark.combinations
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-5])
def test_complexity_within_its_stated_error(name, strength):
    """γ and log det against eigenvalues; leverages add up to about γ and follow the exact ones."""
    args = *_systems(name)[:3], jnp.asarray(strength)
    matrix, inverse = _dense(_systems(name)[3])
    kernel = (matrix * inverse) @ matrix.T
    values = np.linalg.eigvalsh(kernel).clip(0)
    gamma = np.sum(values / (values + strength))
    found = _complexity(cx.NystromCG(rank=12), *args)
    # Four standard errors: the estimate has eight probes, and its seed is fixed.
    assert float(found.error) < 0.12 * gamma
    assert abs(float(found.effective_parameters) - gamma) < 4 * float(found.error) + 1e-9 * gamma
    determinant = np.sum(np.log1p(values / strength))
    assert float(found.log_determinant) == pytest.approx(determinant, rel=0.06)
    exact = np.einsum("ii->i", kernel @ np.linalg.inv(kernel + strength * np.eye(len(kernel))))
    n, k, _ = found.leverage.shape
    leverage = np.asarray(jnp.einsum("naa->n", found.leverage))
    # Where many rows are fitted exactly, holding leverages below 1 takes some of the sum.
    assert 0.92 * float(found.effective_parameters) < leverage.sum() < 1.0001 * float(found.effective_parameters)
    assert np.abs(leverage - exact.reshape(n, k).sum(axis=1)).mean() < 0.3 * gamma / n
    assert np.linalg.eigvalsh(np.asarray(found.leverage)).max() < 1


def test_complexity_with_a_full_sketch_has_no_error():
    args = _systems("fewer parameters than numbers")[:3]
    found = _complexity(cx.NystromCG(rank=100), *args, jnp.asarray(1e-2))
    matrix, inverse = _dense(_systems("fewer parameters than numbers")[3])
    values = np.linalg.eigvalsh((matrix * inverse) @ matrix.T).clip(0)
    assert float(found.effective_parameters) == pytest.approx(np.sum(values / (values + 1e-2)), rel=1e-5)
    assert float(found.log_determinant) == pytest.approx(np.sum(np.log1p(values / 1e-2)), rel=1e-5)
    assert float(found.error) < 1e-4


def test_trace_is_estimated():
    problem, flat, batch, system = _systems("softmax", rows=200)
    _, trace = _solve(cx.NystromCG(), problem, flat, batch, jnp.asarray(1e-2), jnp.asarray(0.0))
    matrix, inverse = _dense(system)
    assert float(trace) == pytest.approx(np.sum(matrix**2 * inverse), rel=0.3)


@pytest.mark.parametrize("name", CASES)
def test_implicit_products_are_those_of_the_dense_jacobian(name):
    problem, flat, batch, system = _systems(name, rows=7, weights=np.array([1, 2, 0, 1, 0.5, 1, 3.0]))
    implicit = build_system(problem, flat, batch, matrix_free=True)
    assert isinstance(implicit.jacobian, ImplicitJacobian)
    assert implicit.jacobian.shape == system.jacobian.shape
    rng = np.random.default_rng(0)
    n, k, p = system.jacobian.shape
    v, u = jnp.asarray(rng.normal(size=p)), jnp.asarray(rng.normal(size=(n, k)))
    np.testing.assert_allclose(implicit.jacobian.mv(v), system.jacobian.mv(v), atol=1e-12)
    np.testing.assert_allclose(implicit.jacobian.rmv(u), system.jacobian.rmv(u), atol=1e-12)
    np.testing.assert_allclose(implicit.curvature, system.curvature, atol=1e-14)
    # Solvers that ask for rows get them.
    metric = system.metric
    for name, argument in (("gram", metric), ("gram_diagonal", metric), ("normal", metric.root())):
        found, expected = (getattr(one.jacobian, name)(argument) for one in (implicit, system))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(
        implicit.jacobian.cross_gram(implicit.jacobian, metric), system.jacobian.cross_gram(system.jacobian, metric),
        atol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(implicit.jacobian.rows(), system.jacobian.rows(), atol=1e-12)


def test_curvature_is_the_loss_hessian():
    """SᵀS has the trace and, of its square, the trace of S Sᵀ, the Hessian in the outputs."""
    system = _systems("softmax", rows=9)[3]
    probabilities = helpers.softmax(np.asarray(system.outputs))
    hessian = np.stack([np.diag(p) - np.outer(p, p) for p in probabilities]) / 9
    found = np.asarray(system.curvature)
    np.testing.assert_allclose(np.einsum("naa->n", found), np.einsum("naa->n", hessian), rtol=1e-12)
    np.testing.assert_allclose((found**2).sum(axis=(1, 2)), (hessian**2).sum(axis=(1, 2)), rtol=1e-12)


def test_float32():
    problem, flat, batch, system = _systems("two layers, pseudo-Huber", dtype=jnp.float32)
    found, _ = _solve(cx.NystromCG(rank=20), problem, flat, batch, jnp.float32(1e-4), jnp.float32(0.0))
    matrix, inverse = _dense(system)
    gradient = matrix.T @ np.asarray(system.residual, float).ravel() + 1e-4 * np.asarray(system.gradient, float)
    expected = -np.linalg.solve(matrix.T @ matrix + 1e-4 * np.diag(1 / inverse), gradient)
    assert found.direction.dtype == jnp.float32
    assert helpers.relative_error(found.direction, expected) < 1e-3


def test_training_any_model_without_its_rows():
    """A convolution, a pytree of parameters, more numbers of output than a Gram could hold within the memory given."""
    rng = np.random.default_rng(0)
    signals = jnp.asarray(rng.normal(size=(400, 30)))
    targets = jnp.stack([jnp.convolve(s, jnp.asarray([0.5, -1.0, 0.25]), mode="valid") for s in signals])

    def model(params, x):
        return jax.vmap(lambda s: jnp.convolve(jnp.tanh(s * params["gain"]), params["kernel"], mode="valid"))(x)

    start = {"kernel": jnp.zeros(3), "gain": jnp.asarray(0.5)}
    solver = cx.Auto(memory=1e6)
    result = cx.train(
        model, cx.SquaredError(), cx.L2(), start, (signals, targets), strength=1e-8, solver=solver, max_steps=30
    )
    assert result.solver.startswith("NystromCG")
    assert result.history["loss"][-1] < 0.05 * float(jnp.mean(jnp.sum(targets**2, axis=1)) / 2)
    assert result.history["solver_converged"].all()
    assert (np.diff(result.history["objective"]) <= 0).all()


def test_evidence_states_its_error():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(200, 2))
    y = np.sin(2 * x[:, :1]) + 0.3 * rng.normal(size=(200, 1))
    model = cx.MLP(2, (30,))
    args = (model, cx.SquaredError(), cx.PseudoHuber(5.0), model.init(jax.random.key(0)), (x, y))
    runs = {s: cx.train(*args, strength=cx.Evidence(), solver=s, max_steps=30) for s in (cx.NystromCG(50), cx.Dual())}
    estimated, exact = runs.values()
    assert np.nanmax(estimated.history["effective_parameters_error"]) > 0
    assert np.nanmax(exact.history["effective_parameters_error"]) == 0
    assert estimated.history["noise"][-1] == pytest.approx(0.3, rel=0.12)
    assert exact.history["noise"][-1] == pytest.approx(0.3, rel=0.12)


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"rank": -3}, {"tolerance": 0.0}, {"tolerance": 2.0}, {"max_iterations": 0}]
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=rf"NystromCG\({next(iter(options))}="):
        cx.NystromCG(**options)


def test_error_bars_need_a_factor():
    model = cx.MLP(1, (3,))
    params = model.init(jax.random.key(0))
    x = jnp.linspace(-1, 1, 5)[:, None]
    with pytest.raises(TypeError, match=r"NystromCG.*error bars need the factor"):
        cx.posterior(model, cx.SquaredError(), cx.L2(), params, (x, x), strength=1e-3, solver=cx.NystromCG())


def test_a_probe_ends_when_it_is_solved():
    """Of six eigenvalues, in six iterations: the budget is a hundred."""
    values = np.array([9.0, 4.0, 2.0, 1.0, 0.5, 0.1])
    sketch = NystromSketch(jnp.eye(6)[:2], jnp.asarray(values[:2]))
    target = np.arange(1.0, 7.0)
    end = stochastic._solve(lambda v: (values + 0.3) * v, sketch, jnp.asarray(0.3), jnp.asarray(target))
    assert 0 < int(end.iterations) <= 6
    np.testing.assert_allclose(end.carried, target / (values + 0.3), rtol=1e-3)
