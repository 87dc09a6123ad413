"""Certificates against dense NumPy: steps from all over the ball, minimisers by SciPy, runs, brute-force curvatures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from certificate_cases import PENALTIES, ROUNDING, STRENGTH, Dense, linear, penalty_parts
from concordax import ntk
from concordax.ntk import certifying
from concordax.ntk.ball import Ball, Start, kantorovich, least_ball
from concordax.ntk.lipschitz import _SLOPES, AbstractLipschitz, Curve
from concordax.system import Problem, make_batch


@pytest.mark.parametrize("name", PENALTIES)
def test_numbers_at_the_start_are_those_of_dense_numpy(name):
    case = Dense(name, weights=np.array([1.0, 2.0, 0.0, 0.5, 1.0, 1.5]))
    found = case.certify()
    r, jacobian = case.residual(case.flat)
    present = case.weights > 0
    hessian = penalty_parts(name, case.flat)[2]
    gram = (jacobian / hessian @ jacobian.T)[np.ix_(present, present)]
    eigenvalues = np.linalg.eigvalsh(gram)
    step = case.step(case.flat)
    assert found.exists
    assert found.smallest_eigenvalue == pytest.approx(eigenvalues[0], rel=1e-8)
    assert found.largest_eigenvalue == pytest.approx(eigenvalues[-1], rel=1e-8)
    assert found.first_step == pytest.approx(case.norm(step), rel=1e-8)
    assert found.ball.linear_residual == pytest.approx(np.linalg.norm(r + jacobian @ step), rel=1e-8)
    shortest = np.sqrt(r[present] @ np.linalg.solve(gram, r[present]))
    assert found.kantorovich == pytest.approx(found.lipschitz * shortest / np.sqrt(eigenvalues[0]), rel=1e-6)
    assert found.euclidean_radius == pytest.approx(found.radius / np.sqrt(hessian.min()), rel=1e-8)


@pytest.mark.parametrize("name", PENALTIES)
def test_no_step_leaves_the_ball(name):
    """From anywhere in it: T(d) within E of the first step's end; linear residuals and slopes as bounded."""
    case, rng = Dense(name), np.random.default_rng(0)
    found = case.certify()
    ball, end = found.ball, case.flat + case.step(case.flat)
    r0, jacobian0 = case.residual(case.flat)
    root = np.sqrt(penalty_parts(name, case.flat)[2])
    worst, previous = 0.0, case.flat
    for _ in range(60):
        d = case.within(found.radius, rng)
        r, jacobian = case.residual(d)
        worst = max(worst, case.norm(d + case.step(d) - end))
        bend = np.linalg.norm(r - r0 - jacobian0 @ (d - case.flat))
        assert bend <= 0.5 * found.lipschitz * case.norm(d - case.flat) ** 2 * ROUNDING
        turn = np.linalg.norm((jacobian - case.residual(previous)[1]) / root, 2)
        assert turn <= found.lipschitz * case.norm(d - previous) * ROUNDING
        system = jacobian.T @ jacobian + STRENGTH * np.diag(penalty_parts(name, d)[2])
        whitened = system / root / root[:, None]
        assert np.linalg.eigvalsh(whitened)[0] >= ball.held(STRENGTH) / ROUNDING
        assert np.linalg.norm(np.linalg.solve(whitened, (jacobian / root).T), 2) <= ball.response(STRENGTH) * ROUNDING
        previous = d
    assert 0.01 * ball.spill < worst <= ball.spill
    assert found.first_step + ball.spill < found.radius < 2 * found.first_step


