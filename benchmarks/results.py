"""What a benchmark leaves behind: its numbers, with the versions and the machine they come from."""

import argparse
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from concordax.experiments.record import machine, versions


def write(path: Path, results: dict, *packages: str) -> dict:
    """Writes the results as JSON with the machine and the versions, of `packages` too; returns what was written."""
    record = results | {"versions": versions() | {name: version(name) for name in packages}, "machine": machine()}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return record


def stored_tables(path: Path) -> dict:
    """The tables of the record that is there, for a script to keep what it does not measure anew; else none."""
    return json.loads(path.read_text())["tables"] if path.exists() else {}


def merged(old: list[dict], new: dict) -> list[dict]:
    """Rows, one a split, with the new one in the place of its split."""
    return sorted([row for row in old if row["split"] != new["split"]] + [new], key=lambda row: row["split"])


def summarize(
    description: str,
    measure: Callable[[list[Path]], dict],
    markdown: Callable[[dict], str],
    onto: Callable[[dict, dict], dict] | None = None,
) -> None:
    """The command of a script that sums up what `concordax reproduce` left in folders: writes and prints its record.

    Versions and machine are those of the runs, which `measure` takes over; `onto(old, new)` makes one record of that
    which the output holds and the new one, which otherwise takes its place.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    record = measure(arguments.folders)
    if onto is not None and arguments.output and arguments.output.exists():
        record = onto(json.loads(arguments.output.read_text(encoding="utf-8")), record)
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(record))
