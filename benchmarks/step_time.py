"""Seconds of one whole step: concordax beside the naive dual step and beside the bare matrix products it cannot avoid.

    python benchmarks/step_time.py --output benchmarks/records/step_time.json

Each workload's four contestants run in one process, in turns, and the medians are compared, so that a machine that
slows down slows all of them.

- step: one trust-region update through `Algorithm.update`, the objective at the trial point included, from a point two
  steps in: damped in H and without the bending of the model, as the naive step is. Its direction is checked against
  the naive one's.
- default: the update of `TrustRegion()` from there, in the metric of its damping and with the bending followed.
- naive: `naive.py`, one solve and one objective.
- floor: timed alone, the products G Gᵀ and A Aᵀ of each layer, or, where the step forms K by pairs of examples, that of
  all pairs of A with Dᵀ and that of each example's pairs with its G; one Cholesky factorization for each trial of the
  step; and for each iteration that it took, the start of each trial counted as one, one product with the factors and
  one with their transpose. All in full, but for the pairs, and in float64. What is not a product (the penalty, its
  derivatives, norms: passes over vectors of parameters) is not in it.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from naive import naive_step
from results import write
from threadpoolctl import threadpool_limits
from workloads import Workload, build, synthetic

import concordax as cx
from concordax.linalg import product_transposed, transposed_product
from concordax.optimizer import make_algorithm
from concordax.solvers.costs import exact_gram_pays

WORKLOADS: dict[str, Callable[[Path | None], Workload]] = {
    "A": lambda _: build("A"),
    "A, mu = 0.1": lambda _: dataclasses.replace(build("A"), regularizer=cx.PseudoHuber(0.1)),
    "100-1000-1": lambda _: synthetic("100-1000-1", rows=1000, inputs=100, width=1000),
    "C": lambda folder: build("C", folder),
    "C, mu = 0.1": lambda folder: dataclasses.replace(build("C", folder), regularizer=cx.PseudoHuber(0.1)),
    "C-softmax": lambda folder: build("C-softmax", folder),
    "E": lambda _: build("E"),
}
# The strength of the paper: at the tiny one that the workloads have, the naive step itself is lost in rounding.
STRENGTH = 1e-4


def contestants(workload: Workload) -> tuple[dict[str, Callable], dict[str, object]]:
    """The compiled steps, naive step and floor, each a function without arguments; and what was found on the way."""
    algorithm, default = (
        make_algorithm(
            workload.model, workload.loss, workload.regularizer,
            strength=workload.strength, solver=cx.Auto().alone, step=step, damping=0.0,
        )
        for step in (cx.TrustRegion(corrections=0, damp_in_hessian=True), cx.TrustRegion())
    )  # fmt: skip
    batch = algorithm.batch(workload.start, workload.inputs, workload.targets)
    update = jax.jit(algorithm.update)
    params, state = workload.start, algorithm.init(workload.start)
    for _ in range(2):
        moved, state = update(state, params, batch)
        params = jax.tree.map(jnp.add, params, moved)
    moved, after = update(state, params, batch)
    # Refused trials have raised the damping: the direction to compare is that of the last one.
    damping = float(after.info.damping)
    naive = naive_step(workload)
    flat, flat_moved = (ravel_pytree(tree)[0] for tree in (params, moved))
    expected = naive(flat, damping).direction
    compiled, usual = (jax.jit(each.update).lower(state, params, batch).compile() for each in (algorithm, default))
    facts = {
        "error": float(jnp.linalg.norm(flat_moved - expected) / jnp.linalg.norm(expected)),
        "attempts": int(after.info.attempts),
        "iterations": int(after.info.solver_iterations),
        "megabytes": compiled.memory_analysis().temp_size_in_bytes / 1e6,
        "solver": algorithm.solver.explain(algorithm.shape(params, batch)),
    }
    by_pairs = exact_gram_pays(algorithm.shape(params, batch))
    return {
        "step": lambda: compiled(state, params, batch),
        "default": lambda: usual(state, params, batch),
        "naive": lambda: naive(flat, damping),
        "floor": floor(workload, facts["attempts"], facts["attempts"] + facts["iterations"], by_pairs=by_pairs),
    }, facts


def floor(workload: Workload, attempts: int, iterations: int, *, by_pairs: bool) -> Callable:
    """The products and the factorization, each in a program of its own."""
    n, k = workload.targets.shape
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape))
    weights = [layer.weight for layer in workload.start]
    layers = [(normal(n * k, weight.shape[0]), normal(n, weight.shape[1])) for weight in weights]
    kernel = jnp.eye(n * k) + 0.1 * jnp.ones((n * k, n * k))
    if by_pairs:
        # The operands [pairs, d_in] and, of each example, [its pairs·k, d_out] and [k, d_out] are taken to be there.
        partners = n // 2 + 1
        operands = [
            (normal(n, partners * k, w.shape[0]), normal(n, k, w.shape[0]), normal(n * partners, w.shape[1]), w)
            for w in weights
        ]
        each = lambda pair: pair[0] @ pair[1].T
        grams = jax.jit(lambda operands: [(a @ w.T, jax.lax.map(each, (g, own))) for g, own, a, w in operands])
    else:
        operands = layers
        grams = jax.jit(lambda operands: [(g @ g.T, a @ a.T) for g, a in operands])
    cholesky = jax.jit(jnp.linalg.cholesky)
    products = jax.jit(
        lambda layers, weights: [
            (product_transposed(a, w), transposed_product(g[:n], a)) for (g, a), w in zip(layers, weights, strict=True)
        ]
    )

    def run():
        out = [grams(operands), *(cholesky(kernel) for _ in range(attempts))]
        return out + [products(layers, weights) for _ in range(iterations)]

    return run


def measure(workload: Workload, repeats: int) -> dict[str, object]:
    """Medians of the contestants' seconds, run in turns."""
    functions, facts = contestants(workload)
    seconds = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(repeats):
        for name, function in functions.items():
            # Once unmeasured: the naive step leaves caches cold and gigabytes to give back to the system.
            jax.block_until_ready(function())
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return {"title": workload.title, **facts, "seconds": {name: float(np.median(s)) for name, s in seconds.items()}}


def markdown(record: dict) -> str:
    """The record as a table."""
    lines = [
        "| workload | step, ms | naive step | floor | default step, ms | iterations | MB | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in record["workloads"].items():
        step, naive, bare, default = (row["seconds"][kind] for kind in ("step", "naive", "floor", "default"))
        lines.append(
            f"| {name}: {row['title']} | {1e3 * step:.3g} | {naive / step:.3g} × | {bare / step:.2g} × "
            f"| {1e3 * default:.3g} | {row['iterations']} | {row['megabytes']:.3g} | {row['error']:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all workloads and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = {}
    with threadpool_limits(1, "blas"):
        for name in arguments.workloads:
            workload = dataclasses.replace(WORKLOADS[name](arguments.data_dir), strength=STRENGTH)
            rows[name] = measure(
                workload, arguments.repeats if math.prod(workload.targets.shape) * workload.parameters < 2e8 else 3
            )
            print(name, rows[name], flush=True)
    record = write(arguments.output, {"workloads": rows})
    print(markdown(record))


if __name__ == "__main__":
    main()
