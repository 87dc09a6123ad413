"""Any optax optimizer under the same `train`: first-order and quasi-Newton baselines with the same history."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ._status import StepStatus
from ._types import Batch
from .losses import AbstractLoss
from .optimizer import GGNState, as_batch, check_parts, initial_info
from .regularizers import AbstractRegularizer, as_arguments
from .strength import AbstractStrength, as_strength
from .system import data_loss


class FirstOrder(eqx.Module):
    """A model, a loss, a regularizer and an optax optimizer, in the form of `Algorithm`.

    The optimizer gets the gradient of F, and for those that search along a line `value`, `grad` and `value_fn`.
    """

    model: Any
    loss: AbstractLoss
    regularizer: AbstractRegularizer
    strength: AbstractStrength
    optimizer: Any

    def init(self, params: PyTree) -> GGNState:
        """The state before the first step."""
        dtype = ravel_pytree(params)[0].dtype
        strength = self.strength.init(dtype)
        # Typed as later states are: a number that is weakly typed would compile the second step anew.
        rule = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), self.optimizer.init(params))
        return GGNState(jnp.zeros((), int), rule, strength, initial_info(dtype, strength.strength))

    def update(self, state: GGNState, params: PyTree, batch: Batch) -> tuple[PyTree, GGNState]:
        """One step: updates to add to `params`, and the new state. One that is not finite changes nothing."""
        tau = state.strength_rule.strength

        def objective(at: PyTree) -> tuple[Array, Array]:
            loss = data_loss(self.loss, self.model(at, batch.inputs), batch)
            return loss + tau * self.regularizer.value(ravel_pytree(at)[0]), loss

        with jax.default_matmul_precision("highest"):
            (value, loss), gradient = jax.value_and_grad(objective, has_aux=True)(params)
            updates, rule = self.optimizer.update(
                gradient, state.rule, params, value=value, grad=gradient, value_fn=lambda at: objective(at)[0]
            )
            new_value, new_loss = objective(optax.apply_updates(params, updates))
        start_is_finite = jnp.isfinite(value) & _finite(gradient)
        accepted = start_is_finite & jnp.isfinite(new_value) & _finite(updates)
        status = jnp.where(accepted, StepStatus.ACCEPTED, StepStatus.NONFINITE_TRIAL)
        status = jnp.where(start_is_finite, status, StepStatus.NONFINITE_START).astype(state.info.status.dtype)
        # Moments that took in a NaN would keep it for ever.
        rule = jax.tree.map(lambda new, old: jnp.where(accepted, new, old).astype(old.dtype), rule, state.rule)
        info = initial_info(value.dtype, tau)._replace(
            loss=loss,
            objective=value,
            new_loss=jnp.where(accepted, new_loss, loss),
            new_objective=jnp.where(accepted, new_value, value),
            attempts=jnp.ones((), int),
            accepted=accepted,
            status=status,
        )
        updates = jax.tree.map(lambda update, at: jnp.where(accepted, update, 0).astype(at.dtype), updates, params)
        strength = self.strength.count(state.strength_rule, accepted)
        return updates, GGNState(state.step + 1, rule, strength, info)

    def parametrized(self) -> "FirstOrder":
        """This one with the numbers of its regularizer as arrays: arguments of a program that serves them all."""
        return replace(self, regularizer=as_arguments(self.regularizer))

    def batch(self, params: PyTree, inputs, targets, weights=None) -> Batch:
        """Data in the form that `update` takes; raises ValueError on shapes that do not fit."""
        return as_batch(self.model, self.loss, params, inputs, targets, weights)


def _finite(tree: PyTree) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def make_first_order(model, loss, regularizer, *, strength, optimizer, refused: dict[str, bool]) -> FirstOrder:
    """Checks the parts and puts them together.

    Args:
        model: as `train` takes it, like the parts that follow.
        loss: a loss.
        regularizer: a regularizer.
        strength: a number.
        optimizer: an optax optimizer.
        refused: arguments that have no meaning here, and whether they were given.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`train(optimizer={optimizer!r})`: must be an optax optimizer, as optax.adam(1e-3).")
    given = [name for name, was_given in refused.items() if was_given]
    if given:
        raise ValueError(
            f"`train(optimizer=..., {given[0]}=...)`: `{given[0]}` belongs to Gauss-Newton steps, and an optax "
            "optimizer takes none. Leave out one of the two."
        )
    check_parts(model, (loss, AbstractLoss, "loss"), (regularizer, AbstractRegularizer, "regularizer"))
    rule = as_strength(strength)
    if rule.is_adaptive:
        raise ValueError(
            f"`train(optimizer=..., strength={strength!r})`: an optax optimizer minimises one objective, and forms no "
            "Gauss-Newton system that a strength could be estimated from. Pass a number."
        )
    return FirstOrder(model, loss, regularizer, rule, optax.with_extra_args_support(optimizer))
