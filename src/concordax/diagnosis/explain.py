"""`explain`: all signatures over the facts of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._status import RunStatus
from ..history import RunSetup, TrainResult
from . import course, solution
from .facts import gather
from .finding import Diagnosis

# Of equally severe findings the first is the more likely cause of the others.
_SIGNATURES = (
    course.nonfinite,
    course.rising,
    solution.flat_gradient,
    solution.scales_of_inputs,
    solution.strength_too_large,
    solution.constant_outputs,
    solution.strength_too_small,
    course.rejected,
    solution.digits,
    course.short,
    course.solver_misses,
    solution.smoothing,
    course.unfinished,
)


def explain(result: TrainResult) -> Diagnosis:
    """What is wrong with a run, the numbers it shows in, and what to change.

    Looks at the history, and at the parameters kept (`best_params`): their outputs, the slopes of the activations and,
    up to 3000 numbers or parameters, the linearised system, factorized once at the strength of the run and once far
    below. The result holds the rows of the run for this.

    Args:
        result: what `train` returned.

    Returns:
        The findings, most important first; empty when nothing is wrong. `print` shows them.

    Raises:
        ValueError: for a result that does not know its run: one that was put together by hand, or with no step taken.

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.numpy.linspace(-1, 1, 30)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(5,))
        >>> start = model.init(jax.random.key(0))
        >>> result = cx.train(model, cx.SquaredError(), cx.L2(), start, (x, x**2), strength=100.0)
        >>> cx.explain(result).names
        ('strength too large',)
    """
    if result.setup is None or not len(result.history["status"]):
        raise ValueError(
            "`explain(result)`: the result must be one of `train`, with a Gauss-Newton step taken or "
            "tried; optax optimizers report too little of themselves."
        )
    return explain_fit(result.best_params, result.best_strength, result.status, result.history, result.setup)


def explain_fit(
    params: Any, strength: float, status: RunStatus, history: Mapping[str, Any], setup: RunSetup
) -> Diagnosis:
    """The same from the parts of a result, for those who keep parts alone."""
    # Runs that went wrong hold numbers whose squares overflow.
    with np.errstate(all="ignore"):
        facts = gather(params, strength, status, history, setup)
        return Diagnosis([finding for signature in _SIGNATURES for finding in signature(facts)])
