"""Data of nearly the same size share one compiled program, and so do the values of a smoothing."""

import jax
import numpy as np
import optax
import pytest

import concordax as cx
import regularizer_cases as reference

sklearn_model_selection = pytest.importorskip("sklearn.model_selection")
from concordax.sklearn import GGNClassifier, GGNRegressor  # noqa: E402


class _Compilations:
    """Counts compilations by their own announcements; those of `_step` are the long ones, but none may be repeated."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event, duration, **_):
        del duration
        # Announced also where a compiled program is read from the disk.
        self.count += event == "/jax/core/compile/backend_compile_duration"


COMPILATIONS = _Compilations()


@pytest.mark.parametrize("rows", [500, 503])
def test_folds_compile_once(rows):
    """Five folds of 500 rows, and of 503, which are not of one size: the first compiles, the others do not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3 if rows == 500 else 4))
    y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=rows)
    estimator = GGNRegressor(hidden_widths=(6,), max_steps=2)
    counts = []
    for train, test in sklearn_model_selection.KFold(5).split(x):
        before = COMPILATIONS.count
        estimator.fit(x[train], y[train]).predict(x[test[:100]])
        counts.append(COMPILATIONS.count - before)
    assert counts[0] > 0
    assert counts[1:] == [0] * 4


def test_a_larger_table_compiles_anew():
    """The counter counts: another size is another program."""
    rng = np.random.default_rng(0)
    estimator = GGNClassifier(hidden_widths=(6,), max_steps=2)
    for rows in (40, 80):
        before = COMPILATIONS.count
        x = rng.normal(size=(rows, 3))
        estimator.fit(x, x[:, 0] > 0)
        assert COMPILATIONS.count > before


RIDGE = reference.separable(lambda x: 0.5 * x**2, lambda x: x, np.ones_like)
LABELS = [0, 0, 1]
SMOOTHED = {
    "pseudo-Huber": (cx.PseudoHuber, reference.pseudo_huber),
    "Ostrovskii-Bach": (cx.OstrovskiiBach, reference.ostrovskii_bach),
    "log cosh": (cx.LogCosh, reference.log_cosh),
    "hyperbolic entropy": (cx.HyperbolicEntropy, reference.entropy),
    "groups": (
        lambda mu: cx.GroupPseudoHuber(mu, cx.Groups(LABELS, weights=[1.0, 1.0])),
        lambda mu: reference.group(mu, LABELS),
    ),
    "box": (
        lambda mu: cx.SmoothBox(-3 * mu, 4 * mu, mu) + cx.L2(),
        lambda mu: reference.weighted((1.0, reference.box(-3 * mu, 4 * mu, mu)), (1.0, RIDGE)),
    ),
    "sum": (
        lambda mu: mu * cx.L2() + 3 * mu * cx.PseudoHuber(mu),
        lambda mu: reference.weighted((mu, RIDGE), (3 * mu, reference.pseudo_huber(mu))),
    ),
    "blocks": (
        lambda mu: cx.PerParameter((np.zeros(1), np.zeros(2)), (cx.LogCosh(mu), mu * cx.L2())),
        lambda mu: reference.blocks((1, reference.log_cosh(mu)), (2, reference.weighted((mu, RIDGE)))),
    ),
}
RULES = {
    "trust region": {},
    "published": {"step": cx.PublishedStep()},
    "self-concordant": {"step": cx.SelfConcordantStep()},
    "line search": {"step": cx.Backtracking()},
    "L-BFGS": {"optimizer": optax.lbfgs()},
}
_ROWS = np.random.default_rng(0).normal(size=(20, 3))
_TARGETS = _ROWS @ [[1.0], [-2.0], [0.5]] + 0.1 * np.random.default_rng(1).normal(size=(20, 1))


def _linear(params, inputs):
    return inputs @ jax.numpy.concatenate(params)[:, None]


def _fit(regularizer, **options):
    start = jax.numpy.array([0.3]), jax.numpy.array([-0.2, 0.1])
    return cx.train(
        _linear, cx.SquaredError(), regularizer, start, (_ROWS, _TARGETS), strength=0.1, max_steps=2000,
        tolerance=1e-15, **options,
    )  # fmt: skip


def _assert_minimum(result, expected):
    """That the gradient of F, written out in NumPy with another regularizer, is zero at the end of a run."""
    at = np.concatenate(result.params)
    slope = _ROWS.T @ (_ROWS @ at[:, None] - _TARGETS)[:, 0] / len(_ROWS)
    np.testing.assert_allclose(slope + 0.1 * expected.gradient(at), 0.0, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothings_share_a_program(name):
    """Another smoothing compiles nothing, and is not taken for the first: its minimum is its own."""
    ours, expected = SMOOTHED[name]
    _assert_minimum(_fit(ours(0.5)), expected(0.5))
    before = COMPILATIONS.count
    _assert_minimum(_fit(ours(2.0)), expected(2.0))
    assert COMPILATIONS.count == before


@pytest.mark.parametrize("name", RULES)
def test_every_rule_shares_a_program(name):
    """Smoothings and fixed dampings are arguments of whatever takes the step."""
    damping = [0.0, 0.0] if "optimizer" in RULES[name] else [0.05, 0.2]
    _fit(cx.PseudoHuber(0.5), **RULES[name], damping=damping[0])
    before = COMPILATIONS.count
    result = _fit(cx.PseudoHuber(2.0), **RULES[name], damping=damping[1])
    _assert_minimum(result, reference.pseudo_huber(2.0))
    assert COMPILATIONS.count == before


def test_float32_stays():
    """A smoothing is no reason to compute in float64."""
    result = cx.train(
        _linear, cx.SquaredError(), cx.PseudoHuber(0.5), (jax.numpy.zeros(1, "f4"), jax.numpy.zeros(2, "f4")),
        (_ROWS.astype("f4"), _TARGETS.astype("f4")), strength=0.1, max_steps=3,
    )  # fmt: skip
    assert [part.dtype for part in result.params] == ["float32", "float32"]
    assert result.state.info.objective.dtype == "float32"
