"""The ways to train that experiments compare, by the names that records and pictures use."""

from collections.abc import Callable
from typing import Any

import optax

import concordax as cx

PUBLISHED = "published"
CORRECTED = "corrected"
TRUST_REGION = "trust region"
EVIDENCE = "evidence"
GRADIENT_DESCENT = "gradient descent"
MOMENTUM = "momentum"
ADAM = "Adam"
LBFGS = "L-BFGS"

NOTES = (
    "published: damping 1 - strength and PublishedStep, as in the authors' code; corrected: PublishedStep without "
    "damping; trust region: TrustRegion, on mini-batches StochasticTrustRegion; evidence: TrustRegion with a strength "
    "that the data choose.",
    "gradient descent, momentum (0.9), Adam and L-BFGS minimise the same objective; the first three with the rate of "
    "`tried` that ends at the lowest training loss. `search_seconds` is the time of all rates together.",
)
_WITH_RATE: dict[str, Callable[[float], Any]] = {
    GRADIENT_DESCENT: optax.sgd,
    MOMENTUM: lambda rate: optax.sgd(rate, momentum=0.9),
    ADAM: optax.adam,
}
FIRST_ORDER = (*_WITH_RATE, LBFGS)


def needs_rate(mode: str) -> bool:
    """Whether a rate has to be searched for."""
    return mode in _WITH_RATE


def options(mode: str, *, strength: float, scale: float, rate: float | None = None) -> dict[str, Any]:
    """What `train` is given for one way to train.

    Args:
        mode: a name of this module.
        strength: τ; where the evidence chooses it begins.
        scale: the numerator of `PublishedStep`.
        rate: the learning rate, where one is needed.

    Returns:
        Keyword arguments.

    Example:
        >>> options("corrected", strength=1e-4, scale=0.95)
        {'strength': 0.0001, 'step': PublishedStep(scale=0.95)}
    """
    if mode == PUBLISHED:
        return {"strength": strength, "step": cx.PublishedStep(scale), "damping": max(0.0, 1 - strength)}
    if mode == CORRECTED:
        return {"strength": strength, "step": cx.PublishedStep(scale)}
    if mode == TRUST_REGION:
        return {"strength": strength}
    if mode == EVIDENCE:
        return {"strength": cx.Evidence(initial=strength)}
    if mode == LBFGS:
        return {"strength": strength, "optimizer": optax.lbfgs()}
    if mode in _WITH_RATE and rate is not None:
        return {"strength": strength, "optimizer": _WITH_RATE[mode](rate)}
    raise ValueError(f"mode={mode!r}, rate={rate!r}: no way to train.")
