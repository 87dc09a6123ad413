"""The metric of damped steps: D of each regularizer, the mix of it and H, and the steps that follow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.optimizer import local_problem, make_algorithm
from concordax.steps import damped

SIZE, TAU = 45, 0.02
WALLS = {"box": 1 / 0.8, "one wall": 1 / 4 + 0.05}
MIXED = [name for name in helpers.REGULARIZERS if name != "l2"]


def _dense(metric):
    return np.asarray(jax.vmap(metric.mv)(jnp.eye(SIZE)))


def _point(seed=3, spread=1.5):
    return spread * np.random.default_rng(seed).normal(size=SIZE)


@pytest.mark.parametrize("name", MIXED)
def test_damping_has_the_curvature_at_zero(name):
    """Of a wall the curvature on it, or what there is outside."""
    reference, x = helpers.REFERENCE_REGULARIZERS[name], _point()
    expected = reference.hessian(np.full(SIZE, 1e-30))
    if name in WALLS:
        expected = np.maximum(reference.hessian(x), WALLS[name] * np.eye(SIZE))
    damping = helpers.REGULARIZERS[name].damping_metric(jnp.asarray(x))
    np.testing.assert_allclose(_dense(damping), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_damping_is_no_less_than_the_hessian(name, spread):
    x = jnp.asarray(_point(5, spread if "box" not in name else min(spread, 5.0)))
    regularizer = helpers.REGULARIZERS[name]
    above, hessian = _dense(regularizer.damping_metric(x)), _dense(regularizer.metric(x))
    assert np.linalg.eigvalsh(above - hessian).min() >= -1e-10 * np.linalg.norm(above, 2)


def test_a_constant_hessian_is_its_own():
    assert cx.L2().damping_metric(jnp.ones(SIZE)) is None
    assert (2.0 * cx.L2() + cx.L2()).damping_metric(jnp.ones(SIZE)) is None
    assert cx.PerParameter((jnp.ones(2), jnp.ones(43)), (cx.L2(), 3.0 * cx.L2())).damping_metric(jnp.ones(45)) is None


def _local(regularizer, step, *, damping=0.0, dtype=np.float64):
    """A network 3-6-3 with the problem at a point of it, and F and the outputs as functions of the flat parameters."""
    model = cx.MLP(inputs=3, widths=(6,), outputs=3)
    rng = np.random.default_rng(1)
    inputs, targets = (jnp.asarray(rng.normal(size=(20, 3)), dtype) for _ in range(2))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), helpers.draw_params(model, rng))
    algorithm = make_algorithm(
        model, cx.SquaredError(), regularizer, strength=TAU, solver=cx.Dual(), step=step, damping=damping
    )
    batch = algorithm.batch(params, inputs, targets)
    problem, flat, prepared = algorithm.prepare(params, batch)
    tau = jnp.asarray(TAU, dtype)
    local = local_problem(problem, flat, batch, prepared, tau, damping, step=step, prepare=cx.Dual().prepare)
    unravel = ravel_pytree(params)[1]
    return local, lambda at: model(unravel(at), inputs), targets


def _dense_step(name, local, outputs, targets, damping, tails=None):
    """−(JᵀJ/n + τH + λD)⁻¹ ∇F, by derivatives of JAX and the references; D is `tails`, or the Hessian at zero."""
    at, reference = local.flat, helpers.REFERENCE_REGULARIZERS[name]
    jacobian = np.asarray(jax.jacfwd(outputs)(at)).reshape(-1, SIZE) / np.sqrt(20)
    residual = np.asarray(outputs(at) - targets).reshape(-1) / np.sqrt(20)
    x = np.asarray(at)
    tails = reference.hessian(np.full(SIZE, 1e-30)) if tails is None else tails
    matrix = jacobian.T @ jacobian + TAU * reference.hessian(x) + damping * tails
    return -np.linalg.solve(matrix, jacobian.T @ residual + TAU * reference.gradient(x))


STEPPED = ["pseudo-huber 0.3", "log cosh", "groups: neurons", "sparse groups", "groups and others"]


@pytest.mark.parametrize("damping", [1e-9, 0.03, 40.0])
@pytest.mark.parametrize("name", STEPPED)
def test_mixed_metric(name, damping):
    """(τ + λ) M = τH + λD, a fixed damping included."""
    local, _, _ = _local(helpers.REGULARIZERS[name], cx.TrustRegion(), damping=0.01)
    reference, x = helpers.REFERENCE_REGULARIZERS[name], np.asarray(local.flat)
    mixed = _dense(damped(local, jnp.asarray(damping)).system.metric)
    tails = reference.hessian(np.full(SIZE, 1e-30))
    expected = TAU * reference.hessian(x) + (damping + 0.01) * tails
    np.testing.assert_allclose((TAU + damping + 0.01) * mixed, expected, rtol=1e-9, atol=1e-12)
    unknown = _dense(damped(local, jnp.asarray(-1.0)).system.metric)
    np.testing.assert_allclose(unknown, tails, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", STEPPED)
def test_trust_region_solves_the_damped_system(name):
    step = cx.TrustRegion(max_attempts=1, corrections=0)
    local, outputs, targets = _local(helpers.REGULARIZERS[name], step)
    for damping in (0.3, 5.0):
        state = step.init(local.flat)._replace(next_damping=jnp.asarray(damping), scale=jnp.ones(()))
        outcome, _ = step.take(local, state)
        expected = _dense_step(name, local, outputs, targets, damping)
        np.testing.assert_allclose(outcome.displacement, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("strength", [TAU, cx.Evidence()], ids=["fixed", "evidence"])
def test_damping_in_the_hessian(strength):
    """By choice, and by default where the data choose the strength."""
    name = "pseudo-huber 0.3"
    step = cx.TrustRegion(max_attempts=1, corrections=0, damp_in_hessian=True) if strength == TAU else None
    parts = (cx.MLP(3, (6,), 3), cx.SquaredError(), helpers.REGULARIZERS[name])
    step = make_algorithm(*parts, strength=strength, solver=cx.Dual(), step=step, damping=0.0).step
    local, outputs, targets = _local(helpers.REGULARIZERS[name], step)
    outcome, _ = step.take(local, step.init(local.flat)._replace(next_damping=jnp.asarray(5.0), scale=jnp.ones(())))
    tails = helpers.REFERENCE_REGULARIZERS[name].hessian(np.asarray(local.flat))
    expected = _dense_step(name, local, outputs, targets, 5.0, tails)
    np.testing.assert_allclose(outcome.displacement, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["pseudo-huber 0.3", "groups: neurons"])
def test_first_damping_is_measured_in_its_own_metric(name):
    """λ = 0.1 tr(W D⁻¹ Wᵀ)/N, and 10 of it on mini-batches."""
    for step, share in ((cx.TrustRegion(max_attempts=1, corrections=0), 0.1), (cx.StochasticTrustRegion(), 10.0)):
        local, outputs, targets = _local(helpers.REGULARIZERS[name], step)
        outcome, _ = step.take(local, step.init(local.flat))
        jacobian = np.asarray(jax.jacfwd(outputs)(local.flat)).reshape(-1, SIZE)
        tails = np.diagonal(helpers.REFERENCE_REGULARIZERS[name].hessian(np.full(SIZE, 1e-30)))
        damping = share * (jacobian**2 / tails).sum() / 20 / 60
        np.testing.assert_allclose(outcome.damping, damping, rtol=1e-9)
        # H has no share in the first step: τ more of D.
        matrix = jacobian.T @ jacobian / 20 + (TAU + damping) * np.diag(tails)
        residual = np.asarray(outputs(local.flat) - targets).reshape(-1)
        gradient = helpers.REFERENCE_REGULARIZERS[name].gradient(np.asarray(local.flat))
        expected = -np.linalg.solve(matrix, jacobian.T @ residual / 20 + TAU * gradient)
        np.testing.assert_allclose(outcome.displacement, expected, rtol=1e-8, atol=1e-10)


def test_later_batches_are_damped_in_the_mixed_metric():
    name, step = "pseudo-huber 0.3", cx.StochasticTrustRegion(momentum=0.0)
    local, _, _ = _local(helpers.REGULARIZERS[name], step)
    state = step.init(local.flat)._replace(
        ratio=jnp.asarray(20.0), scale=jnp.asarray(0.005), loss_curvature=jnp.ones(()), kernel=jnp.asarray(0.005)
    )
    mixed = damped(local, jnp.asarray(0.1))
    outcome, _ = step.take(local, state)
    expected = mixed.prepared.solve(local.strength, outcome.damping).direction
    np.testing.assert_allclose(outcome.displacement, expected, rtol=1e-10)


@pytest.mark.parametrize("smoothing", [1e-3, 0.05])
def test_a_smoothing_far_below_the_weights_does_not_hold_a_run_up(smoothing):
    """Adam comes to 0.023 in 20,000 steps of its best rate; damped in H alone, a run is at 0.07 to 0.08 after 200."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(60, 3)))
    targets = jnp.tanh(inputs @ jnp.asarray(rng.normal(size=(3, 2)))).sum(1, keepdims=True)
    model = cx.TwoLayer(3, 60, 1, activation="silu")
    start = model.init(jax.random.key(0))
    args = (model, cx.SquaredError(), cx.PseudoHuber(smoothing), start, (inputs, targets))
    result = cx.train(*args, strength=1e-3, max_steps=200, tolerance=0.0)
    assert result.history["objective"][-1] < 0.0235
    assert cx.sparsity(model, result.params, share=0.999).holding < 40


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_number_is_lost_far_from_zero(dtype):
    for name in ("pseudo-huber 0.3", "log cosh", "groups: neurons", "sparse groups"):
        local, _, _ = _local(helpers.REGULARIZERS[name], cx.TrustRegion(), dtype=dtype)
        flat = 1e6 * local.flat
        system = eqx.tree_at(lambda system: system.metric, local.system, local.regularizer.metric(flat))
        far = local._replace(flat=flat, system=system)
        for damping, strength in ((-1.0, TAU), (0.0, TAU), (1e-12, TAU), (1e12, TAU), (1.0, 0.0)):
            problem = far._replace(strength=jnp.asarray(strength, dtype))
            metric = damped(problem, jnp.asarray(damping, dtype)).system.metric
            assert bool(jnp.isfinite(metric.solve(jnp.ones(SIZE, dtype))).all())
            assert bool(jnp.isfinite(metric.mv(jnp.ones(SIZE, dtype))).all())


