"""Runs over a range of strengths, each from where the last one ended: what sparsity costs, as a curve."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, PyTree

from ._status import RunStatus
from .losses import AbstractLoss
from .regularizers import AbstractRegularizer
from .sparse import Sparsity, sparsity
from .training import train


class StrengthPath(NamedTuple):
    """Runs of `strength_path`, in the order they were made.

    Attributes:
        strengths: [k].
        loss: [k] training loss where each run ended.
        validation_loss: [k]; NaN without validation rows.
        sparsity: the counts of each run's parameters.
        params: each run's last parameters.
        status: why each run ended.
        steps: [k] steps taken.
    """

    strengths: Float[np.ndarray, " k"]
    loss: Float[np.ndarray, " k"]
    validation_loss: Float[np.ndarray, " k"]
    sparsity: tuple[Sparsity, ...]
    params: tuple[Any, ...]
    status: tuple[RunStatus, ...]
    steps: Int[np.ndarray, " k"]

    @property
    def counts(self) -> dict[str, Int[np.ndarray, " k"]]:
        """By name: nonzero parameters, those holding 99.9 % of the ℓ1 norm, active units and inputs of a network."""
        counts = {
            "nonzeros": [each.nonzeros for each in self.sparsity],
            "hold 99.9 %": [each.holding for each in self.sparsity],
            "units": [each.active_units for each in self.sparsity],
            "inputs": [each.active_inputs for each in self.sparsity],
        }
        return {name: np.array(values, int) for name, values in counts.items() if None not in values}

    @property
    def best(self) -> int:
        """Index of the run with the lowest validation loss; raises ValueError where there is none."""
        if not np.isfinite(self.validation_loss).any():
            raise ValueError("`StrengthPath.best` needs validation rows: `strength_path(..., validation=(inputs, y))`.")
        return int(np.nanargmin(self.validation_loss))


def strength_path(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    params: PyTree,
    data: tuple[Any, Any],
    *,
    strengths: Iterable[float],
    keep_order: bool = False,
    zero_tolerance: float = 0.0,
    **options: Any,
) -> StrengthPath:
    """Trains at one strength after the other, from the smallest up, each run from the parameters of the last.

    From dense to sparse: a network whose weights are all zero is stationary, since each layer's gradient is a product
    with the others' weights, so that a path from the largest strength down may never leave the point where it starts.
    All runs share one compiled program.

    Args:
        model: as for `train`, like all up to `data`.
        loss: a loss.
        regularizer: a regularizer.
        params: where the first run starts.
        data: (inputs, targets).
        strengths: the τ > 0.
        keep_order: take them as given, not from the smallest up.
        zero_tolerance: of `sparsity`, in units of the largest weight.
        **options: more for `train`, of each run: `step`, `solver`, `max_steps`, `validation`, `weights`, ...

    Returns:
        The runs.

    Raises:
        ValueError, TypeError: for no strengths, strengths that are not positive numbers, and as `train` does.

    Source: the order is that of LassoNet (Lemhadri, Ruan, Abraham & Tibshirani, JMLR 22, 2021).

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.numpy.linspace(-1, 1, 30)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(5,))
        >>> parts = (model, cx.SquaredError(), cx.L2(), model.init(jax.random.key(0)), (x, x**2))
        >>> path = cx.strength_path(*parts, strengths=(1e-2, 1e-4), max_steps=10)
        >>> path.strengths.tolist(), bool(path.loss[0] < path.loss[1])
        ([0.0001, 0.01], True)
    """
    ordered = [_checked(strength) for strength in strengths]
    if not ordered:
        raise ValueError("`strength_path(strengths=[])`: pass one strength or more, say numpy.geomspace(1, 1e-6, 13).")
    for name in ("strength", "state"):
        if name in options:
            raise TypeError(f"`strength_path({name}=...)`: each run has its own; pass strengths=[...].")
    ordered = ordered if keep_order else sorted(ordered)
    runs = []
    for strength in ordered:
        result = train(model, loss, regularizer, params, data, strength=strength, **options)
        params = result.params
        runs.append(result)
    last = lambda name: np.array([run.history[name][-1] for run in runs], float)
    return StrengthPath(
        strengths=np.array(ordered, float),
        loss=last("loss"),
        validation_loss=last("validation_loss"),
        sparsity=tuple(sparsity(model, run.params, tolerance=zero_tolerance) for run in runs),
        params=tuple(run.params for run in runs),
        status=tuple(run.status for run in runs),
        steps=np.array([len(run.history["loss"]) for run in runs]),
    )


def _checked(strength: float) -> float:
    value = float(strength)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"`strength_path(strengths=[... {strength!r} ...])`: each must be a positive finite number.")
    return value
