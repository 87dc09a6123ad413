"""The findings of a reproduction as one record.

    concordax reproduce all --full --data-dir DIR --output-dir build/reproduction
    python benchmarks/experiments.py build/reproduction --output benchmarks/records/experiments.json

The folder's records hold every number; what is kept here are the findings, and how each experiment was run.
"""

import argparse
import json
from pathlib import Path

from concordax.experiments.findings import findings
from concordax.experiments.names import ENTRIES
from concordax.experiments.record import Record

_MARKS = {"holds": "holds", "holds in part": "in part", "does not hold": "**no**", "answered": ""}


def measure(folder: Path) -> dict:
    """Findings of the records in a folder, and what these were made of."""
    files = {name: folder / name / f"{name}.json" for name in ENTRIES}
    records = {name: Record.load(file) for name, file in files.items() if file.is_file()}
    if not records:
        raise SystemExit(f"{folder} holds no records; `concordax reproduce` writes them.")
    first = next(iter(records.values()))
    return {
        "findings": [finding._asdict() for finding in findings(records)],
        "experiments": {name: _made(record) for name, record in records.items()},
        "versions": first.versions,
        "machine": first.machine,
    }


def _made(record: Record) -> dict:
    steps = [cell["seconds"][-1] for cell in record.curves if isinstance(cell.get("seconds"), list)]
    return {
        "runs": len(record.curves),
        "seeds": len(record.seeds),
        "hours_of_steps": round(sum(steps) / 3600, 3),
        "sources": record.config.get("sources", {}),
        "started": record.started,
    }


def markdown(record: dict) -> str:
    """The findings as a table, the open questions as another, and how many runs they stand on."""
    claims = [each for each in record["findings"] if each["verdict"] != "answered"]
    questions = [each for each in record["findings"] if each["verdict"] == "answered"]
    lines = ["| claim, and where | published | corrected | trust region | verdict |", "|---|---|---|---|---|"]
    for each in claims:
        seen = " | ".join(each[name] for name in ("published", "corrected", "ours"))
        lines.append(f"| {each['claim']} *{each['where']}* | {seen} | {_MARKS[each['verdict']]} |")
    lines += ["", "How each verdict follows:", ""]
    lines += [f"- {each['claim']} {each['rule']}" for each in claims]
    lines += ["", "What the paper leaves open:", ""]
    lines += ["| question | published | corrected | this library |", "|---|---|---|---|"]
    for each in questions:
        seen = " | ".join(each[name] for name in ("published", "corrected", "ours"))
        lines.append(f"| {each['claim'].replace(' (left open)', '')} {each['rule']} | {seen} |")
    made = [f"{name} {each['runs']} runs ({each['seeds']} seeds)" for name, each in record["experiments"].items()]
    return "\n".join([*lines, "", f"Runs: {', '.join(made)}.", ""])


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
