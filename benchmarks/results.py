"""What a benchmark leaves behind: its numbers, with the versions and the machine they come from."""

import json
from importlib.metadata import version
from pathlib import Path

from concordax.experiments.record import machine, versions


def write(path: Path, results: dict, *packages: str) -> dict:
    """Writes the results as JSON with the machine and the versions, of `packages` too; returns what was written."""
    record = results | {"versions": versions() | {name: version(name) for name in packages}, "machine": machine()}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return record
