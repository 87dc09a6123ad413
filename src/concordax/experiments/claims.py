"""The paper's claims beside the records: those of the abstract, and of the figures that the authors' code draws."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from . import methods, ntk, traced
from .finding import (
    FAILS,
    HOLDS,
    MODES,
    OPEN,
    PARTLY,
    Cell,
    Finding,
    by,
    first_below,
    found,
    last,
    of,
    rank_correlation,
    told,
)


def loss_curves(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Speed beside gradient descent, and what the published learning rate leaves on the table."""
    for start, mine in (("usual", of(cells, start="usual")), ("lazy", of(cells, start="lazy"))):
        descent = of(mine, mode=methods.GRADIENT_DESCENT)
        if not descent:
            continue
        level, steps, seconds = (last(descent, name) for name in ("train_loss", "iteration", "seconds"))
        reached = {
            mode: tuple(map(statistics.median, zip(*(first_below(c, level) for c in of(mine, mode=mode)), strict=True)))
            for mode in MODES
        }  # fmt: skip
        words = {
            mode: f"{told(pair[0])} steps, {told(pair[1])} s" if math.isfinite(pair[0]) else "not reached"
            for mode, pair in reached.items()
        }
        faster = [reached[methods.PUBLISHED][0] < steps, reached[methods.PUBLISHED][1] < seconds]
        yield found(
            f"Fewer steps and less time than gradient descent to the same training loss ({start} start).",
            "abstract; traintestloss-vs-epoch-time.jl",
            *(words[mode] for mode in MODES),
            HOLDS if all(faster) else PARTLY if any(faster) else FAILS,
            f"The published step is ahead in both; gradient descent's best rate ends at {told(level)} after "
            f"{steps:g} steps and {told(seconds)} s.",
        )  # fmt: skip
        ends = {mode: last(of(mine, mode=mode), "train_loss") for mode in reached}
        share = ends[methods.PUBLISHED] / max(ends[methods.TRUST_REGION], 1e-300)
        yield found(
            f"The adaptive learning rate needs little to no tuning for optimal performance ({start} start).",
            "abstract",
            *(f"training loss {told(ends[mode])}" for mode in reached),
            HOLDS if share <= 2 else PARTLY if share <= 100 else FAILS,
            "At equal steps the published step ends within twice (in part: a hundred times) the trust region's loss.",
        )


