"""A network linearised at its parameters, as a model: what training is in the limit of wide networks."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..models import LayeredModel


class _Linearized(eqx.Module):
    model: Callable
    at: Any

    def __call__(self, params, inputs):
        """f(θ₀; x) + J(x)(θ − θ₀)."""
        change = jax.tree.map(jnp.subtract, params, self.at)
        outputs, moved = jax.jvp(lambda at: self.model(at, inputs), (self.at,), (change,))
        return outputs + moved


class _LayeredLinearized(_Linearized):
    model: Any

    def tapped(self, params, inputs, taps):
        """See `LayeredModel`: the factors are those at θ₀, wherever θ is, and never more than they are stored."""
        outputs, seen = self.model.tapped(self.at, inputs, taps)
        return outputs + (self(params, inputs) - self.model(self.at, inputs)), seen


def linearized(model: Callable, params: PyTree) -> Callable:
    """The model f(θ₀; x) + J(x)(θ − θ₀), linear in its parameters θ; for `train`, `posterior` and the rest.

    A model that hands out its layers does so linearised, too: its Jacobian is that at θ₀.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        params: θ₀.

    Returns:
        A callable (params, inputs) -> outputs [n, c], on parameters like `params`.

    Source: Lee et al., NeurIPS 2019 (eq. 5).

    Example:
        >>> import concordax as cx, jax
        >>> model = cx.MLP(inputs=2, widths=(8,))
        >>> start, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
        >>> x, linear = jax.numpy.ones((3, 2)), linearized(model, start)
        >>> bool((linear(start, x) == model(start, x)).all()), bool((linear(other, x) == model(other, x)).any())
        (True, False)
    """
    if isinstance(model, LayeredModel):
        return _LayeredLinearized(model, params)
    return _Linearized(model, params)
