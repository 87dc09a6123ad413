"""The naive reference: one dual step of the regularized Gauss-Newton method with every array written out.

J as [N, p] by `vmap(jacrev)`, W = Sᵀ J/√n, K = (W D) Wᵀ as one full product, Cholesky. What a careful reader of the
paper would write first, exact in float64; the model's layers and K's symmetry are not used.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from workloads import Workload


class NaiveStep(NamedTuple):
    """The direction, the objective at the trial point, and the decrease that the quadratic model promised."""

    direction: Float[Array, " p"]
    objective: Float[Array, ""]
    predicted: Float[Array, ""]


def bytes_needed(workload: Workload) -> int:
    """Of J, W, W D and K, whatever else there is."""
    rows, outputs = workload.targets.shape
    numbers = rows * outputs
    return (3 * numbers * workload.parameters + numbers**2) * workload.inputs.dtype.itemsize


def naive_step(workload: Workload) -> Callable[[Float[Array, " p"], float], NaiveStep]:
    """The jitted step of a workload: (θ as a flat vector, λ) -> its result; λ = 0 is the step of the paper's formula.

        (K + t I) u = r − (τ/t) W D g,   K = W D Wᵀ,   δ = −D (Wᵀ u + (τ/t) g),   t = τ + λ

    Args:
        workload: the problem; its regularizer must have a diagonal Hessian.

    Returns:
        The step, compiled at its first call.
    """
    unravel = ravel_pytree(workload.start)[1]
    loss, penalty, tau = workload.loss, workload.regularizer, workload.strength
    n = workload.inputs.shape[0]

    def outputs(flat, x):
        return workload.model(unravel(flat), x[None])[0]

    @jax.jit
    def step(flat: Array, damping: float) -> NaiveStep:
        o = workload.model(unravel(flat), workload.inputs)
        jacobian = jax.vmap(jax.jacrev(outputs), in_axes=(None, 0))(flat, workload.inputs)
        factor = loss.hessian_factor(o, workload.targets)
        w = (factor.transpose_mv(jacobian) / jnp.sqrt(n)).reshape(-1, flat.size)
        r = (loss.whitened_residual(o, workload.targets) / jnp.sqrt(n)).reshape(-1)
        d, g = penalty.metric(flat).solve(jnp.ones_like(flat)), penalty.gradient(flat)
        t = tau + damping
        gram = (w * d) @ w.T
        root = jax.scipy.linalg.cho_factor(gram + t * jnp.eye(len(gram), dtype=gram.dtype), lower=True)
        u = jax.scipy.linalg.cho_solve(root, r - tau / t * (w @ (d * g)))
        direction = -d * (w.T @ u + tau / t * g)
        # F(θ) − model(θ + δ) = ½‖Wδ‖² + (t − τ/2) δᵀHδ, a sum of squares.
        predicted = 0.5 * jnp.sum((w @ direction) ** 2) + (t - tau / 2) * jnp.sum(direction**2 / d)
        return NaiveStep(direction, workload.objective(unravel(flat + direction)), predicted)

    return step
