"""The Poisson deviance: the loss of counts."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..curvature import DiagonalFactor
from .base import AbstractLoss, as_columns


class PoissonDeviance(AbstractLoss):
    """Half the Poisson deviance with the log link: ℓ = Σ e^o − y o + (y log y − y) ≥ 0, of rates e^o and counts y.

    ∂ℓ = e^o − y, S = e^{o/2} on the diagonal, r = e^{o/2} − y e^{−o/2}: the quotient (e^o − y)/S written without a
    division. Beyond an output of 43 in float32 (354 in float64) ℓ goes on as a straight line, so that a trial step far
    out is a large number and no overflow. From −log p(y) it differs by log y! + y − y log y, which no parameter
    changes.

    Source: McCullagh & Nelder, Generalized Linear Models, 1989, section 2.3.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = PoissonDeviance()
        >>> counts = jnp.array([[3.0], [0.0]])
        >>> bool(jnp.allclose(loss.value(jnp.log(jnp.array([[3.0], [0.5]])), counts), jnp.array([0.0, 0.5])))
        True
    """

    name: ClassVar[str] = "Poisson deviance"

    def encode(self, targets: Array, outputs: int) -> Array:
        """Counts, or rates, [n] or [n, outputs] from 0 up."""
        return as_columns(targets, outputs, "PoissonDeviance")

    def check(self, targets, outputs):
        """Targets from 0 up."""
        del outputs
        if targets.min() < 0:
            raise ValueError(
                f"`PoissonDeviance` needs targets from 0 up, counts or rates; the least is {targets.min():g}. "
                "Use SquaredError() for targets of both signs."
            )

    def value(self, outputs, targets):
        """Returns y (e^d − 1 − d), d = o − log y: near its minimum the sum of the terms would lose every digit."""
        positive = targets > 0
        logarithm = jnp.log(jnp.where(positive, targets, 1.0))
        d = outputs - logarithm
        near = jnp.clip(d, -1.0, 1.0)
        top = jnp.minimum(outputs, self._limit(outputs))
        rate = jnp.exp(top) * (1 + (outputs - top))
        terms = jnp.where(positive & (near == d), targets * (jnp.expm1(near) - near), rate - targets * (1 + d))
        return jnp.sum(jnp.maximum(terms, 0.0), axis=-1)

    def gradient(self, outputs, targets):
        """Returns e^o − y."""
        return jnp.exp(jnp.minimum(outputs, self._limit(outputs))) - targets

    def hessian_factor(self, outputs, targets):
        """Returns e^{o/2} on the diagonal."""
        del targets
        return DiagonalFactor(jnp.exp(self._half(outputs)))

    def whitened_residual(self, outputs, targets):
        """Returns e^{o/2} − y e^{−o/2}."""
        half = self._half(outputs)
        return jnp.exp(half) - targets * jnp.exp(-half)

    def concordance(self, slopes):
        """max|s|."""
        return jnp.max(jnp.abs(slopes))

    def _half(self, outputs: Float[Array, "n c"]) -> Float[Array, "n c"]:
        limit = self._limit(outputs)
        return 0.5 * jnp.clip(outputs, -limit, limit)

    @staticmethod
    def _limit(outputs: Float[Array, "n c"]) -> Float[Array, ""]:
        """The output whose rate is the root of the largest number: its square is still finite."""
        return -0.5 * jnp.log(jnp.finfo(outputs.dtype).tiny)