@pytest.mark.parametrize("name", PENALTIES)
def test_the_minimiser_is_within_the_radius_and_the_only_one(name):
    case, rng = Dense(name), np.random.default_rng(1)
    found = case.certify()
    ends = [case.minimum(begin) for begin in (case.flat, *(case.within(found.radius, rng) for _ in range(4)))]
    assert max(np.abs(end - ends[0]).max() for end in ends) < 1e-6
    assert case.norm(ends[0] - case.flat) <= found.radius
    r, _ = case.residual(ends[0])
    assert np.linalg.norm(r) <= found.ball.residual
    directions = [case.within(1.0, rng) - case.flat for _ in range(50)]
    h = 1e-4
    for d in (d / case.norm(d) for d in directions):
        curvature = (case.objective(ends[0] + h * d)[1] - case.objective(ends[0] - h * d)[1]) @ d / (2 * h)
        assert curvature >= found.ball.convexity > 0


@pytest.mark.parametrize(("step_size", "damping"), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.02)])
@pytest.mark.parametrize("name", PENALTIES)
def test_runs_contract_as_certified(name, step_size, damping):
    case = Dense(name, scale=0.01, away=0.0)
    found = case.certify(step_size=step_size, damping=damping)
    assert 0 < found.contraction < 1
    end, d, losses = case.minimum(case.flat), case.flat, []
    for number in range(12):
        distance = case.norm(d - end)
        assert distance <= found.distance_after(number) * ROUNDING + 1e-7  # L-BFGS's
        losses.append(0.5 * np.sum(case.residual(d)[0] ** 2))
        assert losses[-1] <= found.loss_after(number) * ROUNDING
        d = d + step_size * case.step(d, damping)
    # Above what the bound of the loss tends to, every target is promised, and kept.
    for target in (1.05 * found.loss_after(100), 2 * found.loss_after(100)):
        steps = found.steps_to(target)
        assert steps is not None
        assert steps < 100
        assert found.loss_after(steps) <= target < found.loss_after(steps - 1)
    assert found.steps_to(0.0) is None


def test_check_of_runs():
    case = Dense("L2", scale=0.01, away=0.0)
    found = case.certify()
    result = cx.train(
        case.change, cx.SquaredError(), cx.L2(), case.start, (case.inputs, case.targets), strength=STRENGTH,
        step=cx.FixedStep(0.5), max_steps=4, tolerance=0.0,
    )  # fmt: skip
    kept = case.certify(step_size=0.5).check(result)
    assert (kept.within, kept.as_certified, kept.losses) == (True, True, True)
    assert kept.distance == pytest.approx(case.norm(helpers.flatten(result.params)), rel=1e-10)
    other = found.check(result)
    assert (other.within, other.as_certified, other.losses) == (True, False, None)
    risen = result._replace(history=result.history | {"loss": result.history["loss"] + found.loss_after(1)})
    assert case.certify(step_size=0.5).check(risen).losses is False
    far = jax.tree.map(lambda leaf: leaf + found.radius, case.start)
    assert found.check(far).within is False
    none = Dense("L2", scale=3.0).certify()
    assert not none.exists
    assert none.check(far).within is None
    with pytest.raises(ValueError, match="parameters, the certificate"):
        found.check(jnp.ones(3))


class Zero(AbstractLipschitz):
    """What is known of linear models."""

    proved = True

    def over(self, curve, radius, key):
        del curve, radius, key
        return 0.0


def test_linear_models_in_closed_form():
    """L = 0: one step ends at the minimiser, D from the start; a damped one of size α leaves 1 − α + αλ/t at most."""
    rng = np.random.default_rng(5)
    inputs, targets, start = rng.normal(size=(4, 7)), rng.normal(size=4), rng.normal(size=7)
    options = {"strength": 0.3, "key": jax.random.key(1)}
    args = (linear, cx.SquaredError(), cx.L2(), jnp.asarray(start), (inputs, targets))
    found = ntk.certify(*args, **options)
    solution = np.linalg.solve(inputs.T @ inputs / 4 + 0.3 * np.eye(7), inputs.T @ targets / 4)
    assert found.exists
    assert found.lipschitz == pytest.approx(0, abs=1e-12)
    assert found.first_step == pytest.approx(np.linalg.norm(solution - start), rel=1e-10)
    assert found.radius == pytest.approx(found.first_step, rel=1e-5)
    assert found.contraction == pytest.approx(0, abs=1e-9)
    least = 0.5 * np.mean((inputs @ solution - targets) ** 2)
    assert found.steps_to(1.001 * least) == 1
    damped = ntk.certify(*args, **options, step_size=0.5, damping=0.1, lipschitz=Zero())
    assert damped.contraction == pytest.approx(0.5 + 0.5 * 0.25, rel=1e-9)
    # More rows than parameters: the rows hold them too.
    tall = ntk.certify(
        linear, cx.SquaredError(), cx.L2(), jnp.zeros(2), (inputs[:, :2], targets), strength=0.3, lipschitz=Zero()
    )
    eigenvalues = np.linalg.eigvalsh(inputs[:, :2].T @ inputs[:, :2] / 4)
    assert tall.ball.convexity == pytest.approx(0.3 + eigenvalues[0], rel=1e-5)
    assert tall.interpolation_radius == np.inf


