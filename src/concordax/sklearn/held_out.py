"""Rows that are held out of training to choose the strength and when to stop, and the rows' return at the end."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..history import TrainResult
from ..losses import AbstractLoss
from ..regularizers import AbstractRegularizer
from ..solvers import Auto, NystromCG
from ..strength import FixedStrength
from ..training import train
from .defaults import padded

Parts = tuple[Callable, AbstractLoss, AbstractRegularizer]
# Rows lie on a circle, by their hashes, that is cut into so many parts; a network holds out one of them.
TENTHS = 10
# A trust region asks for no digits: at an error of 1e-2 of the model's norm the steps gain as much as at 1e-6 and cost
# two thirds, and a solve cut short is still a step.
_SOLVER = Auto(nystrom=NystromCG(tolerance=1e-2, max_iterations=100))
# Steps with all rows at the end, as a share of those without.
_MORE_STEPS = 0.1


class Rows(NamedTuple):
    """Scaled inputs [n, d], encoded targets [n, c], weights [n]."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def is_held_out(inputs: np.ndarray, tenth: int) -> np.ndarray:
    """Which rows to hold out [n]: those in a tenth of all, from 0 to 9, by a hash of each row's inputs.

    The choice does not depend on order, weights or other rows, but where the tenth is empty: there it is the row next
    to it. Rows that are the same stay together: a copy of a training row among the held-out ones would vouch for what
    the network has learnt by heart.
    """
    digests = [hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in np.ascontiguousarray(inputs)]
    position = np.array([int.from_bytes(digest, "little") for digest in digests]) / 2**32
    distance = np.abs((position - (tenth + 0.5) / TENTHS + 0.5) % 1 - 0.5)
    return distance <= max(0.5 / TENTHS, distance.min())


def train_with_held_out(
    parts: Parts, params: Any, rows: Rows, tenth: int, *, strength, max_steps: int, **options: Any
) -> TrainResult:
    """Trains along a path of strengths without a tenth of the rows, and then a little with all.

    Kept is the step that predicts the held-out rows best; from there training goes on at its strength with all rows for
    a tenth as many steps.

    Args:
        parts: model, loss and regularizer.
        params: where to start.
        rows: all rows, of positive weight.
        tenth: which part of them is held out, from 0 to 9.
        strength: the path, an `AnnealedStrength`.
        max_steps: steps at most, those at the end apart.
        options: more for `train`.

    Returns:
        A `TrainResult` whose best parameters are the last ones, its history that of both parts.
    """
    held_out = is_held_out(rows.inputs, tenth)
    # Rows that are all the same can only judge themselves.
    kept = np.ones_like(held_out) if held_out.all() else ~held_out
    learnt = padded(*(part[kept] for part in rows))
    checked = Rows(*(part[held_out] for part in rows))
    first = train(
        *parts, params, (learnt[0], learnt[1]), weights=learnt[2], strength=strength, max_steps=max_steps,
        validation=checked, solver=_SOLVER, **options,
    )  # fmt: skip
    more = int(_MORE_STEPS * first.best_step)
    if more == 0 or not first.status.succeeded or first.status.by_the_user:
        return first
    every = padded(*rows)
    second = train(
        *parts, first.best_params, (every[0], every[1]), weights=every[2], strength=FixedStrength(first.best_strength),
        max_steps=more, state=first.state, solver=_SOLVER, **options,
    )  # fmt: skip
    return _joined(first, second)


def _joined(first: TrainResult, second: TrainResult) -> TrainResult:
    history = {name: np.concatenate([first.history[name], second.history[name]]) for name in first.history}
    after = len(first.history["seconds"])
    history["seconds"][after:] += first.history["seconds"][-1]
    # That the second part came to the end of its steps is no news; that it was stopped is.
    status = second.status if second.status.by_the_user else first.status
    return second._replace(status=status, history=history, best_step=after + second.best_step)
