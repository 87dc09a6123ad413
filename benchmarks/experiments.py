"""The findings of a reproduction as one record.

    concordax reproduce all --output-dir build/small
    concordax reproduce uci mnist --full --data-dir DIR --output-dir build/published
    python benchmarks/experiments.py build/small build/published --output benchmarks/records/experiments.json

The folders' records hold every number; what is kept here are the findings, and how each experiment was run. A later
folder takes the place of an earlier one, and experiments that no folder holds stay as the output has them.
"""

import json
from dataclasses import asdict
from pathlib import Path

from results import summarize

from concordax.experiments.findings import findings
from concordax.experiments.names import ENTRIES
from concordax.experiments.record import Record
from concordax.experiments.registry import experiment

_MARKS = {"holds": "holds", "holds in part": "in part", "does not hold": "**no**", "answered": ""}


def measure(folders: list[Path]) -> dict:
    """Findings of the records in folders, and what these were made of."""
    files = {name: [folder / name / f"{name}.json" for folder in folders] for name in ENTRIES}
    found = {name: [file for file in places if file.is_file()] for name, places in files.items()}
    records = {name: Record.load(there[-1]) for name, there in found.items() if there}
    if not records:
        raise SystemExit(f"{', '.join(map(str, folders))}: no records; `concordax reproduce` writes them.")
    first = next(iter(records.values()))
    return {
        "findings": [
            {"experiment": name, **finding._asdict()}
            for name, record in records.items()
            for finding in findings({name: record})
        ],
        "experiments": {name: _made(record) for name, record in records.items()},
        "versions": first.versions,
        "machine": first.machine,
    }


def _made(record: Record) -> dict:
    steps = [cell["seconds"][-1] for cell in record.curves if isinstance(cell.get("seconds"), list)]
    return {
        "sizes": _sizes(record),
        "runs": len(record.curves),
        "seeds": len(record.seeds),
        "hours_of_steps": round(sum(steps) / 3600, 3),
        "sources": record.config.get("sources", {}),
        "started": record.started,
        "versions": record.versions,
        "machine": record.machine,
    }


def onto(old: dict, new: dict) -> dict:
    """The new record, with the experiments that are in the old one alone."""
    where = {key: old[key] for key in ("versions", "machine")}
    made = {name: where | each for name, each in old["experiments"].items()} | new["experiments"]
    kept = [each for each in old["findings"] if each["experiment"] not in new["experiments"]]
    order = list(ENTRIES)
    return new | {
        "findings": sorted([*kept, *new["findings"]], key=lambda each: order.index(each["experiment"])),
        "experiments": {name: made[name] for name in order if name in made},
    }


def _sizes(record: Record) -> str:
    """Which of an experiment's sizes a record has, whatever its data and seeds."""
    made = experiment(record.name)
    shown = json.loads(json.dumps({key: value for key, value in record.config.items() if key != "sources"}))
    known = {"published": made.full, "small": made.quick}
    return next((size for size, config in known.items() if json.loads(json.dumps(asdict(config))) == shown), "other")


def markdown(record: dict) -> str:
    """The findings as a table, the open questions as another, and how many runs they stand on."""
    claims = [each for each in record["findings"] if each["verdict"] != "answered"]
    questions = [each for each in record["findings"] if each["verdict"] == "answered"]
    sizes = {name: made["sizes"] for name, made in record["experiments"].items()}
    lines = ["| claim, and where | published | corrected | trust region | sizes | verdict |"]
    lines.append("|---|---|---|---|---|---|")
    for each in claims:
        seen = " | ".join(each[name] for name in ("published", "corrected", "ours"))
        size, verdict = sizes[each["experiment"]], _MARKS[each["verdict"]]
        lines.append(f"| {each['claim']} *{each['where']}* | {seen} | {size} | {verdict} |")
    lines += ["", "How each verdict follows:", ""]
    lines += [f"- {each['claim']} {each['rule']}" for each in claims]
    lines += ["", "What the paper leaves open:", ""]
    lines += ["| question | published | corrected | this library | sizes |", "|---|---|---|---|---|"]
    for each in questions:
        seen, size = " | ".join(each[name] for name in ("published", "corrected", "ours")), sizes[each["experiment"]]
        lines.append(f"| {each['claim'].replace(' (left open)', '')} {each['rule']} | {seen} | {size} |")
    made = [
        f"{name} {each['runs']} runs ({each['sizes']} sizes, seeds: {each['seeds']})"
        for name, each in record["experiments"].items()
    ]
    return "\n".join([*lines, "", f"Runs: {', '.join(made)}.", ""])


if __name__ == "__main__":
    summarize(__doc__, measure, markdown, onto)
