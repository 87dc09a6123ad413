"""How fast a generalised self-concordant function may bend along a direction, and the step where F must still fall.

With φ(α) = g(x + αδ): φ'(α) − φ'(0) ≤ φ''(0) h(α). Each h is convex, h(0) = 0, and h(α) = 1 at the damped Newton step.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..self_concordance import SelfConcordance


def growth_at_two(kappa: Float[Array, "*n"], alpha: Float[Array, ""]) -> Float[Array, "*n"]:
    """h(α) = (e^{κα} − 1)/κ at ν = 2, from φ''(α) ≤ φ''(0) e^{κα}; α at κ = 0.

    Example:
        >>> round(float(growth_at_two(jnp.asarray(1.0), jnp.log(jnp.asarray(2.0)))), 5)
        1.0
    """
    x = kappa * alpha
    return alpha * jnp.where(x > 0, jnp.expm1(x) / jnp.where(x > 0, x, 1.0), 1.0)


def damped_at_two(kappa: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """α = ln(1+κ)/κ, where h = 1; 1 at κ = 0.

    Example:
        >>> [round(float(damped_at_two(jnp.asarray(k))), 5) for k in (0.0, 1.0)]
        [1.0, 0.69315]
    """
    return jnp.where(kappa > 0, jnp.log1p(kappa) / jnp.where(kappa > 0, kappa, 1.0), 1.0)


def distance(
    constants: SelfConcordance, local_norm: Float[Array, ""], euclidean_norm: Float[Array, ""]
) -> Float[Array, ""]:
    """d = (ν/2−1) M ‖δ‖_H^{ν−2} ‖δ‖₂^{3−ν}, for 2 < ν ≤ 3."""
    order = constants.order
    return (order / 2 - 1) * constants.constant * local_norm ** (order - 2) * euclidean_norm ** (3 - order)


def growth_above_two(d: Float[Array, ""], order: float, alpha: Float[Array, ""]) -> Float[Array, ""]:
    """h(α) = ((1−αd)^{−(4−ν)/(ν−2)} − 1)(ν−2)/((4−ν)d), from φ''(α) ≤ φ''(0)(1−αd)^{−2/(ν−2)}; ∞ from αd = 1 on.

    Example:
        >>> float(growth_above_two(jnp.asarray(1.0), 3.0, jnp.asarray(0.5)))
        1.0
    """
    power = (4 - order) / (order - 2)
    x = alpha * d
    inside = jnp.where((x > 0) & (x < 1), x, 0.5)
    bent = jnp.expm1(-power * jnp.log1p(-inside)) / (power * inside)
    return alpha * jnp.where(x > 0, jnp.where(x < 1, bent, jnp.inf), 1.0)


def damped_above_two(d: Float[Array, ""], order: float) -> Float[Array, ""]:
    """α = (1/d)[1 − (1 + d(4−ν)/(ν−2))^{−(ν−2)/(4−ν)}], where h = 1; at ν = 3 it is 1/(1+d). 1 at d = 0.

    Example:
        >>> float(damped_above_two(jnp.asarray(1.0), 3.0))
        0.5
    """
    power = (4 - order) / (order - 2)
    safe = jnp.where(d > 0, d, 1.0)
    return jnp.where(d > 0, -jnp.expm1(-jnp.log1p(power * safe) / power) / safe, 1.0)