@pytest.mark.parametrize("level", [0.1, 0.4, 0.499, 0.6])
def test_kantorovich_is_sharp_for_a_quadratic(level):
    """σs − Ls²/2 = r0 has its least root at t*, and none beyond h = ½."""
    lipschitz, smallest = 0.7, 1.3
    length = level * smallest / lipschitz
    h, radius = kantorovich(lipschitz, smallest, length)
    roots = np.roots([0.5 * lipschitz, -smallest, smallest * length])
    assert h == pytest.approx(level)
    if level > 0.5:
        assert np.abs(roots.imag).min() > 0
        assert radius == np.inf
    else:
        assert radius == pytest.approx(roots.real.min(), rel=1e-9)


def test_least_ball_is_the_least():
    """Its radius is the least root of ρ = D + E(ρ) on a fine grid; a larger L or D leaves none."""
    start = Start(0.5, 0.3, 0.2, 1.0, False, 0.05, 0.2)
    ball = least_ball(start, 0.06, 5.0)
    grid = np.linspace(0.5, 1.5, 10_001)
    inside = [radius for radius in grid if start.first_step + Ball(start, 0.06, radius).spill < radius]
    assert ball.radius == pytest.approx(inside[0], abs=2e-4)
    assert least_ball(start, 2.0, 5.0) is None
    assert least_ball(start, 0.06, 0.9 * ball.radius) is None


def curve(model, params, inputs, penalty=None):
    flat, unravel = ravel_pytree(params)
    batch = make_batch(cx.SquaredError(), jnp.asarray(inputs), jnp.zeros((len(inputs), 1)), None, 1, flat.dtype)
    penalty = cx.L2() if penalty is None else penalty
    return Curve(Problem(model, cx.SquaredError(), penalty, unravel), flat, batch, penalty.metric(flat))


def unit_curvatures(weight, outer, inputs, width):
    """max over unit (s, a) of ‖(2 a s φ'(wx) x + v s² φ''(wx) x²)‖ of each unit, one input: a grid of angles."""
    angle = np.linspace(0, np.pi, 301)
    s, a = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, tanh = inputs[:, 0], np.tanh(weight[:, None, None] * inputs[:, 0])
    first, second = 1 - tanh**2, -2 * tanh * (1 - tanh**2)
    each = 2 * a * s * first * x + outer[:, None, None] * s**2 * second * x**2
    return np.sqrt(np.mean(each**2, axis=-1)).max(axis=-1) / np.sqrt(width)