def strength(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Generalization and zeros against τ."""
    tests = {mode: by(of(cells, mode=mode), "strength", "test_loss") for mode in MODES}
    words: dict[str, str] = dict.fromkeys(MODES, "-")
    gains: dict[str, float] = {}
    for mode, curve in tests.items():
        if curve:
            best = min(curve, key=curve.__getitem__)
            gains[mode] = _gain(curve, best, of(cells, mode=mode))
            words[mode] = f"best {told(curve[best])} at τ = {best:.2g}, {told(gains[mode])}x below τ → 0"
    shown = [gains[mode] >= 1.5 for mode in (methods.PUBLISHED, methods.TRUST_REGION) if mode in gains]
    yield found(
        "Regularization improves generalization: the test loss has its minimum at a positive strength.",
        "abstract; testloss-vs-tau.jl",
        *(words[mode] for mode in MODES),
        HOLDS if shown and all(shown) else PARTLY if any(shown) else FAILS,
        "The best test loss is 1.5 times below that of the least strength, for the published step and the trust region "
        "(in part: for one of them). Two runs that ended at the loss floor count as equal.",
    )
    zeros = {mode: by(of(cells, mode=mode), "strength", "zeros") for mode in MODES}
    ranks = {mode: rank_correlation(curve) for mode, curve in zeros.items()}
    known = [rank for rank in ranks.values() if not math.isnan(rank)]
    yield found(
        "Zeros grow in number with the strength.",
        "testloss-vs-tau.jl",
        *(f"rank correlation {told(ranks[mode])}" for mode in MODES),
        HOLDS if min(known) > 0.8 else PARTLY if max(known) > 0.5 else FAILS,
        "Rank correlation of strength and zeros above 0.8 in all modes (in part: above 0.5 in one).",
    )
    evidence = of(cells, mode=methods.EVIDENCE)
    if evidence:
        reached, best = last(evidence, "test_loss"), min(tests[methods.TRUST_REGION].values())
        yield found(
            "Which strength? (left open)", "testloss-vs-tau.jl", "a sweep", "a sweep",
            f"evidence: τ = {last(evidence, 'strength_chosen'):.2g}, test loss {told(reached)}; best of the sweep "
            f"{told(best)}",
            OPEN, "The evidence's test loss beside the best of the sweep.",
        )  # fmt: skip


def _gain(curve: Mapping[float, float], best: float, cells: Sequence[Cell]) -> float:
    """How far the test loss at the best strength lies below that at the least one, by the curve of these cells."""
    least = min(curve)
    # Where both were stopped by their training loss, they differ by how far the last step went below the floor.
    stopped = [cell["ended"] == traced.FLOOR for cell in cells if cell["strength"] in (least, best)]
    return 1.0 if all(stopped) else curve[least] / curve[best]


def smoothing(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Generalization and speed against μ."""
    tests = {mode: by(of(cells, mode=mode), "smoothing", "test_loss") for mode in MODES}
    words = {
        mode: f"from {told(min(curve.values()))} (μ = {min(curve, key=curve.__getitem__):.2g}) to "
        f"{told(max(curve.values()))}" if curve else "-"
        for mode, curve in tests.items()
    }  # fmt: skip
    trusted = tests[methods.TRUST_REGION]
    spread = max(trusted.values()) / min(trusted.values())
    yield found(
        "The smoothing matters for generalization.", "testloss-vs-mu.jl", *(words[mode] for mode in MODES),
        HOLDS if spread >= 2 else FAILS,
        "The trust region's test loss moves by a factor of two or more over the sweep.",
    )  # fmt: skip
    yield found(
        "How does the smoothing change the rate? (left open)", "testloss-vs-mu.jl",
        *(_pace(of(cells, mode=mode)) for mode in MODES),
        OPEN, "Steps until a run has settled, reached the loss floor or diverged; at most as many as it was given.",
    )  # fmt: skip
    chosen = by(of(cells, mode=methods.EVIDENCE), "smoothing", "test_loss")
    if chosen:
        yield found(
            "Does the smoothing matter where the data choose the strength? (left open)", "testloss-vs-mu.jl", "-", "-",
            f"evidence: from {told(min(chosen.values()))} to {told(max(chosen.values()))}, a factor of "
            f"{told(max(chosen.values()) / min(chosen.values()))}; at a fixed strength {told(spread)}",
            OPEN, "The spread of the test loss over the smoothings.",
        )  # fmt: skip


def _pace(cells: Sequence[Cell]) -> str:
    """Steps at the least and the largest smoothing, and up to which one runs diverge."""
    steps = by(cells, "smoothing", "steps")
    if not steps:
        return "-"
    left = [cell["smoothing"] for cell in cells if cell["ended"] == traced.LEFT]
    words = f"{steps[min(steps)]:g} steps at μ = {min(steps):.2g}, {steps[max(steps)]:g} at {max(steps):.2g}"
    return f"{words}; {len(left)} of {len(cells)} runs diverge, all at μ ≤ {max(left):.2g}" if left else words


def digits(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Accuracy after an epoch or two, and the stability of activations."""
    name = cells[0]["dataset"]
    yield _accuracy(cells, f"GGN-SCORE trains wide networks on {name} by squared error in an epoch or two.")
    yield _stability(cells, f"Activations are stable during training on {name} (T-I measure).")


def imitation(cells: Sequence[Cell]) -> Iterator[Finding]:
    """The same of a student that learns a teacher's probabilities."""
    name = cells[0]["dataset"]
    yield _accuracy(cells, f"GGN-SCORE trains a wide student of a small teacher on {name} in two epochs.")
    yield _stability(cells, f"The student's activations are stable during training on {name} (T-I measure).")


def _accuracy(cells: Sequence[Cell], claim: str) -> Finding:
    best = {
        mode: max([last([cell], "test_accuracy") for cell in of(cells, mode=mode)], default=math.nan) for mode in MODES
    }  # fmt: skip
    alike, more = (
        {mode: last(of(cells, mode=mode), "test_accuracy") for mode in modes if of(cells, mode=mode)}
        for modes in ((methods.MOMENTUM, methods.ADAM), (methods.LBFGS,))
    )
    reached = best[methods.PUBLISHED] + 0.005
    told_alike, told_more = (
        ", ".join(f"{mode} {share:.1%}" for mode, share in shares.items()) or "nothing" for shares in (alike, more)
    )
    return found(
        claim, "real-data-exp.jl", *(f"best test accuracy {_percent(best[mode])}" for mode in MODES),
        HOLDS if reached >= max([*alike.values(), *more.values()], default=0.0)
        else PARTLY if reached >= max(alike.values(), default=0.0) else FAILS,
        "The best of the published sweeps is within half a percent of every first-order way (in part: of those with as "
        f"many epochs). As many epochs: {told_alike}; on all rows at once, a hundred passes and more: {told_more}.",
    )  # fmt: skip


def _stability(cells: Sequence[Cell], claim: str) -> Finding:
    kept = {mode: [cell["sign_kept"] for cell in of(cells, mode=mode)] for mode in MODES}
    least = min(min(values) for values in kept.values() if values)
    return found(
        claim, "real-data-exp.jl, activation_stability",
        *(f"{min(kept[mode]):.0%} to {max(kept[mode]):.0%}" if kept[mode] else "-" for mode in MODES),
        HOLDS if least > 0.9 else PARTLY if statistics.median(itertools.chain(*kept.values())) > 0.9 else FAILS,
        "More than 90 % of the signs are kept in all runs (in part: in the median run).",
    )  # fmt: skip


def tables(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Accuracy beside gradient descent with many times the epochs."""
    for name in dict.fromkeys(cell["dataset"] for cell in cells):
        mine = of(cells, dataset=name)
        modes = (*MODES, methods.GRADIENT_DESCENT, methods.MOMENTUM, methods.ADAM, methods.LBFGS)
        ends = {
            mode: (last(of(mine, mode=mode), "test_accuracy"), last(of(mine, mode=mode), "seconds")) for mode in modes
        }
        words = {mode: f"{_percent(share)} in {told(seconds)} s" for mode, (share, seconds) in ends.items()}
        ahead = [
            ends[mode][0] > ends[methods.GRADIENT_DESCENT][0] for mode in (methods.PUBLISHED, methods.TRUST_REGION)
        ]
        yield found(
            f"{name}: more accurate than gradient descent with many times the epochs.", "real-data-exp.jl, RunExpAny",
            *(words[mode] for mode in MODES), HOLDS if ahead[0] else PARTLY if ahead[1] else FAILS,
            "The published step ends above gradient descent's test accuracy (in part: the trust region does). "
            + "; ".join(f"{mode} {words[mode]}" for mode in modes[3:] if of(mine, mode=mode)) + ".",
        )  # fmt: skip


def kernels(cells: Sequence[Cell]) -> Iterator[Finding]:
    """How near a trained network is to regression with its tangent kernel, as it grows."""
    kinds = {
        "": (ntk.NONE, ntk.CHANGE),
        ", under a regularizer that draws its parameters to zero": (ntk.PARAMETERS,),
    }
    for which, regularizers in kinds.items():
        distances = [cell for cell in of(cells, question="distance") if cell["regularizer"] in regularizers]
        slopes = [row["slope"] for row in ntk.slopes(distances) if row["quantity"] == "distance"]
        steepest, flattest = (pick(slopes, default=math.nan) for pick in (min, max))
        widest = max((cell["width"] for cell in distances), default=0)
        yield found(
            f"A trained network is close to neural tangent kernel regression, the closer the wider{which}.", "abstract",
            "-", "-",
            f"distance ~ width^({told(steepest)} to {told(flattest)}); at width {widest}: "
            f"{_percent(last(of(distances, width=widest), 'distance'))}",
            HOLDS if flattest <= -0.35 else PARTLY if steepest <= -0.35 else FAILS,
            "Slopes of the distance against width, in logarithms, are -0.35 or below for all networks (in part: for "
            "some); theory has -1/2 or below, where nothing draws the weights away from their start.",
        )  # fmt: skip


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"
