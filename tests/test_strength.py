"""The evidence: γ, one update, its limits, and where it converges, all against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax.evidence import noise_variance
from concordax.system import Problem, build_system, make_batch


@eqx.filter_jit
def _evaluate(evidence, problem, flat, batch, counts, solver):
    """γ at `strength`, and the strength's state after `update`."""
    system = build_system(problem, flat, batch)
    prepared = solver.prepare(system)
    state = evidence.init(flat.dtype)._replace(**counts)
    strength = state.strength
    updated = evidence.update(state, system, prepared, problem.loss, batch)
    return prepared.effective_parameters(prepared.factor(strength)), updated


def _library(case, loss, regularizer, strength, *, solver=None, evidence=None, dtype=jnp.float64, taken=3, **counts):
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(dtype), case.params))
    inputs = jnp.asarray(case.inputs, dtype)
    batch = make_batch(helpers.LOSSES[loss], inputs, case.targets, case.weights, case.targets.shape[1], dtype)
    problem = Problem(case.model, helpers.LOSSES[loss], helpers.REGULARIZERS[regularizer], unravel)
    return _evaluate(
        evidence or cx.Evidence(),
        problem,
        flat,
        batch,
        {"strength": jnp.asarray(strength, dtype)}
        | {name: jnp.asarray(count) for name, count in {"taken": taken, **counts}.items()},
        solver or cx.Dual(),
    )


def _numpy(case, loss, regularizer, strength):
    """γ, σ² and τ of one unlimited update, by eigenvalues of H^{-½} (Σ w Jᵀ∂²ℓJ / Σw) H^{-½}."""
    outputs, jacobian = helpers.network(
        helpers.as_layers(case.params), case.inputs, helpers.scales_of(case.model), "tanh"
    )
    reference, penalty, theta = (
        helpers.REFERENCE_LOSSES[loss],
        helpers.REFERENCE_REGULARIZERS[regularizer],
        helpers.flatten(case.params),
    )
    examples, share = case.weights.sum(), case.weights / case.weights.sum()
    root = 1 / np.sqrt(penalty.diagonal(theta))
    curvature = np.einsum(
        "i,iap,iab,ibq->pq", share, jacobian, reference.hessian(outputs, case.targets), jacobian, optimize=True
    )
    eigenvalues = np.maximum(np.linalg.eigvalsh(root[:, None] * curvature * root), 0)
    gamma = (eigenvalues / (eigenvalues + strength)).sum()
    variance = 1.0
    if loss == "squared":
        squares = (case.weights[:, None] * (outputs - case.targets) ** 2).sum()
        variance = squares / (examples * outputs.shape[1] - gamma)
    return gamma, variance, gamma * variance / (2 * examples * float(penalty.value(theta)))


@pytest.mark.parametrize("solver", [cx.Dual(), cx.Primal()], ids=["dual", "primal"])
@pytest.mark.parametrize(
    ("loss", "regularizer"), [("squared", "l2"), ("softmax", "pseudo-huber 0.3"), ("binary", "l2")]
)
def test_one_update_equals_numpy(loss, regularizer, solver):
    case = helpers.make_case("tall", loss)
    strength = 1e-2
    gamma, state = _library(case, loss, regularizer, strength, solver=solver, evidence=cx.Evidence(largest_change=1e9))
    expected, variance, target = _numpy(case, loss, regularizer, strength)
    assert 1 < expected < 44
    assert float(gamma) == pytest.approx(expected, rel=1e-9)
    assert float(state.gamma) == pytest.approx(expected, rel=1e-9)
    assert float(state.noise_variance) == pytest.approx(variance, rel=1e-9)
    assert float(state.strength) == pytest.approx(target, rel=1e-9)


@pytest.mark.parametrize("strength", [1e-6, 0.5])
def test_factor_limit(strength):
    case = helpers.make_case("tall", "squared")
    _, _, target = _numpy(case, "squared", "l2", strength)
    _, state = _library(case, "squared", "l2", strength)
    assert target > 3 * strength or target < strength / 3
    assert float(state.strength) == pytest.approx(strength * (3 if target > strength else 1 / 3), rel=1e-12)
    _, state = _library(case, "squared", "l2", strength, evidence=cx.Evidence(largest_change=1.5))
    assert float(state.strength) == pytest.approx(strength * (1.5 if target > strength else 1 / 1.5), rel=1e-12)


