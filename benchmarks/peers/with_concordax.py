"""concordax: `train` with the trust region and the solver that it chooses."""

import time

import jax
from workloads import Workload

import concordax as cx

from .trace import Trace

PACKAGES = ("concordax", "jax", "jaxlib")
NOTE = ""


def settings(workload: Workload) -> list[dict]:
    """Nothing to tune."""
    del workload
    return [{}]


def prepare(workload: Workload, solver=None):
    """See `peers`. The clock is that of the whole call of `train`: its checks and its records are part of it."""
    solver = cx.Auto() if solver is None else solver

    def run(limit: float, max_steps: int = 10_000) -> Trace:
        trace = Trace()
        trace.add(0.0, first, 0)
        start = time.perf_counter()

        def watch(step: int, record: dict[str, float]) -> bool:
            trace.add(time.perf_counter() - start, record["loss"], step)
            return trace.ended(workload, limit)

        cx.train(
            workload.model, workload.loss, workload.regularizer, workload.start, (workload.inputs, workload.targets),
            strength=workload.strength, solver=solver, step=cx.TrustRegion(), max_steps=max_steps, tolerance=0,
            callbacks=[watch],
        )  # fmt: skip
        return trace

    first = float(jax.jit(workload.data_loss)(workload.start))
    run(float("inf"), max_steps=2)
    return run
