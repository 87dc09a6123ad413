"""Answers that depend on shapes alone, remembered: tracing a small network for its shapes takes as long as a step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")
# Parts and shapes of as many different problems as a session is likely to go back and forth between.
_PROBLEMS = 128


class Structure(NamedTuple):
    """The shapes and dtypes of a pytree of arrays, as a key."""

    treedef: Any
    leaves: tuple[tuple[tuple[int, ...], Any], ...]

    @property
    def tree(self):
        """The pytree, of `jax.ShapeDtypeStruct`s."""
        return jax.tree.unflatten(self.treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in self.leaves])


def structure(tree: Any) -> Structure:
    """The structure of a pytree of arrays and numbers, of JAX or NumPy, or traced, in the dtypes JAX has for them."""
    leaves, treedef = jax.tree.flatten(tree)
    return Structure(treedef, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """A function whose answers are kept; one about parts that hold arrays, and so have no hash, is asked each time."""
    kept = functools.lru_cache(_PROBLEMS)(function)

    @functools.wraps(function)
    def ask(*arguments: Any) -> T:
        try:
            hash(arguments)
        except TypeError:
            return function(*arguments)
        return kept(*arguments)

    return ask
