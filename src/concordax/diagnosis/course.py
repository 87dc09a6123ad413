"""Signatures in the course of a run: steps that failed, were short, or went up."""

from collections.abc import Iterator

import numpy as np

from .._status import RunStatus, StepStatus
from ..steps import FixedStep, PublishedStep
from .facts import Facts
from .finding import Finding, Severity

# Refused steps that a good run may have: a few at its end, where rounding decides.
_FEW, _SHARE = 3, 0.1
# Of a step size: below a twentieth a run takes twenty steps for one.
_SHORT = 0.05
# A rise or fall of F that is more than rounding and more than a tolerance.
_VISIBLE = 0.01


def nonfinite(facts: Facts) -> Iterator[Finding]:
    """Data, parameters or outputs that are not finite."""
    if facts.status != RunStatus.NONFINITE and StepStatus.NONFINITE_START not in facts.codes:
        return
    bad = int(np.sum(~np.isfinite(facts.flat)))
    evidence = {
        "parameters that are not finite": bad,
        "outputs that are not finite": int(np.sum(~np.isfinite(facts.outputs))),
        "largest weight": _largest(facts.flat),
        "largest target": _largest(facts.targets),
    }
    if facts.inputs is not None:
        evidence["largest input"] = _largest(facts.inputs)
    change = (
        "Start from finite parameters: look at where they come from."
        if bad
        else "Scale inputs and targets to about one, or see why the model returns no finite numbers at this start."
    )
    meaning = "The objective or the Jacobian is not finite at the parameters, so no step could be computed."
    yield Finding("not finite", Severity.SERIOUS, evidence, meaning, change)


def rising(facts: Facts) -> Iterator[Finding]:
    """An objective that goes up."""
    objective = facts.history["objective"]
    objective = objective[np.isfinite(objective)]
    if not facts.comparable or len(objective) < 2:
        return
    rises = np.diff(objective) > _VISIBLE * np.abs(objective[:-1])
    if not rises.any():
        return
    lost = objective[-1] > (1 + _VISIBLE) * objective[0] or objective[-1] > 2 * objective.min()
    evidence = {
        "steps that rose": int(rises.sum()),
        "of": len(objective),
        "first objective": float(objective[0]),
        "lowest": float(objective.min()),
        "last": float(objective[-1]),
    }
    yield Finding(
        "rising objective",
        Severity.SERIOUS if lost else Severity.WARNING,
        evidence,
        f"{_name(facts)} takes its step whether the objective falls or not, and the linearised model does not hold "
        "that far.",
        "Use step=TrustRegion(), under which it never rises, or a shorter step or more damping.",
    )


def rejected(facts: Facts) -> Iterator[Finding]:
    """Steps that were refused."""
    refused = (facts.codes >= StepStatus.REJECTED) & (facts.codes != StepStatus.NONFINITE_START)
    stalled = facts.status in (RunStatus.STALLED, RunStatus.FACTORIZATION_FAILED)
    count = int(refused.sum())
    if not stalled and count < max(_FEW, _SHARE * len(refused)):
        return
    failed = int(np.sum(facts.codes == StepStatus.FACTORIZATION_FAILED))
    wild = int(np.sum(facts.codes == StepStatus.NONFINITE_TRIAL))
    change = "Use float64 (the precision may be exhausted), or a model that is smooth where it stands."
    if failed:
        change = "Use float64, or a larger strength or damping."
    elif wild:
        change = "Use step=TrustRegion(), which shortens such a step until it can be taken."
    elif getattr(facts.setup.algorithm.step, "max_attempts", 12) < 12:
        change = "Let TrustRegion() try more often, 12 times by default; or use float64, or a smoother model."
    yield Finding(
        "rejected steps",
        Severity.SERIOUS if stalled else Severity.WARNING,
        {
            "rejected": count,
            "of": len(refused),
            "not finite": wild,
            "not factorized": failed,
            "trials a step": float(facts.history["attempts"].mean()),
            "last damping": float(facts.history["damping"][-1]),
        },
        "Steps were computed and not taken; the parameters stayed where they were.",
        change,
    )


def short(facts: Facts) -> Iterator[Finding]:
    """Steps of a small fraction of the direction."""
    sizes = facts.history["step_size"][facts.history["accepted"] > 0]
    if not sizes.size or np.median(sizes) >= _SHORT:
        return
    step = facts.setup.algorithm.step
    why = "its rule or its setting makes it so."
    if isinstance(step, PublishedStep):
        why = "M η is large, because the strength is, or the smoothing small. The published bound grows with p too."
    elif isinstance(step, FixedStep):
        why = f"FixedStep({step.size:g}) asks for it."
    yield Finding(
        "short steps",
        Severity.WARNING,
        {"median step size": float(np.median(sizes)), "smallest": float(sizes.min()), "steps": int(sizes.size)},
        f"Half of the steps of {_name(facts)} go less than a twentieth of the way to the model's minimum: {why}",
        "Use step=TrustRegion().",
    )


def solver_misses(facts: Facts) -> Iterator[Finding]:
    """Solves that did not reach their tolerance."""
    missed = (facts.history["solver_converged"] == 0) | (facts.history["handed_over"] > 0)
    if missed.mean() <= _SHARE:
        return
    yield Finding(
        "solver missing its tolerance",
        Severity.WARNING,
        {
            "steps with a miss": int(missed.sum()),
            "of": len(missed),
            "handed over": int(np.sum(facts.history["handed_over"] > 0)),
            "iterations a step": float(facts.history["solver_iterations"].mean()),
        },
        "Conjugate gradients ran out of iterations: directions are inexact, or were computed twice.",
        "Use solver=Dual() or Primal() where they fit in memory (Auto() says), more iterations, or a larger strength.",
    )


def unfinished(facts: Facts) -> Iterator[Finding]:
    """A run that was cut off while its objective was still falling."""
    objective = facts.history["objective"]
    if facts.status != RunStatus.MAX_STEPS or not facts.comparable or len(objective) < 2:
        return
    back = max(1, len(objective) // 10)
    fall = (objective[-1 - back] - objective[-1]) / max(abs(objective[-1]), np.finfo(float).tiny)
    if fall > _VISIBLE:
        yield Finding(
            "unfinished",
            Severity.NOTE,
            {"steps": len(objective), "last objective": float(objective[-1]), f"its fall over {back}": float(fall)},
            "max_steps ended the run while the objective was still falling.",
            "Raise max_steps, or go on with `train(..., result.params, state=result.state)`.",
        )


def _largest(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.abs(finite).max(initial=0.0))


def _name(facts: Facts) -> str:
    return type(facts.setup.algorithm.step).__name__
