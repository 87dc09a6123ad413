"""What an experiment leaves behind: its numbers, with the configuration, versions and machine they come from."""

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from concordax._version import __version__
from concordax.errors import ConcordaxError
from concordax.files import replace_atomically

FORMAT = "concordax record"
FORMAT_VERSION = 1


class ExperimentError(ConcordaxError):
    """A record or a checkpoint cannot be used."""


@dataclass(frozen=True)
class Record:
    """The numbers of one experiment.

    Args:
        name: the experiment.
        config: its configuration.
        curves: one mapping a run: mode, seed, iteration [k], seconds [k], train_loss [k], test_loss [k]; with a rate
            chosen among several, also `rate` and `tried`, the outcome of each.
        seeds: the seeds that were run.
        versions: of Python and of the packages that decide the numbers.
        machine: platform, processor, cores and JAX backend.
        started: when, in ISO 8601.
        notes: what the numbers mean, one sentence or two each.
    """

    name: str
    config: dict[str, Any]
    curves: list[dict[str, Any]]
    seeds: list[int]
    versions: dict[str, str]
    machine: dict[str, Any]
    started: str
    notes: list[str]

    def save(self, path: Path) -> None:
        """Writes JSON, whole or not at all; numbers that are not finite become null.

        Args:
            path: where to; an existing file is replaced.

        Raises:
            UsageError: something else than a file is there.
            OSError: it could not be written; a file that was there before is as it was.
        """
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        text = json.dumps(finite(content), indent=1, allow_nan=False, ensure_ascii=False)
        with replace_atomically(path) as file:
            file.write(text.encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Reads what `save` wrote.

        Args:
            path: the file.

        Returns:
            The record.

        Raises:
            ExperimentError: the file is damaged, no record, or of another format version.
            OSError: it could not be read.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ExperimentError(f"{str(path)!r} is damaged or no record: {error}.") from error
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise ExperimentError(f"{str(path)!r} is no record; an experiment's `run` writes one.")
        if stored.get("format_version") != FORMAT_VERSION:
            raise ExperimentError(
                f"{str(path)!r} has format version {stored.get('format_version')}; this concordax reads "
                f"{FORMAT_VERSION}: use the version that wrote it, or run the experiment again."
            )
        missing = [field.name for field in fields(cls) if field.name not in stored]
        if missing:
            raise ExperimentError(f"{str(path)!r} is damaged: {', '.join(missing)} missing. Run the experiment again.")
        return cls(**{field.name: stored[field.name] for field in fields(cls)})


def finite(value: Any) -> Any:
    """JSON values with null for every number that is not finite."""
    # JSON has no NaN: readers other than Python's refuse the token.
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """The versions of Python, of this package, and of those that decide an experiment's numbers."""
    names = ("jax", "jaxlib", "numpy", "optax", "equinox")
    return {
        "python": platform.python_version(),
        "concordax": __version__,
        **{name: metadata.version(name) for name in names},
    }


def machine() -> dict[str, Any]:
    """What seconds depend on, without names of hosts, users or folders."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
    }


def _processor() -> str:
    # Linux tells the processor's model in this file alone.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
