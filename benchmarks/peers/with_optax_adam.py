"""optax's Adam on the full batch, at the best of a few constant rates."""

import jax
import optax
from workloads import Workload

from .trace import compiled_loop, runner

PACKAGES = ("optax", "jax", "jaxlib")
NOTE = ""


def settings(workload: Workload) -> list[dict]:
    """Rates."""
    del workload
    return [{"rate": rate} for rate in (1e-2, 3e-2, 1e-1, 3e-1)]


def prepare(workload: Workload, rate: float):
    """See `peers`."""
    method = optax.adam(rate)

    def step(state):
        params, inner = state
        updates, inner = method.update(jax.grad(workload.objective)(params), inner, params)
        return optax.apply_updates(params, updates), inner

    loss = jax.jit(lambda state: workload.data_loss(state[0]))
    start = (workload.start, method.init(workload.start))
    return runner(compiled_loop(step), lambda: start, loss, workload)