def test_strength_stays_within_the_scale_of_the_kernel():
    # Ten times the mean of K's diagonal, a row of weight 2 counted as two, is the most there can be.
    case = helpers.make_case("tall", "squared")
    _, jacobian = helpers.network(helpers.as_layers(case.params), case.inputs, helpers.scales_of(case.model), "tanh")
    share = case.weights / case.weights.sum()
    diagonal = (share[:, None, None] * jacobian**2).sum(axis=2)
    _, state = _library(case, "squared", "l2", 1e3)
    mean = diagonal.sum() / (case.weights.sum() * diagonal.shape[1])
    assert float(state.strength) == pytest.approx(10 * mean, rel=1e-10)


def test_waits_for_three_steps():
    case = helpers.make_case("tall", "squared")
    for taken in (0, 2):
        _, state = _library(case, "squared", "l2", 1e-6, taken=taken)
        assert float(state.strength) == 1e-6
        assert np.isnan(state.gamma)
    assert float(_library(case, "squared", "l2", 1e-6, taken=0, evidence=cx.Evidence(wait=0))[1].strength) > 1e-6


def test_updates_come_less_often_while_they_change_little():
    """gap 1 → 2 → 4 → 4 at the fixed point, less the further τ moves, at once after a step that was not taken."""
    case = helpers.make_case("tall", "squared")
    evidence, strength, state = cx.Evidence(), 1e-2, None
    for _ in range(40):
        _, state = _library(case, "squared", "l2", strength)
        strength = float(state.strength)
    assert float(state.ratio) == pytest.approx(1.0, abs=1e-6)
    assert evidence.is_settled(state)
    assert (int(state.due), int(state.gap)) == (5, 2)
    _, state = _library(case, "squared", "l2", strength, gap=4)
    assert (int(state.due), int(state.gap)) == (7, 4)
    _, state = _library(case, "squared", "l2", 2 * strength, gap=4)
    assert (int(state.due), int(state.gap)) == (4, 1)
    assert not evidence.is_settled(state)
    gaps = []
    for factor in (1.1, 1.2, 1.4):
        _, moved = _library(case, "squared", "l2", factor * strength, gap=4)
        # Steps in which τ would have moved by 15 %, at this pace.
        assert int(moved.gap) == min(int(4 * 0.15 / abs(np.log(moved.ratio))), 4)
        assert int(moved.due) == 3 + int(moved.gap)
        gaps.append(int(moved.gap))
    assert gaps[0] > gaps[1] > gaps[2]
    assert not evidence.is_settled(evidence.init(jnp.float64))
    waiting = state._replace(taken=jnp.asarray(4), due=jnp.asarray(7))
    assert int(evidence.count(waiting, jnp.asarray(True)).due) == 7
    assert int(evidence.count(waiting, jnp.asarray(False)).due) == 4
    assert int(evidence.count(evidence.init(jnp.float64), jnp.asarray(False)).due) == 3


def test_no_update_before_it_is_due():
    case = helpers.make_case("tall", "squared")
    _, state = _library(case, "squared", "l2", 1e-6, taken=5, due=6)
    assert float(state.strength) == 1e-6


def test_float32():
    case = helpers.make_case("tall", "softmax")
    gamma, state = _library(case, "softmax", "l2", 1e-2, dtype=jnp.float32)
    assert gamma.dtype == state.strength.dtype == state.noise_variance.dtype == jnp.float32
    assert float(gamma) == pytest.approx(_numpy(case, "softmax", "l2", 1e-2)[0], rel=1e-3)
    assert float(state.noise_variance) == 1.0


def test_noise_of_a_network_that_interpolates_is_bounded():
    # N − γ is held above N/100: no division by zero, no negative variance.
    targets = jnp.zeros((10, 1))
    args = (targets + 0.3, make_batch(cx.SquaredError(), targets, targets, None, 1, targets.dtype), jnp.asarray(10.0))
    assert float(noise_variance(cx.SquaredError(), *args)) == pytest.approx(10 * 0.3**2 / (0.01 * 10))
    assert float(noise_variance(cx.BinaryCrossEntropy(), *args)) == 1.0


def test_zero_parameters_hold_the_strength():
    case = helpers.make_case("tall", "squared")
    case = case._replace(params=jax.tree.map(jnp.zeros_like, case.params))
    _, state = _library(case, "squared", "l2", 1e-2)
    assert np.isfinite(state.strength)
    assert 1e-2 / 3 <= float(state.strength) <= 3e-2 * (1 + 1e-12)


