"""The slopes that the experiment on tangent kernels found, as one record.

    concordax reproduce ntk --full --output-dir build/published
    python benchmarks/ntk_experiment.py build/published --output benchmarks/records/ntk_experiment.json

The record of the experiment holds every number; kept here are the fitted slopes, and medians over the seeds.
"""

from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np
from results import summarize

from concordax.experiments import ntk
from concordax.experiments.record import Record

_REGULARIZERS = (ntk.NONE, ntk.CHANGE, ntk.PARAMETERS)


def measure(folders: list[Path]) -> dict:
    """What the record of the last folder that has one comes to."""
    files = [file for folder in folders if (file := folder / "ntk" / "ntk.json").is_file()]
    if not files:
        raise SystemExit(f"{', '.join(map(str, folders))}: no record; `concordax reproduce ntk` writes it.")
    record = Record.load(files[-1])
    cells = record.curves
    return {
        "slopes": ntk.slopes(cells),
        "distance": _medians(cells, "distance", "distance", ("regularizer", "depth", "activation", "width")),
        "eigenvalue": _medians(cells, "eigenvalue", "smallest", ("depth", "activation", "width", "rows")),
        "limit": _medians(cells, "eigenvalue", "limit", ("depth", "activation", "rows")),
        "curve": _medians(cells, "curve", "error", ("scale", "depth", "activation", "width")),
        "config": record.config,
        "seeds": len(record.seeds),
        "runs": len(cells),
        "versions": record.versions,
        "machine": record.machine,
    }


def _medians(cells: Iterable, question: str, quantity: str, names: tuple[str, ...]) -> list[dict]:
    """The median over the seeds for each setting; a run that did not end counts as infinitely far."""
    found: dict[tuple, list[float]] = {}
    for cell in cells:
        if cell["question"] == question:
            value = cell[quantity]
            found.setdefault(tuple(cell[name] for name in names), []).append(np.inf if value is None else value)
    rows = ((key, median(values)) for key, values in found.items())
    return [
        {**dict(zip(names, key, strict=True)), quantity: value if np.isfinite(value) else None} for key, value in rows
    ]


def markdown(record: dict) -> str:
    """Slopes and distances, how near the smallest eigenvalues are to their limit, where predicted curves hold."""
    return "\n".join([*_slopes(record), "", *_eigenvalues(record), "", *_curves(record), "", _made(record), ""])


def _networks(record: dict) -> list[tuple[int, str]]:
    return list(dict.fromkeys((row["depth"], row["activation"]) for row in record["slopes"]))


def _slopes(record: dict) -> list[str]:
    slopes = {(r["quantity"], r["depth"], r["activation"], r["regularizer"]): r for r in record["slopes"]}
    lines = [
        "Slopes over the width from 64 up, in logarithms, ± one standard error; in brackets the distance at the "
        "widest.",
        "",
        "| network | distance, no regularizer | held at the start | drawn to zero | drift, no regularizer "
        "| held at the start | drawn to zero | kernel from its limit |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    # Widths rise: the last of them stays.
    widest = {(r["depth"], r["activation"], r["regularizer"]): r["distance"] for r in record["distance"]}

    def shown(quantity: str, *kind) -> str:
        row = slopes[quantity, *kind]
        return f"{row['slope']:.2f} ± {row['error']:.2f}"

    for network in _networks(record):
        distances = [f"{shown('distance', *network, r)} ({widest[*network, r]:.1%})" for r in _REGULARIZERS]
        drifts = [shown("drift", *network, r) for r in _REGULARIZERS]
        entries = [*distances, *drifts, shown("from_limit", *network, "")]
        lines.append(f"| {_named(*network)} | {' | '.join(entries)} |")
    return lines


def _named(depth: int, activation: str) -> str:
    return f"{depth} hidden layer{'s' if depth > 1 else ''}, {activation}"


def _eigenvalues(record: dict) -> list[str]:
    limits = {(r["depth"], r["activation"], r["rows"]): r["limit"] for r in record["limit"]}
    rows = record["config"]["eigenvalue_rows"]
    lines = [
        "Smallest eigenvalue of the kernel in the limit of infinite width, and in brackets that of the widest network "
        "as a share of it, by the number of rows.",
        "",
        f"| network | {' | '.join(map(str, rows))} |",
        f"|---|{'---|' * len(rows)}",
    ]  # fmt: skip
    for depth, activation in _networks(record):
        mine = [r for r in record["eigenvalue"] if (r["depth"], r["activation"]) == (depth, activation)]
        widest = max(each["width"] for each in mine)
        own = {each["rows"]: each["smallest"] for each in mine if each["width"] == widest}
        shown = [
            f"{limits[depth, activation, n]:.2g} ({own[n] / limits[depth, activation, n]:.0%})" for n in rows
        ]  # fmt: skip
        lines.append(f"| {_named(depth, activation)} (width {widest}) | {' | '.join(shown)} |")
    return lines


def _curves(record: dict) -> list[str]:
    scales, steps = record["config"]["scales"], record["config"]["curve_steps"]
    lines = [
        f"The least width from which on the predicted √loss of {steps} steps is within a tenth of the measured one, by "
        "the scale of the targets; in brackets the largest deviation at the widest.",
        "",
        f"| network | {' | '.join(f'× {scale:g}' for scale in scales)} |",
        f"|---|{'---|' * len(scales)}",
    ]  # fmt: skip
    for depth, activation in _networks(record):
        shown = []
        for scale in scales:
            mine = [
                (each["width"], np.inf if each["error"] is None else each["error"])
                for each in record["curve"]
                if (each["depth"], each["activation"], each["scale"]) == (depth, activation, scale)
            ]
            mine.sort()
            failing = [width for width, error in mine if error > 0.1]
            holding = [width for width, _ in mine if width > max(failing, default=0)]
            shown.append(f"{min(holding, default='none')} ({mine[-1][1]:.1%})")
        lines.append(f"| {_named(depth, activation)} | {' | '.join(shown)} |")
    return lines


def _made(record: dict) -> str:
    config = record["config"]
    return (
        f"{record['runs']} measurements, {record['seeds']} seeds; {config['rows']} rows of {config['inputs']} inputs, "
        f"strength {config['strength']:g}."
    )


if __name__ == "__main__":
    summarize(__doc__, measure, markdown)
