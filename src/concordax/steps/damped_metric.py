"""A damped system whose damping has a metric of its own: (WᵀW + τH + λD) δ = −(Wᵀr + τg).

A smooth ℓ1 norm has next to no curvature at a weight far above its smoothing μ. Damped in H, such weights are as good
as free and go far past zero, and a λ that holds them freezes the small ones, where H = 1/μ. D = I/μ is Levenberg's
damping, λH is Fletcher's; powers of H between the two got on, but stood still on some starts (figures: docs/steps.md).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..metrics import added
from .base import LocalProblem


def damped(local: LocalProblem, damping: Float[Array, ""]) -> LocalProblem:
    """The problem in the metric M with (τ + λ) M = τH + λD; itself where the regularizer has no D but H.

    M is made once, for the damping that a step begins with: raised after a refusal, λ multiplies M as a whole.

    Args:
        local: the problem, in the metric H.
        damping: λ; negative where it is not known yet, for D alone.
    """
    metric = local.regularizer.damping_metric(local.flat)
    if metric is None:
        return local
    known, fixed = damping >= 0, jnp.maximum(damping, 0.0) + local.damping
    total = local.strength + fixed
    # Never 0, of which a metric of groups has no inverse.
    eps = float(jnp.finfo(total.dtype).eps)
    share = jnp.maximum(jnp.where(known, local.strength / total, eps), eps**2)
    parts = (local.system.metric.scaled(share), metric.scaled(jnp.where(known, fixed / total, 1.0)))
    mixed = added(parts, local.flat.size)
    system = eqx.tree_at(lambda system: system.metric, local.system, mixed)
    return local._replace(system=system, prepared=local.prepare(system))