def _log_evidence(features, targets, strength, variance):
    """log N(y; 0, σ² I + (σ²/(n τ)) ΦΦᵀ): the marginal likelihood of θ ~ N(0, σ²/(n τ) I), exact."""
    n = len(targets)
    covariance = variance * (np.eye(n) + features @ features.T / (n * strength))
    return -0.5 * (targets @ np.linalg.solve(covariance, targets) + np.linalg.slogdet(2 * np.pi * covariance)[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_converges_to_the_maximum_of_the_evidence(seed):
    """On a Gaussian model linear in its parameters MacKay's fixed point is a stationary point of the exact evidence."""
    rng = np.random.default_rng(seed)
    n, p = 60, 12
    features = rng.normal(size=(n, p))
    targets = features @ (0.7 * rng.normal(size=p)) + 0.5 * rng.normal(size=n)
    model = lambda params, x: (x @ params)[:, None]
    result = cx.train(
        model,
        cx.SquaredError(),
        cx.L2(),
        jnp.asarray(0.1 * rng.normal(size=p)),
        (jnp.asarray(features), jnp.asarray(targets)),
        strength=cx.Evidence(initial=10.0),
        max_steps=60,
        tolerance=0.0,
    )
    strength, noise = result.history["strength"][-1], result.history["noise"][-1]
    # The maximum by brute force: a coarse grid in (log τ, log σ²), refined around its best point.
    centre, width = np.zeros(2), np.array([8.0, 8.0])
    for _ in range(14):
        offsets = np.linspace(-1, 1, 13)
        grid = [(centre[0] + a * width[0], centre[1] + b * width[1]) for a in offsets for b in offsets]
        centre = np.array(
            max(grid, key=lambda point: _log_evidence(features, targets, np.exp(point[0]), np.exp(point[1])))
        )
        width = width / 3
    assert np.log(strength) == pytest.approx(centre[0], abs=2e-3)
    assert 2 * np.log(noise) == pytest.approx(centre[1], abs=2e-3)
    assert 0.3 < noise < 0.8
    # At the fixed point the reported evidence is the exact one.
    scored = np.flatnonzero(np.isfinite(result.history["log_evidence"]))[-1]
    exact = _log_evidence(
        features, targets, result.history["strength"][scored - 1], result.history["noise"][scored] ** 2
    )
    assert result.history["log_evidence"][scored] == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("loss", ["softmax", "binary"])
def test_log_evidence_of_a_likelihood_equals_numpy(loss):
    """−Σ w (ℓ + τ g) − ½ log det(I + (Σ w Jᵀ∂²ℓJ)(n τ H)⁻¹), on the primal side of p parameters."""
    case = helpers.make_case("tall", loss)
    reference, penalty = helpers.REFERENCE_LOSSES[loss], helpers.REFERENCE_REGULARIZERS["pseudo-huber 5"]
    outputs, jacobian = helpers.network(
        helpers.as_layers(case.params), case.inputs, helpers.scales_of(case.model), "tanh"
    )
    theta, tau, n = helpers.flatten(case.params), 0.02, case.weights.sum()
    curvature = np.einsum(
        "i,iap,iab,ibq->pq", case.weights, jacobian, reference.hessian(outputs, case.targets), jacobian
    )
    ratio = curvature / (n * tau * penalty.diagonal(theta))
    fit = case.weights @ reference.value(outputs, case.targets) + n * tau * float(penalty.value(theta))
    expected = -fit - 0.5 * np.linalg.slogdet(np.eye(len(theta)) + ratio)[1]
    for solver in (cx.Dual(), cx.Primal()):
        _, state = _library(case, loss, "pseudo-huber 5", tau, solver=solver)
        assert float(state.log_evidence) == pytest.approx(expected, rel=1e-9)
        assert float(state.score) == pytest.approx(0.5 * (expected / n + float(state.leave_one_out)), rel=1e-12)


def test_fixed_strength_never_moves():
    rule = cx.FixedStrength(0.3)
    state = rule.init(jnp.float64)
    assert rule.update(state, None, None, None, None) is state
    assert not rule.is_adaptive
    assert cx.Evidence().is_adaptive
    assert int(rule.count(state, jnp.asarray(True)).taken) == 1
    assert int(rule.count(state, jnp.asarray(False)).taken) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0.0}, r"`Evidence\(initial=0.0\)`: must be a positive finite number"),
        ({"initial": float("inf")}, r"`Evidence\(initial=inf\)`"),
        ({"wait": -1}, r"`Evidence\(wait=-1, largest_change=3.0, largest_gap=4\)`: wait is at least 0"),
        ({"largest_change": 1.0}, r"`Evidence\(wait=3, largest_change=1.0, .*largest_change above 1"),
        ({"largest_gap": 0}, r"largest_gap=0\)`.*largest_gap at least 1"),
    ],
)
def test_evidence_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        cx.Evidence(**options)
