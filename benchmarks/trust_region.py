"""The trust region's choices: rules for the damping, and corrections for the bending, on four synthetic problems.

    python benchmarks/trust_region.py --output benchmarks/records/trust_region.json

A wide network on a teacher of its own form, a deep one on a smooth function, three exponentials of unknown rates, and
the classes of three spirals, each from ten starts for 300 steps. Compared is F after 10, 30, 100 and 300 steps, over
the lowest that any of them reached from that start; and what they cost: trials, and the median step of a second run,
the first being the one that compiles.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from results import write

import concordax as cx

STEPS, SEEDS = 300, 10
AFTER = (10, 30, 100, 300)
RULES = {
    "`MissedShare()`, the default": cx.TrustRegion(),
    "`GainRatio()`": cx.TrustRegion(damping_rule=cx.GainRatio()),
    "`Nielsen()`": cx.TrustRegion(damping_rule=cx.Nielsen()),
    "`MissedShare()`, `corrections=1`": cx.TrustRegion(corrections=1),
    "`MissedShare()`, `corrections=0`": cx.TrustRegion(corrections=0),
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


def measure(make, seed: int) -> dict[str, dict]:
    """A rule's F after so many steps, over the lowest of all; its trials; and seconds of its median step."""
    model, loss, regularizer, params, x, y, strength = make(seed)
    histories = {}
    for _ in range(2):
        for name, step in RULES.items():
            result = cx.train(
                model, loss, regularizer, params, (jnp.asarray(x), jnp.asarray(y)),
                strength=strength, step=step, max_steps=STEPS, tolerance=0.0,
            )  # fmt: skip
            histories[name] = result.history
    lowest = min(history["objective"].min() for history in histories.values())
    return {
        name: {
            # A run that ended early, at a stationary point, stays where it is.
            "over": [float(history["objective"][:steps][-1] / lowest) for steps in AFTER],
            "trials": int(history["attempts"].sum()),
            "seconds": float(np.median(np.diff(history["seconds"]))),
        }
        for name, history in histories.items()
    }


def markdown(record: dict) -> str:
    """The record as a table: a rule's F over the lowest, its trials and milliseconds a step, on each problem."""
    problems = record["problems"]
    lines = [f"| damping | {' | '.join(problems)} |", "|---" * (1 + len(problems)) + "|"]
    for rule in RULES:
        cells = [_cell([run[rule] for run in runs]) for runs in problems.values()]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: list[dict]) -> str:
    over = np.median([run["over"] for run in runs], axis=0)
    trials, seconds = (np.median([run[what] for run in runs]) for what in ("trials", "seconds"))
    return f"{' / '.join(f'{ratio:.3g}' for ratio in over)}; {trials:.0f}; {1e3 * seconds:.2g}"


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
