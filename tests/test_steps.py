"""Step rules: their formulas in NumPy, what they report, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import concordax as cx
import helpers
import loss_cases
from concordax.metrics import DiagonalMetric
from concordax.optimizer import make_algorithm
from concordax.regularizers import AbstractRegularizer
from concordax.self_concordance import SelfConcordance

ROWS, FEATURES, STEPS = 12, 3, 6
RULES = {
    "self-concordant": cx.SelfConcordantStep(),
    "self-concordant, no doubling": cx.SelfConcordantStep(doubling=False),
    "backtracking": cx.Backtracking(),
    "Barzilai-Borwein": cx.BarzilaiBorwein(),
    "Barzilai-Borwein, memory": cx.BarzilaiBorwein(memory=3),
    "trust region, corrected": cx.TrustRegion(6),
}


def _linear(params, inputs):
    """[n, d] times [d, c]."""
    return inputs @ params


def _algorithm(model, loss, regularizer, step, strength=1e-3, **options):
    options = {"solver": cx.Primal(), "damping": 0.0, **options}
    return make_algorithm(model, loss, regularizer, strength=strength, step=step, **options)


def _step(algorithm, params, inputs, targets, state=None):
    state = algorithm.init(params) if state is None else state
    updates, state = jax.jit(algorithm.update)(state, params, algorithm.batch(params, inputs, targets))
    return optax.apply_updates(params, updates), state


def _problem(loss, seed, outputs, scale=1.0):
    rng = np.random.default_rng(seed)
    inputs, theta = rng.normal(size=(ROWS, FEATURES)), scale * rng.normal(size=(FEATURES, outputs))
    return inputs, helpers.draw_targets(loss, rng, ROWS, outputs), theta


def _newton(loss, penalty, inputs, targets, theta, strength, damping=0.0):
    """Newton's δ [p], λ², the curvature of each row's loss along δ and of the penalty, and Jδ, all by dense NumPy."""
    outputs, reference = inputs @ theta, helpers.REFERENCE_LOSSES[loss]
    jacobian = np.einsum("nd,ck->nkdc", inputs, np.eye(theta.shape[1]).T).reshape(ROWS, theta.shape[1], -1)
    hessian = reference.hessian(outputs, targets)
    metric, flat = penalty.diagonal(theta.ravel()), theta.ravel()
    gradient = np.einsum("nkp,nk->p", jacobian, reference.gradient(outputs, targets)) / ROWS
    gradient = gradient + strength * penalty.gradient(flat)
    normal = np.einsum("nkp,nkl,nlq->pq", jacobian, hessian, jacobian) / ROWS
    delta = -np.linalg.solve(normal + (strength + damping) * np.diag(metric), gradient)
    slopes = jacobian @ delta
    rows = np.einsum("nk,nkl,nl->n", slopes, hessian, slopes) / ROWS
    return delta, -gradient @ delta, rows, strength * (metric * delta**2).sum(), slopes, metric


KAPPAS = {
    "binary": lambda s: np.abs(s).max(axis=1),
    "softmax": lambda s: s.max(axis=1) - s.min(axis=1),
    "pseudo-huber": lambda s: 1.5 * np.abs(s).max(axis=1) / loss_cases.HUBER,
    "squared": lambda s: 0 * s[:, 0],
}


def _bisect(function, low, high):
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) <= 0 else (low, middle)
    return low


@pytest.mark.parametrize("damping", [0.0, 0.05])
@pytest.mark.parametrize("loss", KAPPAS)
def test_self_concordant_step_solves_its_equation(loss, damping):
    """α from Σ q h(α) = λ² in NumPy: at most that, and less by no more than a thousandth of its bracket."""
    outputs, smoothing, strength = 3 if loss == "softmax" else 2, 0.3, 0.02
    algorithm = _algorithm(
        _linear, helpers.LOSSES[loss], cx.PseudoHuber(smoothing), RULES["self-concordant, no doubling"], strength,
        damping=damping,
    )  # fmt: skip
    step, batch_of = jax.jit(algorithm.update), algorithm.batch
    shorter = 0
    for seed in range(12):
        inputs, targets, theta = _problem(loss, seed, outputs)
        penalty = helpers.reference_pseudo_huber(smoothing)
        delta, decrease, rows, own, slopes, metric = _newton(loss, penalty, inputs, targets, theta, strength, damping)
        kappas, kappa = KAPPAS[loss](slopes), 1.5 * np.abs(delta).max() / smoothing
        local, euclidean = np.sqrt((metric * delta**2).sum()), np.linalg.norm(delta)
        known = [(3 * np.sqrt(10) * 11**-0.55, 2.6), (3.0, 8 / 3)]
        above = [
            ((nu / 2 - 1) * m * smoothing ** (nu / 2 - 2) * local ** (nu - 2) * euclidean ** (3 - nu), nu)
            for m, nu in known
        ]

        def surplus(alpha, kappas=kappas, kappa=kappa, above=above, rows=rows, own=own, decrease=decrease):
            growth = np.where(kappas > 0, np.expm1(kappas * alpha) / np.where(kappas > 0, kappas, 1), alpha)
            bounds = [np.expm1(kappa * alpha) / kappa]
            for d, nu in above:
                power = (4 - nu) / (nu - 2)
                bounds.append(((1 - alpha * d) ** -power - 1) / (power * d) if alpha * d < 1 else np.inf)
            return rows @ growth + own * min(bounds) - decrease

        alpha = 1.0 if surplus(1.0) <= 0 else _bisect(surplus, 0.0, 1.0)
        largest = max(kappas.max(), kappa)
        updates, state = step(algorithm.init(theta), jnp.asarray(theta), batch_of(theta, inputs, targets))
        found = float(state.info.step_size)
        assert int(state.info.attempts) == 1
        assert found <= alpha * (1 + 1e-9)
        assert found >= alpha * 0.99
        # Never shorter than the step of the largest κ.
        assert found >= np.log1p(largest) / largest * (1 - 1e-9)
        np.testing.assert_allclose(np.ravel(updates), found * delta, rtol=1e-7, atol=1e-10)
        shorter += alpha < 0.9
    assert shorter >= (0 if damping else 6)


def test_quadratic_problem_is_solved_by_one_step():
    """Squared error under L2 has no third derivative: α = 1, and doubling finds nothing lower."""
    inputs, targets, theta = _problem("squared", 0, 2)
    best = np.linalg.solve(inputs.T @ inputs / ROWS + 0.1 * np.eye(FEATURES), inputs.T @ targets / ROWS)
    for name in ("self-concordant", "backtracking", "Barzilai-Borwein"):
        algorithm = _algorithm(_linear, cx.SquaredError(), cx.L2(), RULES[name], 0.1)
        moved, state = _step(algorithm, jnp.asarray(theta), inputs, targets)
        assert float(state.info.step_size) == pytest.approx(1.0, rel=1e-6), name
        np.testing.assert_allclose(moved, best, rtol=1e-5, atol=1e-6)


class _Barrier(AbstractRegularizer):
    """−Σ log(1 − x²): self-concordant in the standard sense, (2, 3), and nothing known at ν = 2."""

    known: tuple = (SelfConcordance(2.0, 3.0),)

    def value(self, x):
        return -jnp.sum(jnp.log1p(-(x**2)))

    def gradient(self, x):
        return 2 * x / (1 - x**2)

    def metric(self, x):
        return DiagonalMetric((1 - x**2) ** 2 / (2 * (1 + x**2)))

    def constants(self):
        return self.known

    def published_constants(self):
        return self.known[0]


def test_regularizer_known_above_two_only():
    """F never rises, x stays within (−1, 1), and α is not shorter than the smaller of the two damped steps."""
    step, damped = RULES["self-concordant, no doubling"], 0
    algorithm = _algorithm(_linear, cx.BinaryCrossEntropy(), _Barrier(), step, 0.01)
    update = jax.jit(algorithm.update)
    for seed in range(10):
        inputs, targets, _ = _problem("binary", seed, 1, 1.0)
        theta = np.random.default_rng(seed).uniform(-0.99, 0.99, size=(FEATURES, 1))
        penalty = helpers.reference_separable(
            None, lambda x: 2 * x / (1 - x**2), lambda x: 2 * (1 + x**2) / (1 - x**2) ** 2
        )
        delta, _, _, _, slopes, metric = _newton("binary", penalty, 5 * inputs, targets, theta, 0.01)
        d = np.sqrt((metric * delta**2).sum())
        shortest = min(np.log1p(k) / k for k in KAPPAS["binary"](slopes) if k > 0)
        updates, state = update(algorithm.init(theta), jnp.asarray(theta), algorithm.batch(theta, 5 * inputs, targets))
        assert float(state.info.step_size) >= min(shortest, 1 / (1 + d)) * (1 - 1e-9)
        assert int(state.info.attempts) == 1
        assert float(state.info.new_objective) < float(state.info.objective)
        assert np.all(np.abs(theta + updates) < 1)
        damped += 1 / (1 + d) < shortest
    assert damped >= 3


def test_regularizer_without_constants_is_refused_before_anything_runs():
    algorithm = _algorithm(_linear, cx.BinaryCrossEntropy(), _Barrier(()), cx.SelfConcordantStep())
    inputs, targets, theta = _problem("binary", 0, 1)
    with pytest.raises(ValueError, match=r"`SelfConcordantStep` needs a regularizer with constants .*TrustRegion"):
        jax.eval_shape(algorithm.update, algorithm.init(theta), theta, algorithm.batch(theta, inputs, targets))


def test_backtracking_halves_as_in_numpy():
    """Binary problems from saturated starts: the first of 1, ½, ¼ ... that gains 1e-4 of what the slope promises."""
    penalty, reference = helpers.reference_pseudo_huber(0.05), helpers.REFERENCE_LOSSES["binary"]
    algorithm = _algorithm(_linear, cx.BinaryCrossEntropy(), cx.PseudoHuber(0.05), cx.Backtracking(), 0.01)
    update, sizes = jax.jit(algorithm.update), []
    for seed in range(12):
        inputs, targets, theta = _problem("binary", seed, 2, 2.0)
        delta, decrease, *_ = _newton("binary", penalty, inputs, targets, theta, 0.01)

        def objective(flat, inputs=inputs, targets=targets, theta=theta):
            outputs = inputs @ flat.reshape(theta.shape)
            return float(reference.value(outputs, targets).mean() + 0.01 * penalty.value(flat))

        size, trials = 1.0, 1
        while not objective(theta.ravel() + size * delta) <= objective(theta.ravel()) - 1e-4 * size * decrease:
            size, trials = size / 2, trials + 1
        _, state = update(algorithm.init(theta), jnp.asarray(theta), algorithm.batch(theta, inputs, targets))
        assert float(state.info.step_size) == size
        assert int(state.info.attempts) == trials
        assert float(state.info.decrement) == pytest.approx(np.sqrt(decrease), rel=1e-8)
        sizes.append(size)
    assert len(set(sizes)) >= 3


@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_barzilai_borwein_quotient(damping):
    """The second step tries ‖s‖²_B/sᵀy, B that of its own point, from dense NumPy; here nothing halves it."""
    strength = 0.05
    algorithm = _algorithm(_linear, cx.BinaryCrossEntropy(), cx.L2(), cx.BarzilaiBorwein(), strength, damping=damping)
    update, quotients = jax.jit(algorithm.update), []
    for seed in range(6):
        inputs, targets, theta = _problem("binary", seed, 1, 0.3)
        batch, state = algorithm.batch(theta, inputs, targets), algorithm.init(theta)
        updates, state = update(state, jnp.asarray(theta), batch)
        assert float(state.info.step_size) == 1
        step = np.ravel(updates)
        after = theta + np.asarray(updates)

        def gradient(at, inputs=inputs, targets=targets):
            pull = helpers.REFERENCE_LOSSES["binary"].gradient(inputs @ at, targets)
            return np.ravel(inputs.T @ pull / ROWS + strength * at)

        p = helpers.sigmoid(inputs @ after)
        normal = inputs.T @ (p * (1 - p) * inputs) / ROWS + (strength + damping) * np.eye(FEATURES)
        quotient = step @ normal @ step / (step @ (gradient(after) - gradient(theta)))
        updates, state = update(state, jnp.asarray(after), batch)
        assert float(state.info.step_size) == pytest.approx(quotient, rel=1e-6)
        assert int(state.info.attempts) == 1
        quotients.append(quotient)
    # With damping B is more than the curvature of F: the quotient makes up for it.
    assert np.mean(quotients) > 1.5 if damping else np.ptp(quotients) > 1e-3


def test_barzilai_borwein_with_a_memory_may_rise_for_a_while():
    """F is never above the largest of the last three, and rises at times; with memory 1 it never does."""
    rises = {}
    for memory in (1, 3):
        algorithm = _algorithm(
            _linear, cx.BinaryCrossEntropy(), cx.PseudoHuber(0.05), cx.BarzilaiBorwein(memory), 0.01
        )
        update, rises[memory] = jax.jit(algorithm.update), 0
        for seed in range(12):
            inputs, targets, theta = _problem("binary", seed, 2, 2.0)
            params, state, objectives = jnp.asarray(theta), algorithm.init(theta), []
            for _ in range(8):
                updates, state = update(state, params, algorithm.batch(theta, inputs, targets))
                params, objectives = params + updates, [*objectives, float(state.info.objective)]
                last = objectives[-memory:]
                assert float(state.info.new_objective) <= max(last)
                rises[memory] += float(state.info.new_objective) > objectives[-1]
    assert rises[1] == 0
    assert rises[3] > 0


@pytest.mark.parametrize("rule", RULES)
def test_lowers_a_small_network_and_compiles_once(rule):
    case = helpers.make_case("tall", "squared")
    algorithm = _algorithm(case.model, cx.SquaredError(), cx.PseudoHuber(0.5), RULES[rule], solver=cx.Auto())
    batch, traces = algorithm.batch(case.params, case.inputs, case.targets, case.weights), []

    @jax.jit
    def update(state, params, batch):
        traces.append(1)
        return algorithm.update(state, params, batch)

    params, state = case.params, algorithm.init(case.params)
    start = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    before = None
    for _ in range(STEPS):
        updates, state = update(state, params, batch)
        before = float(state.info.objective) if before is None else before
        params = optax.apply_updates(params, updates)
        assert int(state.info.status) == cx.StepStatus.ACCEPTED
        if "memory" not in rule:
            assert float(state.info.new_objective) < float(state.info.objective)
        # What is reported is what F is there.
        final = cx.objective(
            case.model, cx.SquaredError(), cx.PseudoHuber(0.5), params, case.inputs, case.targets, strength=1e-3,
            weights=case.weights,
        )  # fmt: skip
        assert float(final) == pytest.approx(float(state.info.new_objective), rel=1e-12)
    assert float(state.info.new_objective) < 0.8 * before
    assert traces == [1]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == start


@pytest.mark.parametrize("rule", RULES)
def test_says_why_nothing_was_done(rule):
    algorithm = _algorithm(_linear, cx.BinaryCrossEntropy(), cx.L2(), RULES[rule], 0.1)
    inputs, targets, theta = _problem("binary", 0, 1)
    update = jax.jit(algorithm.update)
    # At the minimum, found by Newton's method in NumPy.
    for _ in range(30):
        theta = theta + _newton("binary", helpers.REFERENCE_REGULARIZERS["l2"], inputs, targets, theta, 0.1)[0][:, None]
    found = set()
    for offset in np.linspace(-1e-12, 1e-12, 9):
        near = jnp.asarray(theta * (1 + offset))
        _, state = update(algorithm.init(near), near, algorithm.batch(near, inputs, targets))
        found.add(int(state.info.status))
        assert float(state.info.new_objective) <= float(state.info.objective)
    # Where rounding happens to show a gain, it is taken; nothing is ever refused there.
    assert cx.StepStatus.STATIONARY in found
    assert found <= {cx.StepStatus.STATIONARY, cx.StepStatus.ACCEPTED}
    # Rows that cannot be used.
    for value in (np.nan, np.inf):
        spoiled = np.where(np.arange(ROWS)[:, None] == 3, value, inputs)
        updates, state = update(algorithm.init(near), near, algorithm.batch(near, spoiled, targets))
        assert int(state.info.status) == cx.StepStatus.NONFINITE_START
        np.testing.assert_array_equal(updates, np.zeros((FEATURES, 1)))
        # What is carried stays usable: the next step, on good rows, is taken.
        away = jnp.asarray(theta + 1.0)
        _, state = update(state, away, algorithm.batch(away, inputs, targets))
        assert int(state.info.status) == cx.StepStatus.ACCEPTED
        assert all(np.isfinite(np.asarray(x)[np.asarray(x) > -np.inf]).all() for x in jax.tree.leaves(state.rule))


@pytest.mark.parametrize("rule", RULES)
def test_model_that_rises_everywhere_is_left_alone(rule):
    flat = jnp.asarray([1.0, 2.0])

    def spike(params, inputs):
        # Linear to the derivative, but 1e3 further away anywhere but at the start.
        return inputs @ params[:, None] + jnp.where(jnp.all(params == flat), 0.0, 1e3)

    algorithm = _algorithm(spike, cx.SquaredError(), cx.L2(), RULES[rule])
    updates, state = _step(algorithm, flat, jnp.eye(2), jnp.zeros((2, 1)))
    np.testing.assert_array_equal(updates, flat)
    assert int(state.info.status) == cx.StepStatus.REJECTED
    assert "shortest step tried" in cx.StepStatus.REJECTED.message
    assert int(state.info.attempts) == (6 if "trust" in rule else 30)
    assert float(state.info.step_size) == 0
    assert float(state.info.new_objective) == float(state.info.objective)


def test_doubling_keeps_the_lowest_trial():
    """Separable rows far on the wrong side: the proven step is short, doubling goes past 1, and F is lower for it."""
    inputs = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
    targets = (inputs[:, :1] > 0).astype(float)
    theta = jnp.asarray([[-3.0], [0.0], [0.0]])
    loss, penalty = cx.BinaryCrossEntropy(), cx.PseudoHuber(20.0)
    ends = {}
    for rule in ("self-concordant", "self-concordant, no doubling"):
        algorithm = _algorithm(_linear, loss, penalty, RULES[rule], 1e-4)
        _, ends[rule] = _step(algorithm, theta, inputs, targets)
    doubled, plain = ends["self-concordant"].info, ends["self-concordant, no doubling"].info
    assert int(doubled.attempts) > int(plain.attempts) == 1
    assert float(doubled.step_size) > float(plain.step_size)
    assert float(doubled.new_objective) < float(plain.new_objective)
    delta, *_ = _newton(
        "binary", helpers.reference_pseudo_huber(20.0), inputs, targets, np.asarray(theta), 1e-4
    )

    def objective(size):
        flat = np.ravel(theta) + size * delta
        value = helpers.REFERENCE_LOSSES["binary"].value(inputs @ flat[:, None], targets).mean()
        return float(value + 1e-4 * helpers.reference_pseudo_huber(20.0).value(flat))

    # Of proven step, doublings with a stop at 1, and the parabola through the last three, none is lower.
    sizes = [float(plain.step_size)]
    while len(sizes) < 2 or objective(sizes[-1]) < objective(sizes[-2]):
        sizes.append(1.0 if 0.5 < sizes[-1] < 1 else 2 * sizes[-1])
    a, b, c = ([0.0, *sizes])[-3:]
    coefficients = np.polyfit([a, b, c], [objective(s) for s in (a, b, c)], 2)
    lowest = -coefficients[1] / (2 * coefficients[0])
    candidates = [*sizes, lowest]
    assert float(doubled.step_size) == pytest.approx(min(candidates, key=objective), rel=1e-6)
    assert int(doubled.attempts) == len(candidates)


@pytest.mark.parametrize("rule", ["self-concordant", "Barzilai-Borwein, memory", "trust region, corrected"])
def test_float32_stays_float32(rule):
    inputs, targets, theta = (jnp.asarray(x, jnp.float32) for x in _problem("softmax", 0, 3))
    algorithm = _algorithm(_linear, cx.SoftmaxCrossEntropy(), cx.PseudoHuber(0.3), RULES[rule])
    moved, state = _step(algorithm, theta, inputs, targets)
    assert moved.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(state.rule)} <= {jnp.dtype("float32")}
    assert float(state.info.new_objective) < float(state.info.objective)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cx.Backtracking(0), r"`Backtracking\(max_trials=0\)`: must be a whole number from 1 up"),
        (lambda: cx.BarzilaiBorwein(0), r"`BarzilaiBorwein\(memory=0\)`"),
        (lambda: cx.BarzilaiBorwein(max_trials=True), r"`BarzilaiBorwein\(max_trials=True\)`"),
        (lambda: cx.SelfConcordantStep(max_doublings=-1), r"`SelfConcordantStep\(max_doublings=-1\)`"),
        (lambda: cx.TrustRegion(corrections=-1), r"`TrustRegion\(corrections=-1\)`: must be a whole number from 0 up"),
    ],
)
def test_options_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