def test_measured_curvature_is_that_of_brute_force():
    """At the start: of 30 units the largest. Over a ball, one unit of two weights: all points, all directions."""
    rng, key = np.random.default_rng(8), jax.random.key(0)
    inputs = rng.normal(size=(9, 1))
    measured = ntk.MeasuredLipschitz(starts=4, margin=1.0)
    model = cx.TwoLayer(1, 30, activation="tanh")
    params = model.init(key)
    at_start = curve(model, params, inputs, 4.0 * cx.L2())
    weight, outer = np.asarray(params[0].weight)[:, 0], np.asarray(params[1].weight)[0]
    exact = unit_curvatures(weight, outer, inputs, 30).max()
    assert measured.over(at_start, 1e-9, key) == pytest.approx(exact / 4, rel=1e-2)
    assert measured.over(at_start, 1.0, key) <= ntk.BoundedLipschitz().over(at_start, 1.0, key)
    alone = cx.TwoLayer(1, 1, activation="tanh")
    params = alone.init(key)
    radius, angle = np.meshgrid(np.linspace(0, 0.8, 17), np.linspace(0, 2 * np.pi, 91))
    w = float(params[0].weight[0, 0]) + (radius * np.cos(angle)).ravel()
    v = float(params[1].weight[0, 0]) + (radius * np.sin(angle)).ravel()
    exact = unit_curvatures(w, v, inputs, 1).max()
    found = measured.over(curve(alone, params, inputs), 0.8, key)
    assert exact * 0.98 <= found <= exact * 1.001


def test_slopes_of_activations():
    t = np.linspace(-8, 8, 400_001)
    for name, (first, second) in _SLOPES.items():
        values = np.asarray({"tanh": jnp.tanh, "silu": jax.nn.silu, "gelu": jax.nn.gelu, "erf": jax.scipy.special.erf,
                             "linear": lambda z: z}[name](t))  # fmt: skip
        h = t[1] - t[0]
        steepest = np.abs(np.diff(values) / h).max()
        bend = np.abs(np.diff(values, 2) / h**2).max()
        assert 0.999 * first < steepest <= first + 1e-6
        assert 0.999 * second - 1e-5 < bend <= second + 1e-5


def test_certificate_in_single_precision():
    case = Dense("L2")
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (case.params, case.start))
    change, _ = ntk.centered(case.model, single[0])
    data, options = (case.inputs, case.targets), {"strength": STRENGTH, "lipschitz": ntk.BoundedLipschitz()}
    found = ntk.certify(change, cx.SquaredError(), cx.L2(), single[1], data, **options)
    assert found.radius == pytest.approx(case.certify().radius, rel=1e-3)


