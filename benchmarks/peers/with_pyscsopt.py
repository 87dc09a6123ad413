"""pyscsopt: the authors' Prox-GGN-SCORE, with the derivatives of the outputs compiled for it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from pyscsopt.algorithms import ProxGGNSCORE
from pyscsopt.problems import Problem
from pyscsopt.regularizers import PHuberSmootherL1L2
from workloads import Workload

import concordax as cx

from .trace import CannotRun, python_loop, runner

PACKAGES = ("pyscsopt", "jax", "jaxlib")
NOTE = "unit damping instead of the strength, as published; its own loop, which evaluates more, left out"
LIMIT = 60.0
"""Seconds that it is given at least: a step takes long."""

_LARGEST = 4 * 2**30


def settings(workload: Workload) -> list[dict]:
    """Step sizes before the damping of the step."""
    if workload.targets.shape[1] > 1:
        raise CannotRun("its step needs one output a row")
    size = 8 * workload.parameters**2
    if size > _LARGEST:
        raise CannotRun(f"it makes the diagonal of the inverse Hessian a dense matrix: {size / 2**30:.0f} GiB")
    if not isinstance(workload.regularizer, cx.PseudoHuber):
        raise CannotRun("its smooth regularizer is the pseudo-Huber function; this workload has another")
    return [{"step_size": 1.0}]


def prepare(workload: Workload, step_size: float):
    """See `peers`."""
    flat, unravel = ravel_pytree(workload.start)
    x, y, n = workload.inputs, workload.targets[:, 0], len(workload.inputs)

    def outputs(inputs, theta):
        return workload.model(unravel(theta), inputs)[:, 0]

    jacobian = jax.jit(jax.jacrev(outputs, argnums=1))
    model = Problem(
        x0=flat,
        f=lambda inputs, targets, theta: 0.5 * jnp.mean((outputs(inputs, theta) - targets) ** 2),
        lam=workload.strength,
        L=1 / step_size,
        A=x,
        y=y,
        out_fn=jax.jit(outputs),
        jac_yx=lambda inputs, _targets, _outputs, theta: jacobian(inputs, theta),
        grad_fy=lambda _inputs, targets, outputs: (outputs - targets) / n,
        hess_fy=lambda _inputs, _targets, _outputs: np.eye(n) / n,
    )
    method, smoother = ProxGGNSCORE(ss_type=1, use_prox=False), PHuberSmootherL1L2(workload.regularizer.smoothing)

    def step(state):
        now, before, count = state
        after = method.step(model, "l1", smoother, x, now, before, y, None, count)[0]
        return after, now, count + 1

    loss = jax.jit(lambda theta: workload.data_loss(unravel(theta)))
    return runner(python_loop(step), lambda: (flat, flat, 0), lambda state: loss(state[0]), workload, warm=1)
