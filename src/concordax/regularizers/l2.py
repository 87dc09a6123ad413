"""The ridge penalty."""

import jax.numpy as jnp

from ..metrics import ScalarMetric
from ..self_concordance import SelfConcordance
from .base import AbstractRegularizer


class L2(AbstractRegularizer):
    """g = ½‖x‖². Its third derivative is zero, so M = 0 at every order.

    Example:
        >>> import jax.numpy as jnp
        >>> float(L2().value(jnp.array([3.0, 4.0])))
        12.5
    """

    def value(self, x):
        """½‖x‖²."""
        return 0.5 * jnp.sum(x**2)

    def gradient(self, x):
        """Returns x."""
        return x

    def metric(self, x):
        """The identity."""
        return ScalarMetric(jnp.ones((), x.dtype))

    def constants(self):
        """(0, 2) and (0, 3), and any other order."""
        return (SelfConcordance(0.0, 2.0), SelfConcordance(0.0, 3.0))

    def constant_at(self, order):
        """Zero at every order."""
        del order
        return 0.0

    def published_constants(self):
        """M = 0."""
        return SelfConcordance(0.0, 2.6)
