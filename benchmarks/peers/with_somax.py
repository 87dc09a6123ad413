"""python-somax: EGN-CG, the generalized Gauss-Newton step by conjugate gradients; damping constant or by trust region.

In the space of the observations where the library has it (one output, squared error), else in that of the parameters.
"""

import jax
import jax.numpy as jnp
import somax
from workloads import Workload

from .trace import python_loop, runner

PACKAGES = ("python-somax", "jax", "jaxlib")
NOTE = "no regularizer; a step that raises the loss is taken all the same, its scalars are float32"


def settings(workload: Workload) -> list[dict]:
    """Constant dampings, and its trust region."""
    constant = [
        {"policy": "const", "damping": damping, "maxiter": maxiter, "tolerance": tolerance}
        for damping, maxiter, tolerance in ((1e-5, 200, 0.2), (3e-5, 50, 0.1), (1e-4, 100, 0.1))
    ]
    if workload.targets.shape[1] > 1 and not workload.is_classification:
        # Its squared error is a mean over outputs too, its gradient is not: the gain ratio would be off.
        return constant
    return [*constant, {"policy": "trust_region", "damping": 1.0, "maxiter": 100, "tolerance": 1e-6}]


def prepare(workload: Workload, policy: str, damping: float, maxiter: int, tolerance: float):
    """See `peers`."""
    method = somax.make(
        _preset(workload),
        predict_fn=workload.model,
        lam_policy=policy,
        lam0=damping,
        learning_rate=1.0,
        tol=tolerance,
        maxiter=maxiter,
    )
    targets = jnp.argmax(workload.targets, axis=1) if workload.is_classification else workload.targets
    batch = {"x": workload.inputs, "y": targets}
    step = jax.jit(lambda state: method.step(state[0], batch, state[1], jax.random.key(0))[:2])
    loss = jax.jit(lambda state: workload.data_loss(state[0]))
    start = (workload.start, method.init(workload.start))
    # A loop in Python: the state of the conjugate gradients has another shape after the first step.
    return runner(python_loop(step), lambda: start, loss, workload)


def _preset(workload: Workload) -> str:
    if workload.is_classification:
        return "sgn_ce"
    return "egn_mse_cg" if workload.targets.shape[1] == 1 else "sgn_mse"
