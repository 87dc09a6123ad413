"""The trust region's choices: rules for the damping, and geodesic acceleration, on four synthetic problems.

    python benchmarks/trust_region.py --output benchmarks/records/trust_region.json

A wide network on a teacher of its own form, a deep one on a smooth function, three exponentials of unknown rates, and
the classes of three spirals, each from five starts. Counted is what each takes until F is within 1 % of the lowest that
any reached in 300 steps; seconds are so many times the median step of three runs after a first, which compiles.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from results import write

import concordax as cx

STEPS, SEEDS, SHARE, REPEATS = 300, 5, 1e-2, 3
RULES = {
    "`MissedShare()`, the default": cx.TrustRegion(),
    "`GainRatio()`": cx.TrustRegion(damping_rule=cx.GainRatio()),
    "`Nielsen()`": cx.TrustRegion(damping_rule=cx.Nielsen()),
    "`MissedShare()`, without the bending": cx.TrustRegion(geodesic=False),
}


def _wide(seed: int):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 10))
    y = np.tanh(x @ rng.normal(size=(10, 5))) @ rng.uniform(size=5)
    model = cx.TwoLayer(inputs=10, width=100)
    return model, cx.SquaredError(), cx.PseudoHuber(10.0), model.init(jax.random.key(seed)), x, y, 1e-6


def _deep(seed: int):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(200, 2))
    y = np.sin(4 * x[:, 0]) * np.cos(3 * x[:, 1])
    model = cx.MLP(inputs=2, widths=(16, 16, 16))
    return model, cx.SquaredError(), cx.L2(), model.init(jax.random.key(seed)), x, y, 1e-6


def _decays(params, inputs):
    """Σ a_k e^{−x e^{b_k}}."""
    return jnp.exp(-inputs * jnp.exp(params[1])) @ params[0][:, None]


def _exponentials(seed: int):
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 5, 60)[:, None]
    y = np.exp(-x * np.array([0.3, 1.0, 4.0])) @ np.array([1.0, 2.0, 1.0]) + 1e-3 * rng.normal(size=60)
    return _decays, cx.SquaredError(), cx.L2(), jnp.asarray(rng.normal(size=(2, 3))), x, y, 1e-9


def _spirals(seed: int):
    rng = np.random.default_rng(seed)
    arm, radius = np.repeat(np.arange(3), 100), np.tile(np.linspace(0.1, 1, 100), 3)
    angle = 4 * radius + 2 * np.pi * arm / 3 + 0.15 * rng.normal(size=300)
    model = cx.MLP(inputs=2, widths=(50,), outputs=3)
    x = 2 * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return model, cx.SoftmaxCrossEntropy(), cx.L2(), model.init(jax.random.key(seed)), x, arm, 1e-5


PROBLEMS = {"wide network, 200 rows": _wide, "three hidden layers of 16, 200 rows": _deep,
            "three exponentials, 60 rows": _exponentials, "three spirals, 300 rows": _spirals}  # fmt: skip


def measure(make, seed: int) -> dict[str, dict | None]:
    """Steps, trials and seconds a rule until F is as low as SHARE says; None where it does not get there."""
    model, loss, regularizer, params, x, y, strength = make(seed)
    histories = {name: [] for name in RULES}
    for _ in range(1 + REPEATS):
        for name, step in RULES.items():
            result = cx.train(
                model, loss, regularizer, params, (jnp.asarray(x), jnp.asarray(y)),
                strength=strength, step=step, max_steps=STEPS, tolerance=0.0,
            )  # fmt: skip
            histories[name].append(result.history)
    goal = (1 + SHARE) * min(runs[0]["objective"].min() for runs in histories.values())
    found = {}
    for name, runs in histories.items():
        there = np.flatnonzero(runs[0]["objective"] <= goal)
        step = np.median([np.diff(run["seconds"]) for run in runs[1:]])
        count = int(there[0]) + 1 if len(there) else 0
        trials = int(runs[0]["attempts"][:count].sum())
        found[name] = {"steps": count, "trials": trials, "seconds": float(count * step)} if count else None
    return found


def markdown(record: dict) -> str:
    """The record as a table: steps, trials and milliseconds of each rule on each problem."""
    problems = record["problems"]
    lines = [f"| damping | {' | '.join(problems)} |", "|---" * (1 + len(problems)) + "|"]
    for rule in RULES:
        cells = [_cell(runs, rule) for runs in problems.values()]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: list[dict], rule: str) -> str:
    steps, trials, seconds = (
        np.median([np.inf if run[rule] is None else run[rule][what] for run in runs])
        for what in ("steps", "trials", "seconds")
    )
    return f"{steps:.0f} / {trials:.0f} / {1e3 * seconds:.0f}" if np.isfinite(steps) else f"over {STEPS}"


def main() -> None:
    """Measures all problems and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    problems = {}
    for name, make in PROBLEMS.items():
        problems[name] = [measure(make, seed) for seed in range(SEEDS)]
        print(name, problems[name], flush=True)
    print(markdown(write(arguments.output, {"problems": problems})))


if __name__ == "__main__":
    main()
