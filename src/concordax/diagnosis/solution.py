"""Signatures where a run ended: strength, smoothing, slopes, scales, digits."""

from collections.abc import Iterator

import numpy as np

from .._status import StepStatus
from .facts import FAR_SMALLER, Facts
from .finding import Finding, Severity

# Share of all rows and units, or of units on all rows, without slope; a ReLU is off on half of the rows by nature.
_FLAT_ENTRIES, _FLAT_UNITS = 0.9, 0.5
# In units of the smoothing: the curvature of pseudo-Huber is within 1.5 % of L2's below the first, and less than
# 1/27,000 of it beyond the second.
_AS_L2, _NO_CURVATURE = 0.1, 30.0
# Scales of inputs: the largest over the smallest, and the largest by itself.
_SCALES, _UNSCALED = 1e3, 1e2
# Outputs that hardly move from row to row, in units of the targets' spread (of 1 for log odds).
_CONSTANT = 0.05
# γ over N, and the rise of the validation loss above its lowest value.
_INTERPOLATES, _RISE = 0.9, 0.1
# A step that would gain so many roundings of F is no rounding error.
_BEYOND_ROUNDING = 100.0


def flat_gradient(facts: Facts) -> Iterator[Finding]:
    """Saturated activations, dead ReLUs."""
    for number, (entries, units) in enumerate(facts.slopes, 1):
        if entries >= _FLAT_ENTRIES or units >= _FLAT_UNITS:
            evidence = {"hidden layer": number, "units without slope": units, "rows and units without slope": entries}
            yield Finding(
                "flat gradient",
                Severity.SERIOUS,
                evidence,
                f"Activations ({facts.setup.algorithm.model.activation}) stand where they hardly have a slope: the "
                "parameters below them get no gradient, and the units are as good as absent.",
                "Standardize the inputs, start from smaller weights or model.init, or use tanh or silu for relu.",
            )
            return


def scales_of_inputs(facts: Facts) -> Iterator[Finding]:
    """Inputs of very different, or very large, scales."""
    if facts.inputs is None or not np.isfinite(facts.inputs).all():
        return
    largest = np.abs(facts.inputs).max(axis=0)
    varied = facts.inputs[:, largest > 0] / largest[largest > 0]
    # Squares of numbers of at most one: those of the inputs themselves may overflow.
    sizes = largest[largest > 0] * np.sqrt(np.mean(varied**2, axis=0))
    if not sizes.size or (sizes.max() <= _SCALES * sizes.min() and sizes.max() <= _UNSCALED):
        return
    yield Finding(
        "scales of inputs",
        Severity.WARNING,
        {"largest root mean square": float(sizes.max()), "smallest": float(sizes.min())},
        "The first layer sees the large inputs alone, or only its saturated ends: weights would have to differ by as "
        "much, and the penalty is against that.",
        "Standardize each input: subtract its mean, divide by its standard deviation.",
    )


def strength_too_large(facts: Facts) -> Iterator[Finding]:
    """A penalty that leaves the network no freedom."""
    spread, wanted = _spreads(facts)
    if _is_adaptive(facts) or not spread <= _CONSTANT * wanted or not _is_held(facts):
        return
    evidence = {"strength": facts.strength, "spread of the outputs": spread, "of the targets": wanted}
    if facts.system is not None:
        evidence |= {"effective parameters": facts.system.gamma}
        evidence |= {f"at {FAR_SMALLER:g} of the strength": facts.system.gamma_far_smaller}
    yield Finding(
        "strength too large",
        Severity.SERIOUS,
        evidence,
        "The penalty holds the parameters: the outputs are the same for every row, whatever the inputs.",
        "Lower the strength by factors of ten, or let the data choose: strength=Evidence().",
    )


def constant_outputs(facts: Facts) -> Iterator[Finding]:
    """Outputs that are the same for all rows though no penalty that was asked for makes them so."""
    spread, wanted = _spreads(facts)
    adaptive = _is_adaptive(facts)
    if not spread <= _CONSTANT * wanted or (_is_held(facts) and not adaptive) or any(flat_gradient(facts)):
        return
    evidence = {"spread of the outputs": spread, "of the targets": wanted}
    evidence |= {"median weight": float(np.median(np.abs(facts.flat))), "strength": facts.strength}
    yield Finding(
        "constant outputs",
        Severity.SERIOUS,
        evidence,
        "The outputs are the same for every row. "
        + (
            "The data chose the strength: to this network they look like noise."
            if adaptive
            else "A smaller strength alone would not change that: the run has not left its start, or stands where the "
            "weights are zero and each layer's gradient vanishes with the others'."
        ),
        "See whether the inputs say anything about the targets; more rows may."
        if adaptive
        else "Start from model.init; on a path over strengths go from small to large; or see whether the inputs vary.",
    )


