"""The naive reference in a simple Levenberg-Marquardt loop: a tenth of the damping after a gain, else four times."""

import jax
from jax.flatten_util import ravel_pytree
from naive import bytes_needed, naive_step
from workloads import Workload

from .trace import CannotRun, python_loop, runner

PACKAGES = ("jax", "jaxlib")
NOTE = "everything materialised; fixed factors for the damping"
_LARGEST = 12 * 2**30


def settings(workload: Workload) -> list[dict]:
    """First dampings."""
    if (size := bytes_needed(workload)) > _LARGEST or workload.targets.size > 10_000:
        raise CannotRun(f"J, its products and the dual matrix take {size / 2**30:.0f} GiB and minutes a step")
    return [{"damping": 1.0}]


def prepare(workload: Workload, damping: float):
    """See `peers`."""
    step = naive_step(workload)
    flat, unravel = ravel_pytree(workload.start)
    objective = jax.jit(workload.objective)
    loss = jax.jit(workload.data_loss)

    def one(state):
        theta, shift, before = state
        result = step(theta, shift)
        after = float(result.objective)
        if after < before:
            return theta + result.direction, 0.1 * shift, after
        return theta, 4 * shift, before

    start = (flat, damping, float(objective(workload.start)))
    return runner(python_loop(one), lambda: start, lambda state: loss(unravel(state[0])), workload)
