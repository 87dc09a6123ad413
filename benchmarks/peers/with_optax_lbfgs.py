"""optax's L-BFGS with its zoom line search, for the better of two memories."""

import jax
import optax
from workloads import Workload

from .trace import compiled_loop, runner

PACKAGES = ("optax", "jax", "jaxlib")
NOTE = ""


def settings(workload: Workload) -> list[dict]:
    """Pairs kept."""
    del workload
    return [{"memory_size": size} for size in (10, 50)]


def prepare(workload: Workload, memory_size: int):
    """See `peers`."""
    method = optax.lbfgs(memory_size=memory_size)
    value_and_grad = optax.value_and_grad_from_state(workload.objective)

    def step(state):
        params, inner = state
        value, gradient = value_and_grad(params, state=inner)
        updates, inner = method.update(gradient, inner, params, value=value, grad=gradient, value_fn=workload.objective)
        return optax.apply_updates(params, updates), inner

    loss = jax.jit(lambda state: workload.data_loss(state[0]))
    start = (workload.start, method.init(workload.start))
    return runner(compiled_loop(step), lambda: start, loss, workload)
