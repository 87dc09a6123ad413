"""What a sparse path left standing, trained again without what made it sparse, and judged by that."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .compaction import Compacted, compact
from .losses import AbstractLoss
from .path import StrengthPath, strength_path
from .regularizers import AbstractRegularizer


class RelaxedPath(NamedTuple):
    """The networks of `relax`, in the order of the path's runs.

    Attributes:
        networks: the compacted network of each run, trained again.
        strengths: [k] the strength that each was trained at.
        loss: [k] training loss where each ended.
        validation_loss: [k].
    """

    networks: tuple[Compacted, ...]
    strengths: Float[np.ndarray, " k"]
    loss: Float[np.ndarray, " k"]
    validation_loss: Float[np.ndarray, " k"]

    @property
    def best(self) -> int:
        """Index of the network with the lowest validation loss."""
        return int(np.nanargmin(self.validation_loss))


def relax(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    path: StrengthPath,
    data: tuple[Any, Any],
    *,
    strengths: Iterable[float],
    validation: tuple[Any, Any],
    **options: Any,
) -> RelaxedPath:
    """Trains each network of a sparse path again, without what it does not use and without what made it sparse.

    A penalty that leaves out inputs or units draws those that stay towards zero. Rows that were held out then choose a
    strength too small, at which inputs of noise stay as well. Trained again, each network is judged by what it reads
    alone.

    Args:
        model: the path's `TwoLayer` or `MLP`.
        loss: the path's loss.
        regularizer: what the networks are trained with; small everywhere, as `L2()`, not the penalty of the path.
        path: from `strength_path`.
        data: (inputs [n, d], targets) as for the path.
        strengths: the τ > 0 to try for each network.
        validation: (inputs, targets) of the rows that choose among them, and among the networks.
        **options: more for `train`, of each run: `max_steps`, `solver`, `weights`, ...

    Returns:
        The networks, each with the inputs it reads, `networks[i].inputs`; they are called on all of them.

    Raises:
        ValueError: without rows that are held out.
        ValueError, TypeError: as `compact`, `strength_path` and `train` do.

    Source: Meinshausen, "Relaxed Lasso", Computational Statistics & Data Analysis 52, 2007.

    Example:
        >>> import concordax as cx, jax
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(160, 8))
        >>> y = np.sin(x[:, 0]) + x[:, 1] + 0.3 * rng.normal(size=160)
        >>> rows, held_out, model = (x[:80], y[:80]), (x[80:], y[80:]), cx.MLP(inputs=8, widths=(5,))
        >>> start = model.init(jax.random.key(0))
        >>> step = cx.ProximalStep(cx.GroupLasso(cx.Groups.inputs(start)))
        >>> parts, options = (model, cx.SquaredError()), {"validation": held_out, "max_steps": 40}
        >>> path = cx.strength_path(*parts, 0.1 * cx.L2(), start, rows, strengths=(1e-2, 6e-2), step=step, **options)
        >>> relaxed = cx.relax(*parts, cx.L2(), path, rows, strengths=[1e-3], **options)
        >>> path.counts["inputs"][path.best].item(), relaxed.networks[relaxed.best].inputs.tolist()
        (7, [0, 1])
    """
    if validation is None:
        raise ValueError("`relax(validation=None)`: the networks are chosen by rows held out; pass (inputs, targets).")
    tried = list(strengths)
    networks, chosen = [], []
    for params in path.params:
        small = compact(model, params)
        read = lambda rows, small=small: (np.asarray(rows[0])[:, small.inputs], rows[1])
        again = strength_path(
            small.model, loss, regularizer, small.params, read(data), strengths=tried, validation=read(validation),
            **options,
        )  # fmt: skip
        networks.append(replace(small, params=again.params[again.best]))
        chosen.append((again.strengths[again.best], again.loss[again.best], again.validation_loss[again.best]))
    columns = np.array(chosen, float).T
    return RelaxedPath(tuple(networks), *columns)
