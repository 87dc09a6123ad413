"""Rows that are held out of training to choose the strength and when to stop, and the rows' return at the end."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ..history import TrainResult
from ..losses import AbstractLoss
from ..regularizers import AbstractRegularizer
from ..solvers import Auto, NystromCG
from ..strength import FixedStrength
from ..training import train
from .defaults import padded

Parts = tuple[Callable, AbstractLoss, AbstractRegularizer]
_SHARE = 0.1
# A trust region asks for no digits: at an error of 1e-2 of the model's norm the steps gain as much as at 1e-6 and cost
# two thirds, and a solve cut short is still a step.
SOLVER = Auto(nystrom=NystromCG(tolerance=1e-2, max_iterations=100))
# Steps with all rows at the end, as a share of those without.
MORE_STEPS = 0.1


class Rows(NamedTuple):
    """Scaled inputs [n, d], encoded targets [n, c], weights [n]."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def is_held_out(inputs: np.ndarray, share: float = _SHARE) -> np.ndarray:
    """Which rows to hold out [n]: by a hash of each row's inputs.

    The choice does not depend on order, weights or other rows, and rows that are the same are on the same side: a copy
    of a training row among the held-out ones would vouch for what the network has learnt by heart.
    """
    digests = [hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in np.ascontiguousarray(inputs)]
    return np.array([int.from_bytes(digest, "little") for digest in digests]) < share * 2**32


def train_with_held_out(
    parts: Parts, params: Any, rows: Rows, *, strength, max_steps: int, **options: Any
) -> tuple[TrainResult, int]:
    """Trains along a path of strengths without a tenth of the rows, and then a little with all.

    Kept is the step that predicts the held-out rows best; from there training goes on at its strength with all rows for
    a tenth as many steps.

    Args:
        parts: model, loss and regularizer.
        params: where to start.
        rows: all rows, of positive weight.
        strength: the path, an `AnnealedStrength`.
        max_steps: steps at most, those at the end apart.
        options: more for `train`.

    Returns:
        A `TrainResult` whose best parameters are the last ones, its history that of both parts; and the steps to the
        one that predicts the held-out rows best.
    """
    held_out = is_held_out(rows.inputs)
    learnt = padded(*(part[~held_out] for part in rows))
    checked = Rows(*(part[held_out] for part in rows))
    first = train(
        *parts, params, (learnt[0], learnt[1]), weights=learnt[2], strength=strength, max_steps=max_steps,
        validation=checked, solver=SOLVER, **options,
    )  # fmt: skip
    more = int(MORE_STEPS * first.best_step)
    if more == 0 or not first.status.succeeded:
        return first, first.best_step
    tau = jax.numpy.asarray(first.best_strength, first.state.strength_rule.strength.dtype)
    state = first.state._replace(strength_rule=first.state.strength_rule._replace(strength=tau))
    every = padded(*rows)
    second = train(
        *parts, first.best_params, (every[0], every[1]), weights=every[2], strength=FixedStrength(first.best_strength),
        max_steps=more, state=state, solver=SOLVER, **options,
    )  # fmt: skip
    return _joined(first, second), first.best_step


def _joined(first: TrainResult, second: TrainResult) -> TrainResult:
    history = {name: np.concatenate([first.history[name], second.history[name]]) for name in first.history}
    after = len(first.history["seconds"])
    history["seconds"][after:] += first.history["seconds"][-1]
    return second._replace(status=first.status, history=history, best_step=after + second.best_step)
