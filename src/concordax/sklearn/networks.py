"""Networks of different starts that predict together: the first chooses strength and steps, the others follow it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._status import RunStatus
from ..history import TrainResult
from ..observers import Observer
from ..strength import AbstractStrength, AnnealedStrength, FixedStrength
from ..training import Callback, train
from .defaults import padded
from .held_out import MORE_STEPS, SOLVER, Parts, Rows, train_with_held_out

_ENDED_BY_USER = (RunStatus.INTERRUPTED, RunStatus.STOPPED_BY_CALLBACK)


class Networks(NamedTuple):
    """The run of the first network, and the parameters of all."""

    first: TrainResult
    params: list[PyTree]


class _Course(NamedTuple):
    """What the first network's run says of the others': the strength, the steps, and options of `train`."""

    strength: AbstractStrength
    steps: int
    options: dict[str, Any]


def train_networks(
    parts: Parts,
    starts: Sequence[PyTree],
    keys: Sequence[PRNGKeyArray],
    rows: Rows,
    *,
    strength: AbstractStrength,
    callbacks: Sequence[Callback | Observer],
    **options: Any,
) -> Networks:
    """Trains the first network until its score is best, and the others at its strength for as many steps.

    Networks that differ in their starts alone err in part independently, so that their mean errs less than each. That
    they follow the first spares them the estimates, a third of a step's price, and stops them where it was stopped: on
    noisy tables, others that chose for themselves were no better, and trained to the end at its strength were worse.

    Args:
        parts: model, loss and regularizer.
        starts: parameters to start from, a network.
        keys: random keys, a network; they shuffle mini-batches.
        rows: scaled inputs, encoded targets, positive weights.
        strength: of the first network; an `AnnealedStrength` is judged by held-out rows.
        callbacks: told of all steps, with the number of the network from 1 as "network"; observers of those of the
            first network. One that returns True ends the whole.
        options: more for `train`.

    Returns:
        The first run and the parameters of the networks that came to their end.
    """
    first, course = _lead(parts, starts[0], keys[0], rows, strength, callbacks=_numbered(callbacks, 1), **options)
    params = [first.best_params]
    if first.status in _ENDED_BY_USER or not first.status.succeeded:
        return Networks(first, params)
    inputs, targets, weights = padded(*rows)
    told = [callback for callback in callbacks if not isinstance(callback, Observer)]
    for number, (start, key) in enumerate(zip(starts[1:], keys[1:], strict=True), start=2):
        if course.steps == 0:
            params.append(start)
            continue
        result = train(
            *parts, start, (inputs, targets), weights=weights, strength=course.strength,
            **{**options, **course.options, "max_steps": course.steps, "key": key,
               "callbacks": _numbered(told, number)},
        )  # fmt: skip
        if result.status in _ENDED_BY_USER:
            break
        params.append(result.best_params)
    return Networks(first, params)


def _lead(
    parts: Parts, start: PyTree, key: PRNGKeyArray, rows: Rows, strength: AbstractStrength, **options: Any
) -> tuple[TrainResult, _Course]:
    """The first network's run, and the course that the others take from it."""
    if isinstance(strength, AnnealedStrength):
        # The others learn from all rows from the start: how long to train is known, nothing has to be held out.
        result, steps = train_with_held_out(parts, start, rows, strength=strength, **options)
        path = AnnealedStrength(strength.initial, min(result.best_strength, strength.initial))
        return result, _Course(path, steps + int(MORE_STEPS * steps), {"solver": SOLVER})
    inputs, targets, weights = padded(*rows)
    result = train(*parts, start, (inputs, targets), weights=weights, strength=strength, key=key, **options)
    return result, _Course(FixedStrength(result.best_strength), result.best_step, {})


def _numbered(callbacks: Sequence[Callback | Observer], number: int) -> list[Callback | Observer]:
    """The callbacks, functions among them with the number of the network in what they are told."""

    def numbered(callback: Callback | Observer) -> Callback | Observer:
        if isinstance(callback, Observer):
            return callback
        return lambda step, record: callback(step, {**record, "network": float(number)})

    return [numbered(callback) for callback in callbacks]


def starts_and_keys(
    init: Callable[[PRNGKeyArray], PyTree], seed: int, networks: int
) -> tuple[list[PyTree], list[PRNGKeyArray]]:
    """Initial parameters and keys, a network: the first network's do not depend on how many there are."""
    key = jax.random.key(seed)
    keys = [key, *(jax.random.fold_in(key, number) for number in range(1, networks))]
    return [init(key) for key in keys], keys


def mixture(moments: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the equal mixture of distributions: the mean covariance and that of the means.

    Args:
        moments: a mean [..., d] and a covariance [..., d, d], a distribution.

    Returns:
        The mean [..., d] and the covariance [..., d, d].

    Example:
        >>> mean, covariance = mixture([(np.zeros(1), np.eye(1)), (2 * np.ones(1), np.eye(1))])
        >>> float(mean[0]), float(covariance[0, 0])
        (1.0, 2.0)
    """
    means, total = [], 0.0
    for mean, covariance in moments:
        means.append(mean)
        total = total + covariance
    stacked = np.stack(means)
    mean = stacked.mean(axis=0)
    deviations = stacked - mean
    between = np.einsum("k...a,k...b->...ab", deviations, deviations)
    return mean, (total + between) / len(means)