def test_a_proximal_step_keeps_its_penalty_in_another_metric():
    """The minimum of ½‖Xθ − y‖²/n + τ(g + ‖θ‖₁), by many steps of soft thresholding in NumPy."""
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(40, 8))
    targets = inputs @ np.array([2.0, 0, 0, -1.0, 0, 0, 0, 0.5]) + 0.1 * rng.normal(size=40)
    reference, tau = helpers.REFERENCE_REGULARIZERS["pseudo-huber 0.3"], 0.1
    expected, rate = np.zeros(8), 1 / (np.linalg.norm(inputs, 2) ** 2 / 40 + tau / 0.3)
    for _ in range(5000):
        slope = inputs.T @ (inputs @ expected - targets) / 40 + tau * reference.gradient(expected)
        moved = expected - rate * slope
        expected = np.sign(moved) * np.maximum(np.abs(moved) - rate * tau, 0)
    result = cx.train(
        lambda params, rows: rows @ params[:, None], cx.SquaredError(), cx.PseudoHuber(0.3), jnp.ones(8),
        (jnp.asarray(inputs), jnp.asarray(targets)), strength=tau, step=cx.ProximalStep(cx.L1()), max_steps=30,
    )  # fmt: skip
    assert 0 < (expected == 0).sum() < 8
    np.testing.assert_array_equal(np.asarray(result.params) == 0, expected == 0)
    np.testing.assert_allclose(result.params, expected, atol=1e-7)
