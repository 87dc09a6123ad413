"""Checks of data and options at the border, before anything is compiled: which argument, its value, what to do."""

import jax
import numpy as np

from .losses import AbstractLoss, BinaryCrossEntropy, SoftmaxCrossEntropy


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


def check_data(loss: AbstractLoss, inputs, targets, weights) -> None:
    """Raises ValueError for empty or non-finite data, targets the loss has no meaning for, or unusable weights."""
    leaves = jax.tree.leaves(inputs)
    if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves) or np.shape(leaves[0])[0] == 0:
        raise ValueError("the data hold no rows; inputs need shape [n, ...] with n at least 1.")
    for leaf in leaves:
        _check_finite("inputs", leaf)
    targets = np.asarray(targets)
    if targets.dtype.kind not in "fiub":
        raise ValueError(f"targets must be numbers; got dtype {targets.dtype}. Encode labels as whole numbers first.")
    _check_finite("targets", targets)
    if isinstance(loss, BinaryCrossEntropy) and (targets.min() < 0 or targets.max() > 1):
        raise ValueError(
            f"`BinaryCrossEntropy` needs targets in [0, 1]; got {targets.min():g} to {targets.max():g}. "
            "Encode the two classes as 0 and 1."
        )
    if isinstance(loss, SoftmaxCrossEntropy) and targets.min() < 0:
        raise ValueError(f"`SoftmaxCrossEntropy` needs labels or probabilities from 0 up; got {targets.min():g}.")
    if weights is not None:
        weights = np.asarray(weights)
        _check_finite("weights", weights)
        if weights.min() < 0 or weights.max() == 0:
            raise ValueError(f"weights must be from 0 up with one above 0; got {weights.min():g} to {weights.max():g}.")


def check_classes(loss: AbstractLoss, targets, outputs: int) -> None:
    """Raises ValueError for softmax targets that name no class of the model or are no probabilities."""
    if not isinstance(loss, SoftmaxCrossEntropy):
        return
    targets = np.asarray(targets)
    if targets.ndim == 1 and targets.max() >= outputs:
        raise ValueError(
            f"`SoftmaxCrossEntropy` needs labels 0..{outputs - 1} for a model with {outputs} outputs; the largest "
            f"label is {targets.max()}. Encode the labels as consecutive whole numbers, or give the model more outputs."
        )
    if targets.ndim == 2 and not np.allclose(targets.sum(axis=1), 1, atol=1e-4):
        worst = int(np.argmax(np.abs(targets.sum(axis=1) - 1)))
        raise ValueError(
            f"`SoftmaxCrossEntropy` needs probabilities that sum to 1 in each row; row {worst} sums to "
            f"{targets[worst].sum():g}. Divide each row by its sum, or pass integer labels."
        )


def _check_finite(name: str, values) -> None:
    values = np.asarray(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{name} must be finite; the first value that is not, {values[tuple(where)]}, is at index "
            f"{tuple(int(i) for i in where)}. Impute or drop it."
        )
