"""optimistix's LevenbergMarquardt on the residuals, its linear least squares by conjugate gradients or QR."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from workloads import Workload

from .trace import CannotRun, python_loop, runner

PACKAGES = ("optimistix", "lineax", "jax", "jaxlib")
NOTE = "no regularizer: as residuals it would be p more rows"
_QR_AT_MOST = 1000


def settings(workload: Workload) -> list[dict]:
    """Linear solvers."""
    if workload.is_classification:
        raise CannotRun("takes residuals, and the cross-entropy is no sum of squares")
    tried = [{"linear_solver": "conjugate gradients", "tolerance": each} for each in (1e-1, 1e-3)]
    small = workload.parameters <= _QR_AT_MOST
    return [*tried, {"linear_solver": "QR", "tolerance": 0.0}] if small else tried


def prepare(workload: Workload, linear_solver: str, tolerance: float):
    """See `peers`."""
    # The default, a QR of [J; √λ I], has n + p rows and p columns: minutes a step from a few thousand parameters on.
    iterative = lx.Normal(lx.CG(rtol=tolerance, atol=1e-14, max_steps=500))
    linear = lx.QR() if linear_solver == "QR" else iterative
    solver = optx.LevenbergMarquardt(rtol=0.0, atol=0.0, linear_solver=linear)
    root = jnp.sqrt(len(workload.inputs))

    def residuals(params, _):
        return (workload.model(params, workload.inputs) - workload.targets) / root, None

    struct, aux = jax.eval_shape(residuals, workload.start, None)

    @eqx.filter_jit
    def begin(params):
        return params, solver.init(residuals, params, None, {}, struct, aux, frozenset())

    @eqx.filter_jit
    def step(state):
        params, inner = state
        params, inner, _ = solver.step(residuals, params, None, {}, inner, frozenset())
        return params, inner

    loss = jax.jit(workload.data_loss)
    return runner(python_loop(step), lambda: begin(workload.start), lambda state: loss(state[0]), workload)
