"""What a regularizer is: a generalised self-concordant g with value, gradient, Hessian as a metric, constants (M, ν).

None of them knows the strength τ: it multiplies once, in `system.py`. A weight within a sum is part of g.
"""

import functools
import math
import operator
from abc import abstractmethod
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..metrics import AbstractMetric
from ..self_concordance import SelfConcordance

if TYPE_CHECKING:
    from .composite import Sum


class AbstractRegularizer(eqx.Module):
    """A convex function g of the flat parameters with a positive definite Hessian.

    Regularizers add up, and take weights: `0.1 * PseudoHuber(1.0) + L2()` is a `Sum`.
    """

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

    def constant_at(self, order: float) -> float | None:
        """M at the order ν, or None where none is known."""
        return {c.order: c.constant for c in self.constants()}.get(order)

    def concordance(self, direction: Float[Array, " p"]) -> Float[Array, ""] | None:
        """κ with |D³g(x)[δ, u, u]| ≤ κ D²g(x)[u, u] for every x and u: M₂‖δ‖₂, or less; None without an M₂.

        M₂ is the constant at ν = 2, where the inequality knows no other norm of δ.
        """
        constant = self.constant_at(2.0)
        return None if constant is None else constant * jnp.linalg.norm(direction)

    def published_constants(self) -> SelfConcordance:
        """The pair that the authors' code uses, smoothing included; for the published mode only."""
        return self.constants()[0]

    def __add__(self, other: "AbstractRegularizer") -> "Sum":
        from .composite import Sum

        return Sum(self, other) if isinstance(other, AbstractRegularizer) else NotImplemented

    def __rmul__(self, weight: float) -> "Sum":
        from .composite import Sum

        return Sum(self, weights=(weight,)) if isinstance(weight, int | float) else NotImplemented


def total(parts: list[Array]) -> Array:
    """The sum of arrays."""
    return functools.reduce(operator.add, parts)


def checked(call: str, argument: str, value: float) -> float:
    """The value as a float; raises ValueError unless it is positive and finite."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"`{call}({argument}={value!r})`: the {argument} must be a positive finite number.")
    return float(value)
