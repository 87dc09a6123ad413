"""What a penalty is: a convex R that need not be smooth, given by its value and its proximal map."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..metrics import AbstractMetric


class AbstractPenalty(eqx.Module):
    """A convex function R of the flat parameters, for `ProximalStep`; F = loss + τ (g + R).

    Its proximal map in a diagonal metric h is x = argmin ½ Σ h_i (x_i − z_i)² + τ R(x).
    """

    @abstractmethod
    def value(self, x: Float[Array, " p"]) -> Float[Array, ""]:
        """R(x), for x in the domain of R."""

    @abstractmethod
    def prox(self, z: Float[Array, " p"], h: Float[Array, " p"], weight: Float[Array, ""]) -> Float[Array, " p"]:
        """The proximal map; its zeros are exact."""

    @abstractmethod
    def curvature(self, x: Float[Array, " p"], h: Float[Array, " p"], weight: Float[Array, ""]) -> AbstractMetric:
        """diag(h) + τ ∂²R(x) where R is smooth at x, given by its inverse, which is 0 where x cannot move.

        Its inverse times diag(h) is an element of the proximal map's generalised Jacobian at z.
        """

    def nearest(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """The nearest point of the domain of R: x itself, unless R is a constraint."""
        return x

    def residual(
        self, x: Float[Array, " p"], gradient: Float[Array, " p"], weight: Float[Array, ""]
    ) -> Float[Array, ""]:
        """max |x − prox(x − ∇q)| in the metric I: zero where x is least for q + τR, and only there (KKT)."""
        return jnp.max(jnp.abs(x - self.prox(x - gradient, jnp.ones_like(x), weight)))


def soft_threshold(z: Float[Array, " p"], threshold: Float[Array, " p"]) -> Float[Array, " p"]:
    """sign(z) max(|z| − threshold, 0); its zeros have no sign."""
    return z - jnp.clip(z, -threshold, threshold)
