"""Random convex problems: F never rises under the rules that promise it, and nothing absurd ever gives NaN."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers
from concordax.optimizer import make_algorithm

ROWS, FEATURES, OUTPUTS, STEPS = 16, 4, 3, 15
RULES = {
    "self-concordant": cx.SelfConcordantStep(),
    "self-concordant, no doubling": cx.SelfConcordantStep(doubling=False),
    "backtracking": cx.Backtracking(),
    "Barzilai-Borwein": cx.BarzilaiBorwein(),
}


def _linear(params, inputs):
    return inputs @ params


@eqx.filter_jit
def _run(algorithm, params, inputs, targets):
    batch = algorithm.batch(params, inputs, targets)

    def step(carry, _):
        params, state = carry
        updates, state = algorithm.update(state, params, batch)
        return (params + updates, state), (state.info, params)

    return jax.lax.scan(step, (params, algorithm.init(params)), length=STEPS)


# (loss, smoothing, strength)
PROBLEMS = [("binary", 0.05, 1e-3), ("softmax", 0.5, 1e-4), ("pseudo-huber", 5.0, 1e-1)]


@pytest.mark.combinations
@pytest.mark.parametrize(("loss", "smoothing", "strength"), PROBLEMS)
@pytest.mark.parametrize("rule", RULES)
def test_objective_never_rises(rule, loss, smoothing, strength):
    algorithm = make_algorithm(
        _linear, helpers.LOSSES[loss], cx.PseudoHuber(smoothing), strength=strength, damping=0.0, solver=cx.Primal(),
        step=RULES[rule],
    )  # fmt: skip
    reference, penalty = helpers.REFERENCE_LOSSES[loss], helpers.reference_pseudo_huber(smoothing)
    solved, trials = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        inputs = rng.normal(size=(ROWS, FEATURES)) * 10.0 ** rng.uniform(-1, 1, size=FEATURES)
        targets = helpers.draw_targets(loss, rng, ROWS, OUTPUTS)
        if seed % 4 == 0 and loss != "pseudo-huber":
            # Separable: only the penalty holds the solution.
            scores = inputs @ rng.normal(size=(FEATURES, OUTPUTS))
            targets = np.eye(OUTPUTS)[scores.argmax(axis=1)] if loss == "softmax" else (scores > 0).astype(float)
        start = 3 * rng.normal(size=(FEATURES, OUTPUTS))
        _, (infos, visited) = _run(algorithm, jnp.asarray(start), jnp.asarray(inputs), jnp.asarray(targets))
        path = [
            reference.value(inputs @ at, targets).mean() + strength * penalty.value(at.ravel())
            for at in np.asarray(visited)
        ]
        # By NumPy, not by what the steps report.
        assert np.isfinite(np.array(path, float)).all()
        assert np.all(np.diff(path) <= 1e-14 * (1 + np.abs(path[:-1])))
        if "self-concordant" in rule:
            # The decrease that the proof promises, of the first trial already.
            promised = 0.5 * np.asarray(infos.step_size * infos.decrement**2)[:-1]
            if "no doubling" in rule:
                assert np.all(-np.diff(path) >= promised - 1e-13 * (1 + np.abs(path[:-1])))
                trials.append(np.asarray(infos.attempts))
        solved += float(infos.decrement[-1]) ** 2 < 1e-6
    assert not trials or np.max(trials) == 1
    assert solved >= (10 if rule == "self-concordant" else 1)


KINDS = ["huge inputs", "NaN row", "infinite target", "huge start", "zero inputs", "constant rows", "tiny inputs"]


@pytest.mark.parametrize("rule", [*RULES, "Barzilai-Borwein, memory"])
def test_absurd_data_never_gives_nan(rule):
    step = RULES.get(rule, cx.BarzilaiBorwein(memory=4))
    for loss, kind in [("binary", kind) for kind in KINDS]:
        algorithm = make_algorithm(
            _linear, helpers.LOSSES[loss], cx.PseudoHuber(0.05), strength=1e-3, damping=0.0, solver=cx.Primal(),
            step=step,
        )  # fmt: skip
        rng = np.random.default_rng(1)
        inputs, start = rng.normal(size=(ROWS, FEATURES)), rng.normal(size=(FEATURES, OUTPUTS))
        targets = helpers.draw_targets(loss, rng, ROWS, OUTPUTS)
        if kind == "huge inputs":
            inputs *= 1e100
        elif kind == "tiny inputs":
            inputs *= 1e-200
        elif kind == "NaN row":
            inputs[3] = np.nan
        elif kind == "infinite target":
            targets[2] = np.inf
        elif kind == "huge start":
            start *= 1e60
        elif kind == "zero inputs":
            inputs *= 0
        else:
            inputs[:], targets[:] = 1.0, 1.0
        (params, state), (infos, _) = _run(algorithm, jnp.asarray(start), jnp.asarray(inputs), jnp.asarray(targets))
        assert np.isfinite(np.asarray(params)).all(), kind
        assert all(not np.isnan(np.asarray(x)).any() for x in jax.tree.leaves(state.rule)), kind
        if kind in ("NaN row", "infinite target"):
            assert set(np.asarray(infos.status).tolist()) == {cx.StepStatus.NONFINITE_START}
            np.testing.assert_array_equal(params, start)
        elif "memory" not in rule:
            assert np.all(np.diff(np.append(infos.objective, infos.new_objective[-1])) <= 0), kind