def strength_too_small(facts: Facts) -> Iterator[Finding]:
    """A network that learns the rows by heart."""
    validation, gamma = facts.history["validation_loss"], _gamma(facts)
    seen = np.isfinite(validation)
    lowest, last = (float(validation[seen].min()), float(validation[seen][-1])) if seen.any() else (np.nan, np.nan)
    rose = bool(seen.any()) and last > (1 + _RISE) * lowest
    full = gamma is not None and gamma > _INTERPOLATES * facts.numbers
    if not rose and not full:
        return
    evidence: dict[str, float | str] = {"strength": facts.strength, "training loss": float(facts.history["loss"][-1])}
    evidence |= {} if gamma is None else {"effective parameters": gamma, "numbers to fit": facts.numbers}
    evidence |= {"lowest validation loss": lowest, "last": last} if seen.any() else {}
    yield Finding(
        "strength too small",
        Severity.WARNING if rose else Severity.NOTE,
        evidence,
        "There are about as many effective parameters as numbers to fit: every row is met, its noise too."
        if full
        else "The validation loss fell and rose again: the network learns the training rows by heart.",
        ("" if _is_adaptive(facts) else "Raise the strength by factors of ten, or let the data choose: Evidence(). ")
        + ("`best_params` are those of the lowest loss." if rose else "Data without noise may be met exactly."),
    )


def smoothing(facts: Facts) -> Iterator[Finding]:
    """A smoothing far from the size of the weights."""
    smoothing = getattr(facts.setup.algorithm.regularizer, "smoothing", None)
    if not isinstance(smoothing, float) or not np.isfinite(facts.flat).all():
        return
    sizes = np.abs(facts.flat)
    largest, median = float(sizes.max()), float(np.median(sizes))
    evidence = {"smoothing": smoothing, "largest weight": largest, "median weight": median}
    spread, wanted = _spreads(facts)
    # A network that is a constant has small weights for another reason.
    if largest < _AS_L2 * smoothing and spread > _CONSTANT * wanted:
        yield Finding(
            "smoothing above the weights",
            Severity.NOTE,
            evidence,
            "All weights lie where the penalty is quadratic: it acts as L2, and makes nothing sparse.",
            "For sparsity lower the smoothing to the size below which a weight may count as zero; else use L2().",
        )
    if median > _NO_CURVATURE * smoothing:
        yield Finding(
            "smoothing below the weights",
            Severity.WARNING,
            evidence,
            "Most weights lie where the penalty has no curvature left: its metric holds them by less than 1/27,000 of "
            "what it does at zero, so steps without a trust region are long there and short near zero.",
            "Raise the smoothing towards the median weight, or the strength, which makes more weights small.",
        )


def digits(facts: Facts) -> Iterator[Finding]:
    """Systems and steps that the precision does not hold."""
    if facts.system is None:
        return
    unit = facts.eps * facts.system.trace
    shift = facts.strength + float(facts.history["damping"][-1])
    helped = facts.system.shift > 1.001 * facts.strength
    last = facts.codes[-1]
    ended_by_rounding = last in (StepStatus.STATIONARY, StepStatus.REJECTED, StepStatus.FACTORIZATION_FAILED)
    rounding = facts.eps * abs(float(facts.history["objective"][-1]))
    open_ended = ended_by_rounding and facts.system.promise > _BEYOND_ROUNDING * rounding
    if not (shift < unit or helped or open_ended):
        return
    yield Finding(
        "digits lost",
        Severity.WARNING,
        {
            "strength + last damping": shift,
            "rounding of the system": unit,
            "shift that its factorization took": facts.system.shift,
            "gain that the undamped model promises": facts.system.promise,
            "rounding of the objective": rounding,
        },
        "The small end of the system's spectrum is rounding error: directions along it are noise, and the run may have "
        "ended because no digit was left, not because it was done.",
        "Use float64: jax.config.update('jax_enable_x64', True) before anything else; or a larger strength."
        if facts.eps > 1e-12
        else "Use a larger strength: this one is below the rounding of float64.",
    )


def _is_adaptive(facts: Facts) -> bool:
    return facts.setup.algorithm.strength.is_adaptive


def _is_held(facts: Facts) -> bool:
    """Whether a far smaller strength would set parameters free; unknown counts as yes."""
    return facts.system is None or facts.system.gamma < 0.5 * facts.system.gamma_far_smaller


def _spreads(facts: Facts) -> tuple[float, float]:
    """How much outputs, and targets, differ from row to row. Log odds have no such targets; 1 stands for them."""
    if not np.isfinite(facts.outputs).all():
        return np.inf, 0.0
    spread = lambda values: float(values.std(axis=0).max())
    return spread(facts.outputs), spread(facts.targets) if facts.setup.algorithm.loss.estimates_noise else 1.0


def _gamma(facts: Facts) -> float | None:
    if facts.system is not None:
        return facts.system.gamma
    known = facts.history["effective_parameters"]
    known = known[np.isfinite(known)]
    return float(known[-1]) if known.size else None

