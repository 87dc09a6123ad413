"""Networks of different starts that predict together, and who among them chooses strength and steps."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ..history import TrainResult
from ..observers import Observer
from ..scheduled_strength import AnnealedStrength, ScheduledStrength
from ..strength import AbstractStrength, FixedStrength
from ..training import Callback, train
from .defaults import padded
from .held_out import TENTHS, Parts, Rows, train_with_held_out


class Networks(NamedTuple):
    """The run of the first network; the parameters of all, and the strength that each ended with."""

    first: TrainResult
    params: list[PyTree]
    strengths: list[float]


def train_networks(
    parts: Parts,
    starts: Sequence[PyTree],
    keys: Sequence[PRNGKeyArray],
    rows: Rows,
    *,
    strength: AbstractStrength,
    callbacks: Sequence[Callback | Observer],
    **options,
) -> Networks:
    """Trains one network after the other.

    Networks that differ in their starts err in part independently, so that their mean errs less than each. Where rows
    judge, each network holds out a tenth of its own: one tenth may by chance end the path too early, for all of them.
    Elsewhere the first is trained until its score is best, and the others take its course: as many steps, at its
    strengths one by one. That spares them the estimates, a third of a step's price; others that chose for themselves
    were no better, and others that began at its last strength learnt by heart what they could not unlearn.

    Args:
        parts: model, loss and regularizer.
        starts: parameters to start from, a network.
        keys: random keys, a network; they shuffle mini-batches.
        rows: scaled inputs, encoded targets, positive weights.
        strength: of the first network; an `AnnealedStrength` is judged by held-out rows, for each.
        callbacks: told of all steps, with the number of the network from 1 as "network"; observers of those of the
            first network. One that returns True ends the whole.
        options: more for `train`.

    Returns:
        The first run, and what the networks that came to their end have learnt.
    """
    runs: list[TrainResult] = []
    for number, (start, key) in enumerate(zip(starts, keys, strict=True)):
        mine = {**options, "key": key, "callbacks": _told(callbacks, number)}
        if isinstance(strength, AnnealedStrength):
            run = train_with_held_out(parts, start, rows, number % TENTHS, strength=strength, **mine)
        elif not runs:
            run = _train(parts, start, rows, strength=strength, **mine)
        elif runs[0].best_step == 0:
            run = runs[0]._replace(best_params=start)
        else:
            course = {"strength": _course(strength, runs[0], mine["max_steps"]), "max_steps": runs[0].best_step}
            run = _train(parts, start, rows, **{**mine, **course})
        if runs and run.status.by_the_user:
            break
        runs.append(run)
        if runs[0].status.by_the_user or not runs[0].status.succeeded:
            break
    return Networks(runs[0], [run.best_params for run in runs], [run.best_strength for run in runs])


def _train(parts: Parts, start: PyTree, rows: Rows, **options) -> TrainResult:
    inputs, targets, weights = padded(*rows)
    return train(*parts, start, (inputs, targets), weights=weights, **options)


def _course(strength: AbstractStrength, first: TrainResult, max_steps: int) -> AbstractStrength:
    """The strengths of a run's steps up to its best one, as a schedule of the length that all fits have."""
    if isinstance(strength, FixedStrength):
        return strength
    left = max_steps - first.best_step
    return ScheduledStrength([*first.history["strength"][: first.best_step], *[first.best_strength] * left])


def _told(callbacks: Sequence[Callback | Observer], number: int) -> list[Callback | Observer]:
    """The callbacks of a network: functions with its number, from 1, in what they are told; observers of the first."""

    def numbered(callback: Callback) -> Callback:
        return lambda step, record: callback(step, {**record, "network": number + 1.0})

    told = [callback for callback in callbacks if number == 0 or not isinstance(callback, Observer)]
    return [callback if isinstance(callback, Observer) else numbered(callback) for callback in told]


def starts_and_keys(
    init: Callable[[PRNGKeyArray], PyTree], seed: int, networks: int
) -> tuple[list[PyTree], list[PRNGKeyArray]]:
    """Initial parameters and keys, a network: the first network's do not depend on how many there are."""
    key = jax.random.key(seed)
    keys = [key, *(jax.random.fold_in(key, number) for number in range(1, networks))]
    return [init(key) for key in keys], keys


def mixture(moments: Iterable[tuple[np.ndarray, np.ndarray]], shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a mixture of distributions: the mean covariance and that of the means.

    Args:
        moments: a mean [..., d] and a covariance [..., d, d], a distribution.
        shares: of each distribution [k], of sum 1.

    Returns:
        The mean [..., d] and the covariance [..., d, d].

    Example:
        >>> mean, covariance = mixture([(np.zeros(1), np.eye(1)), (2 * np.ones(1), np.eye(1))], np.array([0.5, 0.5]))
        >>> float(mean[0]), float(covariance[0, 0])
        (1.0, 2.0)
    """
    means, within = [], 0.0
    for share, (mean, covariance) in zip(shares, moments, strict=True):
        means.append(mean)
        within = within + share * covariance
    stacked = np.stack(means)
    mean = np.tensordot(shares, stacked, 1)
    deviations = stacked - mean
    return mean, within + np.einsum("k,k...a,k...b->...ab", shares, deviations, deviations)
