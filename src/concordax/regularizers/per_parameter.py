"""A regularizer for each block of parameters."""

from itertools import accumulate

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from ..linalg import sum_of
from ..metrics import side_by_side
from .base import AbstractRegularizer, constants_of, damping_metrics, largest


class PerParameter(AbstractRegularizer):
    """A regularizer, and with it a strength, for each block of parameters: g = Σ_b g_b(x_b).

    Args:
        params: the parameters, or anything with their shapes.
        regularizers: a pytree with the outer structure of `params` whose leaves are regularizers, each for all that
            stands below it, as `(0.1 * cx.L2(), cx.PseudoHuber(1.0))` for a network of two layers. Its strengths are
            relative to the one of the run.

    Raises:
        ValueError: where the structures do not fit.

    Example:
        >>> import concordax as cx, jax, jax.numpy as jnp
        >>> params = {"a": jnp.ones(2), "b": jnp.ones(3)}
        >>> both = PerParameter(params, {"a": 10.0 * cx.L2(), "b": cx.L2()})
        >>> float(both.value(jnp.ones(5)))
        11.5
    """

    blocks: tuple[AbstractRegularizer, ...]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, params: PyTree, regularizers: PyTree):
        found: list[tuple[AbstractRegularizer, int]] = []

        def add(regularizer, below):
            if not isinstance(regularizer, AbstractRegularizer):
                raise ValueError(f"`PerParameter(...)`: {regularizer!r} is no regularizer; use cx.L2(), say.")
            found.append((regularizer, jax.eval_shape(lambda at: ravel_pytree(at)[0], below).size))

        try:
            jax.tree.map(add, regularizers, params, is_leaf=lambda part: isinstance(part, AbstractRegularizer))
        except (ValueError, TypeError) as error:
            raise ValueError(
                "`PerParameter(params, regularizers)`: regularizers must have the outer structure of the parameters, a "
                f"regularizer for each block. {error}"
            ) from None
        self.blocks, self.sizes = tuple(part for part, _ in found), tuple(size for _, size in found)

    def _parts(self, x):
        if x.size != sum(self.sizes):
            raise ValueError(
                f"`PerParameter` was built for {sum(self.sizes)} parameters; the model has {x.size}. Build it from the "
                "same parameters."
            )
        ends = accumulate(self.sizes)
        return [(b, x[end - n : end]) for b, n, end in zip(self.blocks, self.sizes, ends, strict=True)]

    def value(self, x):
        """Σ g_b."""
        return sum_of([block.value(part) for block, part in self._parts(x)])

    def gradient(self, x):
        """The gradients one after the other."""
        return jnp.concatenate([block.gradient(part) for block, part in self._parts(x)])

    def metric(self, x):
        """The Hessians along the diagonal."""
        return side_by_side(tuple(block.metric(part) for block, part in self._parts(x)), self.sizes)

    def damping_metric(self, x):
        """D along the diagonal, ∇²g of the blocks that have none; None where no block has one."""
        metrics = damping_metrics(self._parts(x))
        return side_by_side(tuple(metrics), self.sizes) if metrics else None

    def constants(self):
        """Those at every order that all blocks have."""
        return constants_of(self.blocks, self.constant_at)

    def constant_at(self, order):
        """The largest of the blocks'."""
        return largest([block.constant_at(order) for block in self.blocks])

    def concordance(self, direction):
        """The largest of the blocks'."""
        return largest([block.concordance(part) for block, part in self._parts(direction)])
