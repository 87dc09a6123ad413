"""Rows in the order a run sees them: the full batch, or shuffled mini-batches of one shape."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ._types import Batch


class Batches:
    """An endless stream of batches.

    Mini-batches hold each row of positive weight once an epoch, shuffled anew by the key; the last batch of an epoch is
    filled up with rows of weight 0, so that one compiled program serves all.

    Args:
        batch: all rows.
        size: rows a batch, or None for all.
        key: random key, needed for mini-batches.
    """

    def __init__(self, batch: Batch, size: int | None, key: PRNGKeyArray | None):
        self.batch, self.key = batch, key
        self.rows = np.flatnonzero(np.asarray(batch.weights) > 0)
        self.size = min(len(self.rows) if size is None else size, len(self.rows))
        self.full = self.size == len(self.rows)
        self.an_epoch = -(-len(self.rows) // self.size)

    @property
    def example(self) -> Batch:
        """Rows of the shape that every batch has."""
        return self.batch if self.full else jax.tree.map(lambda leaf: leaf[: self.size], self.batch)

    def __iter__(self) -> Iterator[Batch]:
        """Batches without end."""
        while True:
            if self.full:
                yield self.batch
            else:
                yield from self._epoch()

    def _epoch(self) -> Iterator[Batch]:
        if self.key is None:
            raise ValueError("mini-batches are shuffled: pass key=jax.random.key(0), say.")
        self.key, key = jax.random.split(self.key)
        order = np.asarray(jax.random.permutation(key, self.rows))
        for start in range(0, len(order), self.size):
            index = order[start : start + self.size]
            padded = np.pad(index, (0, self.size - len(index)))
            picked = jax.tree.map(lambda leaf, index=padded: leaf[index], self.batch)
            present = jnp.arange(self.size) < len(index)
            yield picked._replace(weights=jnp.where(present, picked.weights, 0))
