"""The slopes that the experiment on tangent kernels found, as one record.

    concordax reproduce ntk --full --output-dir build/published
    python benchmarks/ntk_experiment.py build/published --output benchmarks/records/ntk_experiment.json

The record of the experiment holds every number; kept here are the fitted slopes, and medians over the seeds.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np

from concordax.experiments import ntk
from concordax.experiments.record import Record

_REGULARIZERS = (ntk.NONE, ntk.CHANGE, ntk.PARAMETERS)


def measure(folder: Path) -> dict:
    """What the record of a folder comes to."""
    record = Record.load(folder / "ntk" / "ntk.json")
    cells = record.curves
    return {
        "slopes": ntk.slopes(cells),
        "distance": _medians(cells, "distance", "distance", ("regularizer", "depth", "activation", "width")),
        "loss": _medians(cells, "distance", "loss", ("regularizer", "depth", "activation", "width")),
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
    for depth, activation in _networks(record):
        shown = []
        for quantity in ("distance", "drift"):
            for regularizer in _REGULARIZERS:
                row = slopes[quantity, depth, activation, regularizer]
                text = f"{row['slope']:.2f} ± {row['error']:.2f}"
                if quantity == "distance":
                    mine = [
                        each for each in record["distance"]
                        if (each["depth"], each["activation"], each["regularizer"]) == (depth, activation, regularizer)
                    ]  # fmt: skip
                    text += f" ({max(mine, key=lambda each: each['width'])['distance']:.1%})"
                shown.append(text)
        row = slopes["from_limit", depth, activation, ""]
        shown.append(f"{row['slope']:.2f} ± {row['error']:.2f}")
        lines.append(f"| {_named(depth, activation)} | {' | '.join(shown)} |")
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


def main() -> None:
    """Writes the record and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    record = measure(arguments.folder)
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(record))


if __name__ == "__main__":
    main()
