"""Checks of data and options at the border, before anything is compiled: which argument, its value, what to do."""

import jax
import numpy as np


def check_training_options(max_steps, tolerance, batch_size, key) -> None:
    """Raises ValueError for an option of `train` out of range."""
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"`train(max_steps={max_steps!r})`: must be a whole number from 1 up.")
    if not tolerance >= 0:
        raise ValueError(f"`train(tolerance={tolerance!r})`: must be a number from 0 up; 0 never stops early.")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"`train(batch_size={batch_size!r})`: must be None or a whole number from 1 up.")
    if batch_size is not None and key is None:
        raise ValueError(f"`train(batch_size={batch_size})` shuffles the rows: pass key=jax.random.key(0), say.")


def check_data(inputs, targets, weights) -> None:
    """Raises ValueError for empty or non-finite data, or unusable weights."""
    leaves = jax.tree.leaves(inputs)
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves) or np.shape(leaves[0])[0] == 0:
        raise ValueError("the data hold no rows; inputs need shape [n, ...] with n at least 1.")
    for leaf in leaves:
        check_finite("inputs", leaf)
    targets = np.asarray(targets)
    if targets.dtype.kind not in "fiub":
        raise ValueError(f"targets must be numbers; got dtype {targets.dtype}. Encode labels as whole numbers first.")
    check_finite("targets", targets)
    if weights is not None:
        weights = np.asarray(weights)
        check_finite("weights", weights)
        if weights.min() < 0 or weights.max() == 0:
            raise ValueError(f"weights must be from 0 up with one above 0; got {weights.min():g} to {weights.max():g}.")


def check_finite(name: str, values, advice: str = "Impute or drop it.") -> None:
    """Raises ValueError, with the place of the first, where a real number is not finite."""
    values = np.asarray(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"{name} must be finite; the first value that is not, {values[where]}, is at index {where}. {advice}"
        )
