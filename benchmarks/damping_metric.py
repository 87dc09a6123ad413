"""What the metric of the damping changes: the trust region with D and with the Hessian H of the regularizer alone.

    python benchmarks/damping_metric.py --output benchmarks/records/damping_metric.json

All rows: the teacher and student of the sweeps (500 rows, 5 inputs, width 500, τ = 1e-4) under regularizers whose
smoothing goes from far below the weights to far above. Mini-batches: scikit-learn's digits, 64 -> 128 relu -> 10,
softmax, 64 rows a batch, τ = 1e-4. Three starts each, medians; float64.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from results import write
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import concordax as cx
from concordax.experiments.synthetic import teacher_student
from concordax.regularizers import AbstractRegularizer

SEEDS, STEPS, BATCHES, STRENGTH, SETTLED = 3, 400, 200, 1e-4, 1e-6
REGULARIZERS = {
    **{f"`PseudoHuber({mu:g})`": lambda _, mu=mu: cx.PseudoHuber(mu) for mu in (1e-3, 1e-2, 0.1, 1.0, 10.0)},
    "`OstrovskiiBach(0.1)`": lambda _: cx.OstrovskiiBach(0.1),
    "`LogCosh(1)`": lambda _: cx.LogCosh(1.0),
    "`Elastic(0.1, 0.1)`": lambda _: cx.Elastic(0.1, 0.1),
    "`HyperbolicEntropy(0.1)`": lambda _: cx.HyperbolicEntropy(0.1),
    "`GroupPseudoHuber(0.1, neurons)`": lambda params: cx.GroupPseudoHuber(0.1, cx.Groups.neurons(params)),
}
SMOOTHINGS = (0.01, 0.1, 1.0)


class _Hessian(AbstractRegularizer):
    """A regularizer whose damping is in its Hessian."""

    inner: AbstractRegularizer

    def value(self, x):
        return self.inner.value(x)

    def gradient(self, x):
        return self.inner.gradient(x)

    def metric(self, x):
        return self.inner.metric(x)

    def constants(self):
        return self.inner.constants()


METRICS = {"D": lambda regularizer: regularizer, "H": _Hessian}


def measure_all_rows(make, metric: str, seed: int) -> dict[str, float]:
    """F at the end, the first step within 1e-6 of that, and the parameters that hold 99.9 % of ‖θ‖₁."""
    data_key, start_key = jax.random.split(jax.random.key(seed))
    data = teacher_student(data_key, train_rows=500, test_rows=1000, inputs=5, teacher_width=5)
    model = cx.TwoLayer(5, 500, 1, activation="silu")
    start = jax.jit(model.init)(start_key)
    regularizer = METRICS[metric](make(start))
    result = cx.train(
        model, cx.SquaredError(), regularizer, start, (data.inputs, data.targets),
        strength=STRENGTH, max_steps=STEPS, tolerance=0.0,
    )  # fmt: skip
    history = result.history
    objective = np.asarray(history["objective"])
    there = int(np.flatnonzero(objective <= (1 + SETTLED) * objective[-1])[0]) + 1
    return {
        "objective": float(objective[-1]),
        "steps": there,
        "trials": float(np.mean(history["attempts"])),
        "iterations": float(np.mean(history["solver_iterations"])),
        "holding": cx.sparsity(model, result.params, share=0.999).holding,
    }


def measure_batches(smoothing: float, metric: str, seed: int) -> dict[str, float]:
    """Test error, F on the training rows and iterations a step."""
    images, labels = load_digits(return_X_y=True)
    inputs, test_inputs, classes, test_classes = train_test_split(
        images / 16, labels, test_size=0.3, random_state=seed, stratify=labels
    )
    model = cx.TwoLayer(64, 128, 10, activation="relu")
    regularizer = METRICS[metric](cx.PseudoHuber(smoothing))
    result = cx.train(
        model, cx.SoftmaxCrossEntropy(), regularizer, model.init(jax.random.key(seed)), (inputs, classes),
        strength=STRENGTH, batch_size=64, max_steps=BATCHES, key=jax.random.key(seed + 1), tolerance=0.0,
    )  # fmt: skip
    params = result.best_params
    guesses = np.argmax(model(params, jnp.asarray(test_inputs)), axis=1)
    arguments = (model, cx.SoftmaxCrossEntropy(), cx.PseudoHuber(smoothing), params, jnp.asarray(inputs), classes)
    return {
        "error": float(np.mean(guesses != test_classes)),
        "objective": float(cx.objective(*arguments, strength=STRENGTH)),
        "iterations": float(np.mean(result.history["solver_iterations"])),
    }


def markdown(record: dict) -> str:
    """Both tables, D before H."""
    lines = [
        "| all rows | F / 1e-3, D | F / 1e-3, H | steps, D | steps, H | weights left, D | weights left, H |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in record["all_rows"].items():
        pairs = [_median(runs, metric, what) for what in ("objective", "steps", "holding") for metric in METRICS]
        steps = [f"{n:.0f}" if n < STEPS else f"over {STEPS}" for n in pairs[2:4]]
        cells = [f"{1e3 * pairs[0]:.3g}", f"{1e3 * pairs[1]:.3g}", *steps, f"{pairs[4]:.0f}", f"{pairs[5]:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| mini-batches | test error, D | test error, H | F, D | F, H | iterations a step, D | iterations a step, H |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in record["batches"].items():
        pairs = [_median(runs, metric, what) for what in ("error", "objective", "iterations") for metric in METRICS]
        cells = [f"{100 * error:.1f} %" for error in pairs[:2]] + [f"{number:.3g}" for number in pairs[2:]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _median(runs: dict[str, list[dict]], metric: str, what: str) -> float:
    return float(np.median([run[what] for run in runs[metric]]))


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    def each(measure, name: str, case) -> dict[str, list[dict]]:
        runs = {metric: [measure(case, metric, seed) for seed in range(SEEDS)] for metric in METRICS}
        print(name, runs, flush=True)
        return runs

    batches = {f"`PseudoHuber({smoothing:g})`": smoothing for smoothing in SMOOTHINGS}
    record = {
        "batches": {name: each(measure_batches, name, smoothing) for name, smoothing in batches.items()},
        "all_rows": {name: each(measure_all_rows, name, make) for name, make in REGULARIZERS.items()},
    }
    print(markdown(write(arguments.output, record)))


if __name__ == "__main__":
    main()
