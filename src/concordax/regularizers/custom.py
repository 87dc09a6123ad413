"""A regularizer from a scalar function of one's own."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ..self_concordance import SelfConcordance, tightest, verify
from .base import checked
from .separable import AbstractSeparable

# Orders at which constants are looked for where none are given; what is unbounded there is left out.
_ORDERS = (2.0, 2.6, 3.0)


class CustomRegularizer(AbstractSeparable):
    """g = Σ μ φ(x/μ) for a scalar function φ of one's own, smooth with φ'' > 0; derivatives by JAX.

    Args:
        function: φ, of a scalar, in operations of JAX, written so that it loses no digits near 0.
        smoothing: μ > 0, in units of the parameters.
        constants: pairs (M, ν) of φ that are known; each is checked by numbers. None looks for them by `tightest`.

    Raises:
        ValueError: for a smoothing that is not positive and finite, a function that is not convex, or a pair that does
            not hold.

    Example:
        >>> import jax.numpy as jnp
        >>> quartic = CustomRegularizer(lambda t: 0.5 * t**2 + t**4 / 12, smoothing=2.0)
        >>> bool(jnp.allclose(quartic.gradient(jnp.array([2.0])), 1.0 + 1.0 / 3.0))
        True
        >>> round(quartic.constant_at(2.0), 6)  # of φ: sup 2t/(1 + t²) = 1
        0.5
    """

    function: Callable = eqx.field(static=True)
    smoothing: float
    known: tuple[SelfConcordance, ...] = eqx.field(static=True)

    def __init__(self, function: Callable, smoothing: float = 1.0, constants=None):
        if not callable(function):
            raise ValueError(f"`CustomRegularizer(function={function!r})`: must be a function of a scalar.")
        self.function, self.smoothing = function, checked("CustomRegularizer", "smoothing", smoothing)
        if constants is None:
            found = [tightest(function, order) for order in _ORDERS]
            self.known = tuple(SelfConcordance(s.constant, s.order) for s in found if math.isfinite(s.constant))
            return
        pairs = [(float(constant), float(order)) for constant, order in constants]
        self.known = tuple(SelfConcordance(*pair) for pair in pairs)
        for constant, order in pairs:
            verdict = verify(function, constant, order)
            if not verdict:
                raise ValueError(
                    f"`CustomRegularizer(constants=...)`: ({constant:g}, {order:g}) does not hold; at t = "
                    f"{verdict.at:g} the third derivative is {verdict.worst:.6g} times what it allows; see cx.tightest."
                )

    def kernel(self, t):
        """φ(t)."""
        return jax.vmap(self.function)(t)

    def slope(self, t):
        """φ'(t)."""
        return jax.vmap(jax.grad(self.function))(t)

    def inverse_curvature(self, t):
        """1/φ''(t), cut where φ'' underflows."""
        second = jax.vmap(jax.grad(jax.grad(self.function)))(t)
        return 1 / jnp.maximum(second, float(jnp.finfo(t.dtype).tiny) ** 0.5)

    def kernel_constants(self):
        """Those given, or found."""
        return self.known
