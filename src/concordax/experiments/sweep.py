"""An experiment as a sweep: many small measurements, each written as soon as it is there."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from concordax.errors import UsageError
from concordax.files import replace_atomically

from .record import Record, finite, machine, versions

Cell = dict[str, Any]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Sweep:
    """An experiment made of cells that do not depend on each other.

    Args:
        name: of the experiment.
        config: a frozen dataclass: what all cells share.
        cells: what each measurement is of, as JSON values.
        measure: a function of a module, measure(config, cell) -> numbers, as JSON values; in float64.
        cost: cost(cell), in any unit, for the progress alone.
        notes: what the numbers mean.
    """

    name: str
    config: Any
    cells: Sequence[Cell]
    measure: Callable[[Any, Cell], dict[str, Any]]
    cost: Callable[[Cell], float]
    notes: Sequence[str]

    def identity(self, cell: Cell) -> dict[str, Any]:
        """All that the numbers of a cell depend on."""
        return {"experiment": self.name, "config": asdict(self.config), "versions": versions(), "cell": cell}


def run_sweep(
    sweep: Sweep, output_dir: Path, *, resume: bool = False, processes: int = 1, progress: Progress | None = None
) -> Record:
    """Measures every cell and writes `<name>.json`.

    A cell is written whole or not at all, in a file named by all that its numbers depend on: a run that was killed at
    any point goes on with what is missing, and what another configuration or other versions wrote is not taken for it.

    Args:
        sweep: the experiment.
        output_dir: the folder for the record, made if need be; cells go into its folder `cells`.
        resume: keep the cells that are there; without it they are measured anew.
        processes: how many cells are measured at a time, each in a process of its own.
        progress: called as progress(what, share done) after each cell.

    Returns:
        The record: `curves` holds each cell with its numbers, in the order of the cells.

    Raises:
        UsageError: no cell, or `processes` below 1.
    """
    if not sweep.cells:
        raise UsageError(f"{sweep.name}: nothing to measure; at least one repetition is needed.")
    if processes < 1:
        raise UsageError(f"processes={processes}: at least one is needed.")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    folder = output_dir / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    files = [_file(folder, sweep.identity(cell)) for cell in sweep.cells]
    found = [_stored(file) if resume else None for file in files]
    missing = [index for index, numbers in enumerate(found) if numbers is None]
    total = sum(sweep.cost(cell) for cell in sweep.cells)
    done = total - sum(sweep.cost(sweep.cells[index]) for index in missing)
    for index, numbers in _measured(sweep, missing, processes):
        found[index] = numbers
        with replace_atomically(files[index]) as file:
            file.write(json.dumps(numbers, allow_nan=False).encode())
        done += sweep.cost(sweep.cells[index])
        if progress is not None:
            progress(", ".join(f"{key} {value}" for key, value in sweep.cells[index].items()), done / total)
    record = Record(
        name=sweep.name,
        config=asdict(sweep.config),
        curves=[{**cell, **(numbers or {})} for cell, numbers in zip(sweep.cells, found, strict=True)],
        seeds=sorted({cell["seed"] for cell in sweep.cells if "seed" in cell}),
        versions=versions(),
        machine=machine(),
        started=started,
        notes=list(sweep.notes),
    )
    record.save(output_dir / f"{sweep.name}.json")
    return record


def _measured(sweep: Sweep, indices: list[int], processes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, numbers) of each cell as it is done."""
    if processes == 1:
        yield from ((index, _measure(sweep.measure, sweep.config, sweep.cells[index])) for index in indices)
        return
    # A fork of a process that runs JAX's threads may hang: new ones are started.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(_measure, sweep.measure, sweep.config, sweep.cells[index]): index for index in indices}
        try:
            yield from ((futures[future], future.result()) for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def _measure(measure: Callable, config: Any, cell: Cell) -> dict[str, Any]:
    with jax.enable_x64(True):
        return finite(measure(config, cell))


def _file(folder: Path, identity: dict[str, Any]) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _stored(file: Path) -> dict[str, Any] | None:
    """The numbers of a cell that was measured before; what is no JSON counts as missing."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
