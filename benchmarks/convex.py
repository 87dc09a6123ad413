"""Step rules on random convex problems: how many each solves, in how many steps, and whether F ever rises.

    python benchmarks/convex.py --output benchmarks/records/convex.json

400 models linear in their parameters, 2 to 29 of them, half logistic and half softmax of three classes, under a
pseudo-Huber penalty: strength 1e-4 to 1, smoothing 0.03 to 20, both log-uniform; a quarter of the data is separable. A
run starts 3 units from the solution (near), or from the solution displaced by a normal vector of 3 in every coordinate
(far), and has solved its problem when the squared Newton decrement at strength τ is below 1e-12, within 300 steps. Rows
and parameters are filled up to one shape, absent rows by weight 0 and absent parameters by inputs of 0, so that one
program per rule and loss serves all.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from results import write

import concordax as cx
from concordax.optimizer import local_problem
from concordax.self_concordance import SelfConcordance
from concordax.steps import AbstractStep, LocalProblem, damped_at_two, fixed_damping
from concordax.system import Problem, build_system, make_batch

PROBLEMS, ROWS, FEATURES, CLASSES, STEPS = 400, 60, 29, 3, 300
# Squared Newton decrement of a solved problem, and the units of rounding of F within which it has not risen.
SOLVED, ROUNDING = 1e-12, 64
DISTANCE = 3.0
STARTS = ("near", "far")
SOLUTION_STEPS = 1000


class _Smoothed(cx.PseudoHuber):
    """Pseudo-Huber with its smoothing as an array, one program for all, and the number of parameters present."""

    smoothing: Float[Array, ""]  # pyright: ignore[reportIncompatibleVariableOverride]
    present: Float[Array, ""]

    def __init__(self, smoothing, present):
        self.smoothing, self.present = smoothing, present

    def published_constants(self):
        """The published constants, whose power of p is that of the parameters present."""
        constant, order = super().published_constants()
        return SelfConcordance(constant * (self.present / FEATURES) ** ((3 - order) / 2), order)


class _LargestConstant(AbstractStep):
    """α = ln(1+κ)/κ with the largest κ of all terms, and nothing else."""

    def init(self, like):
        """No state."""
        del like
        return ()

    def take(self, local: LocalProblem, state):
        """One solve, one step."""

        def size(solution):
            slopes = local.system.slopes(solution.direction)
            penalty = local.regularizer.concordance(solution.direction)
            assert penalty is not None
            return damped_at_two(jnp.maximum(local.loss_function.concordance(slopes), penalty))

        return fixed_damping(local, size), state


# A rule, and whether the damping is 1 − τ, as published.
RULES: dict[str, tuple[AbstractStep, bool]] = {
    "`SelfConcordantStep()`": (cx.SelfConcordantStep(), False),
    "`SelfConcordantStep(doubling=False)`": (cx.SelfConcordantStep(doubling=False), False),
    "ln(1+κ)/κ, the largest κ": (_LargestConstant(), False),
    "`Backtracking()`": (cx.Backtracking(), False),
    "`BarzilaiBorwein()`": (cx.BarzilaiBorwein(), False),
    "`BarzilaiBorwein(memory=5)`": (cx.BarzilaiBorwein(memory=5), False),
    "`TrustRegion()`": (cx.TrustRegion(), False),
    "`FixedStep(1.0)`": (cx.FixedStep(1.0), False),
    "`PublishedStep()`": (cx.PublishedStep(), False),
    "`PublishedStep()`, damping 1 − τ": (cx.PublishedStep(), True),
}
LOSSES = {"logistic": cx.BinaryCrossEntropy(), "softmax": cx.SoftmaxCrossEntropy()}


class Draw(NamedTuple):
    """One problem, filled up to the common shape."""

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    weights: Float[Array, " n"]
    mask: Float[Array, " p"]
    strength: Float[Array, ""]
    smoothing: Float[Array, ""]


class Run(NamedTuple):
    """Where a run stands: whether it is solved, rose or met something not finite on its way."""

    flat: Float[Array, " p"]
    state: object
    objective: Float[Array, ""]
    steps: Array
    solved: Array
    rises: Array
    finite: Array
    evaluations: Array


def draw(loss: str, seed: int) -> tuple[Draw, np.ndarray]:
    """A problem, and the displacement of its far start."""
    rng = np.random.default_rng(seed)
    classes = 1 if loss == "logistic" else CLASSES
    features = int(rng.integers(2 if classes == 1 else 1, FEATURES // classes + 1))
    rows = int(rng.integers(ROWS // 3, ROWS + 1))
    width = FEATURES // classes
    inputs, weights, mask = np.zeros((ROWS, width)), np.zeros(ROWS), np.zeros((classes, width))
    inputs[:rows, :features] = rng.normal(size=(rows, features)) * 10.0 ** rng.uniform(-0.5, 0.5, size=features)
    weights[:rows], mask[:, :features] = 1.0, 1.0
    scores = inputs @ rng.normal(size=(classes, width)).T
    separable = rng.uniform() < 0.25
    if loss == "logistic":
        noise = 0.0 if separable else rng.logistic(size=ROWS)
        targets = (scores[:, 0] + noise > 0).astype(float)
    else:
        noise = 0.0 if separable else rng.gumbel(size=scores.shape)
        targets = np.argmax(scores + noise, axis=1)
    strength, smoothing = 10.0 ** rng.uniform(-4, 0), np.exp(rng.uniform(np.log(0.03), np.log(20.0)))
    displacement = DISTANCE * rng.normal(size=mask.size) * mask.ravel()
    arrays = (inputs, targets, weights, mask.ravel(), strength, smoothing)
    return Draw(*map(jnp.asarray, arrays)), displacement


def _linear(params, inputs):
    return inputs @ params.T


@eqx.filter_jit
def run(step: AbstractStep, loss, problem: Draw, start: Float[Array, " p"], published: bool, most: int) -> Run:
    """Steps from `start` until solved, or `most` are taken."""
    classes = start.shape[0] // problem.inputs.shape[1]
    penalty = _Smoothed(problem.smoothing, jnp.sum(problem.mask))
    shape = (classes, problem.inputs.shape[1])
    whole = Problem(_linear, loss, penalty, lambda flat: flat.reshape(shape))
    batch = make_batch(loss, problem.inputs, problem.targets, problem.weights, classes, start.dtype)
    damping = jnp.where(published, 1 - problem.strength, 0.0)

    def advance(run: Run) -> Run:
        solver = cx.Primal()
        prepared = solver.prepare(build_system(whole, run.flat, batch))
        parts = (whole, run.flat, batch, prepared, problem.strength, damping)
        local = local_problem(*parts, step=step, prepare=solver.prepare)
        # With the published damping the decrement of a step is not that of F: it is solved for anew.
        newton = prepared.solve(problem.strength, jnp.zeros_like(damping))
        solved = newton.status & (newton.decrement**2 < SOLVED)
        outcome, state = step.take(local, run.state)
        flat = jnp.where(solved, run.flat, run.flat + outcome.displacement)
        noise = ROUNDING * jnp.finfo(flat.dtype).eps * (1 + jnp.abs(local.objective))
        return Run(
            flat=flat,
            state=state,
            objective=local.objective,
            steps=run.steps + ~solved,
            solved=solved,
            rises=run.rises + (~solved & (outcome.objective > local.objective + noise)),
            finite=run.finite & (outcome.status < cx.StepStatus.NONFINITE_TRIAL),
            evaluations=run.evaluations + jnp.where(solved, 0, outcome.attempts),
        )

    zero = jnp.zeros((), int)
    first = Run(start, step.init(start), jnp.zeros(()), zero, zero > 0, zero, zero == 0, zero)
    return jax.lax.while_loop(lambda run: ~run.solved & run.finite & (run.steps < most), advance, first)


def measure(loss: str, seeds: range) -> dict[str, list[dict[str, list]]]:
    """Every rule on the problems of one loss, by start: steps (None: not solved), rises, whether finite, trials."""
    rows = {start: [] for start in STARTS}
    for seed in seeds:
        problem, displacement = draw(loss, seed)
        best = run(cx.TrustRegion(), LOSSES[loss], problem, jnp.zeros(displacement.size), False, SOLUTION_STEPS)
        assert best.solved, f"{loss} {seed}: the solution was not found"
        for start in STARTS:
            shift = displacement if start == "far" else DISTANCE * displacement / np.linalg.norm(displacement)
            row = {}
            for name, (step, published) in RULES.items():
                end = jax.device_get(run(step, LOSSES[loss], problem, best.flat + shift, published, STEPS))
                steps = int(end.steps) if end.solved else None
                trials = int(end.evaluations) / max(1, int(end.steps))
                row[name] = [steps, int(end.rises), bool(end.finite), trials]
            rows[start].append(row)
    return rows


def summary(rows: list[dict[str, list]]) -> dict[str, dict]:
    """Counts and quantiles a rule."""
    table = {}
    for name in RULES:
        results = [row[name] for row in rows]
        # Runs that were not solved count as longer than any that were.
        steps = np.array([np.inf if steps is None else steps for steps, *_ in results])
        median, most = (float(np.quantile(steps, q, method="higher")) for q in (0.5, 0.95))
        table[name] = {
            "problems": len(steps),
            "solved": int(np.isfinite(steps).sum()),
            "median": None if np.isinf(median) else median,
            "most": None if np.isinf(most) else most,
            "rose": sum(rises > 0 for _, rises, *_ in results),
            "nonfinite": sum(not finite for *_, finite, _ in results),
            "trials": float(np.mean([trials for *_, trials in results])),
        }
    return table


def markdown(record: dict) -> str:
    """The record as two tables, by start."""
    heads = {
        "near": f"From {record['distance']:g} units off the solution:",
        "far": f"From {record['distance']:g} units off in every coordinate:",
    }
    return "\n".join(f"{heads[start]}\n\n{_table(record[start])}" for start in STARTS)


def _table(rules: dict[str, dict]) -> str:
    lines = ["| rule | solved | steps, median | steps, 95 % | F rose in | not finite | trials a step |"]
    lines.append("|---|" + "---|" * 6)
    for name, row in rules.items():
        median, most = (f"over {STEPS}" if row[key] is None else f"{row[key]:.0f}" for key in ("median", "most"))
        counts = f"{row['solved']} of {row['problems']} | {median} | {most} | {row['rose']} | {row['nonfinite']}"
        lines.append(f"| {name} | {counts} | {row['trials']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all rules and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=PROBLEMS)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    rows = {start: [] for start in STARTS}
    for loss in LOSSES:
        for start, found in measure(loss, range(arguments.problems // len(LOSSES))).items():
            rows[start] += found
        print(f"{loss}: {time.perf_counter() - began:.0f} s", flush=True)
    summaries = {start: summary(found) for start, found in rows.items()}
    record = write(arguments.output, summaries | {"distance": DISTANCE})
    print(markdown(record))


if __name__ == "__main__":
    main()
