"""What a regularizer is: a generalised self-concordant g with value, gradient, Hessian as a metric, constants (M, ν).

None of them knows the strength τ: it multiplies once, in `system.py`.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature import AbstractMetric
from ..self_concordance import SelfConcordance


class AbstractRegularizer(eqx.Module):
    """A convex function g of the flat parameters with a positive definite Hessian."""

    @abstractmethod
    def value(self, x: Float[Array, " p"]) -> Float[Array, ""]:
        """g(x)."""

    @abstractmethod
    def gradient(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """∇g(x)."""

    @abstractmethod
    def metric(self, x: Float[Array, " p"]) -> AbstractMetric:
        """∇²g(x)."""

    @abstractmethod
    def constants(self) -> tuple[SelfConcordance, ...]:
        """Every (M, ν) known to hold, the tightest for its ν, smoothing included."""

    def concordance(self, direction: Float[Array, " p"]) -> Float[Array, ""] | None:
        """κ with |D³g(x)[δ, u, u]| ≤ κ D²g(x)[u, u] for every x and u: M₂‖δ‖₂, or less; None without an M₂.

        M₂ is the constant at ν = 2, where the inequality knows no other norm of δ.
        """
        known = {c.order: c.constant for c in self.constants()}
        return known[2.0] * jnp.linalg.norm(direction) if 2.0 in known else None

    @abstractmethod
    def published_constants(self) -> SelfConcordance:
        """The pair that the authors' code uses, smoothing included; for the published mode only."""