REFUSED = [
    ({"loss": cx.SoftmaxCrossEntropy()}, ValueError, "theorems are for SquaredError"),
    ({"strength": -1.0}, ValueError, "positive finite"),
    ({"step_size": 1.5}, ValueError, "at most 1"),
    ({"damping": -1.0}, ValueError, "from 0 up"),
    ({"model": cx.TwoLayer(3, 30, activation="relu")}, ValueError, "Jacobian jumps"),
    ({"model": cx.TwoLayer(3, 30, activation="relu"), "lipschitz": ntk.BoundedLipschitz()}, ValueError, "one hidden"),
    ({"data": (np.full((4, 3), np.nan), np.ones(4))}, ValueError, "must be finite"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=[m for _, _, m in REFUSED])
def test_refusals(change, error, message):
    model = change.get("model", cx.TwoLayer(3, 30, activation="silu"))
    data = (np.random.default_rng(0).normal(size=(4, 3)), np.ones(4))
    kinds = {"model": model, "loss": cx.SquaredError(), "regularizer": cx.L2(), "params": model.init(jax.random.key(0))}
    options = kinds | {"data": data, "strength": 0.1} | change
    if change.keys() == {"loss"}:
        options["data"] = (data[0], np.ones(4, int))
    with pytest.raises(error, match=message):
        ntk.certify(**options)


def test_refusals_of_other_kinds():
    """Apart from `certify`, whose types are checked in tests."""
    proper = (cx.SquaredError(), cx.L2(), 0.1, 1.0, ntk.BoundedLipschitz())
    certifying._check(*proper)
    with pytest.raises(ValueError, match="adaptive"):
        certifying._check(*proper[:2], cx.Evidence(), *proper[3:])
    with pytest.raises(TypeError, match="BoundedLipschitz"):
        certifying._check(*proper[:4], 3.0)
    sharp = cx.CustomRegularizer(lambda t: t**2 / 2 + t**4, constants=())
    with pytest.raises(ValueError, match="ν = 2"):
        certifying._check(proper[0], sharp, *proper[2:])
    with pytest.raises(ValueError, match="starts"):
        ntk.MeasuredLipschitz(starts=0)
    with pytest.raises(ValueError, match="margin"):
        ntk.MeasuredLipschitz(margin=0.5)


def test_reasons():
    """A penalty around zero, and one whose curvature changes at once."""
    case = Dense("L2")
    data, options = (case.inputs, case.targets), {"strength": STRENGTH, "lipschitz": ntk.BoundedLipschitz()}
    drawn = ntk.certify(case.model, cx.SquaredError(), cx.L2(), case.params, data, **options)
    assert not drawn.exists
    assert "ntk.centered" in drawn.reason
    assert drawn.radius == np.inf
    assert (drawn.steps_to(1.0), drawn.loss_after(3)) == (None, np.inf)
    bent = Start(0.3, 0.1, 0.5, 1.0, False, 0.1, 5.0)
    assert "larger smoothing" in certifying._reason(bent, Ball(bent, 0.01, 0.9), None)
    held = Start(0.1, 20.0, 0.5, 1.0, False, 0.1, 0.0)
    assert "not shown to be a minimiser" in certifying._reason(held, Ball(held, 1.0, 0.9), Ball(held, 1.0, 0.9))
    assert "one stationary point" in case.certify().reason


@pytest.mark.parametrize("tall", [False, True])
def test_inequalities_are_those_of_the_guide(tall):
    """E, V and the contraction with integrals by quadrature and suprema on a grid."""
    d, u, sigma, tau, k, lipschitz, rho = 0.4, 0.7, 0.9, 0.02, 0.3, 0.5, 0.6
    ball = Ball(Start(d, u, sigma, 1.5, tall, tau, k), lipschitz, rho)
    x = (np.arange(100_000) + 0.5) / 100_000
    s = sigma - lipschitz * rho
    assert s > 0
    held = lambda t: np.exp(-k * rho) * t + tall * s**2
    singular = np.geomspace(s * np.exp(-k * rho / 2), 10, 100_001)
    response = lambda t: np.exp(k * rho / 2) * np.max(singular / (singular**2 + t))
    bend = rho * np.mean(np.exp(k * rho) - np.exp(k * x * rho)) + (np.exp(k * rho) - 1) * d
    curved = 0.5 * lipschitz * rho**2 + lipschitz * rho * d
    along = lipschitz * rho * tau * u + tau * bend
    assert ball.spill == pytest.approx(along / held(tau) + response(tau) * curved, rel=1e-6)
    kept = 1.0 if tall else tau / (singular[0] ** 2 + tau)
    residual = tau * u + kept * curved + response(tau) * along
    assert ball.residual == pytest.approx(residual, rel=1e-6)
    assert ball.convexity == pytest.approx(held(tau) - lipschitz * residual, rel=1e-6)
    far, damping, t = 0.2, 0.05, tau + 0.05
    grown = np.exp(k * rho) * np.mean(np.exp((1 - x) * k * far) - 1)
    rate = damping / t * np.exp(k * rho) + lipschitz * residual / held(t) + 0.5 * response(t) * lipschitz * far
    expected = (0.3 + 0.7 * (rate + tau / held(t) * grown)) * far
    assert ball.shrunk(far, residual, 0.7, damping) == pytest.approx(expected, rel=1e-6)


def test_kernel_of_more_rows_than_a_block():
    """Of such a Gram only the upper triangle is formed."""
    inputs = np.random.default_rng(0).normal(size=(520, 560))
    args = (linear, cx.SquaredError(), cx.L2(), jnp.zeros(560), (inputs, inputs[:, 0]))
    found = ntk.certify(*args, strength=0.1, lipschitz=Zero())
    eigenvalues = np.linalg.eigvalsh(inputs @ inputs.T / 520)
    assert found.smallest_eigenvalue == pytest.approx(eigenvalues[0], rel=1e-6)
    assert found.largest_eigenvalue == pytest.approx(eigenvalues[-1], rel=1e-10)
