"""A model as a function of how far its parameters moved: what a penalty on the distance from the start needs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..models import LayeredModel


class Centered(eqx.Module):
    """(d, x) ↦ f(θ₀ + d; x) − f(θ₀; x): zero at d = 0, with the Jacobian of f at θ₀ + d.

    Made by `centered`.
    """

    model: Callable
    start: PyTree

    def __call__(self, params: PyTree, inputs) -> Any:
        """Outputs [n, c]."""
        return self.model(self.moved(params), inputs) - self.model(self.start, inputs)

    def moved(self, params: PyTree) -> PyTree:
        """θ₀ + d."""
        return jax.tree.map(jnp.add, self.start, params)


class CenteredLayers(Centered):
    """The same for a model that hands out its layers."""

    def tapped(self, params, inputs, taps):
        """See `LayeredModel`."""
        outputs, seen = self.model.tapped(self.moved(params), inputs, taps)  # pyright: ignore[reportFunctionMemberAccess]
        return outputs - self.model(self.start, inputs), seen


def centered(model: Callable, params: PyTree) -> tuple[Centered, PyTree]:
    """The model as a function of the displacement from `params`, and the displacement to start from: zero.

    A regularizer of a displacement holds the network at its start. One of the parameters themselves draws them to zero,
    which for a wide network is far away: no kernel of the start describes where such a run ends. The outputs at the
    start are taken off too, so that a wide network need not first unlearn them; targets are those of the change.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        params: θ₀.

    Returns:
        The model on displacements, layered where `model` is, and zeros like `params`.

    Source: Chizat, Oyallon & Bach, arXiv 1812.07956, §2 (the start subtracted).

    Example:
        >>> import concordax as cx, jax
        >>> model = cx.MLP(inputs=2, widths=(5,))
        >>> change, start = centered(model, model.init(jax.random.key(0)))
        >>> float(abs(change(start, jax.numpy.ones((3, 2)))).max())
        0.0
    """
    layered = isinstance(model, LayeredModel)
    return (CenteredLayers if layered else Centered)(model, params), jax.tree.map(jnp.zeros_like, params)
