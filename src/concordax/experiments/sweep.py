"""An experiment as a sweep: many small measurements, each written as soon as it is there."""

import hashlib
import itertools
import json
import multiprocessing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from concordax.compilation_cache import persistent_cache
from concordax.errors import UsageError
from concordax.files import replace_atomically

from . import workers
from .record import Record, finite, machine, versions

Cell = dict[str, Any]
Progress = Callable[[str, float], None]


def each_alone(cell: Cell) -> Hashable:
    """A program of its own for every cell."""
    return tuple(sorted(cell.items()))


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
        program: program(cell), equal for cells that share compiled programs: one process measures them in a row.
        sources: what else the numbers depend on: the data, by name and checksum.
    """

    name: str
    config: Any
    cells: Sequence[Cell]
    measure: Callable[[Any, Cell], dict[str, Any]]
    cost: Callable[[Cell], float]
    notes: Sequence[str]
    program: Callable[[Cell], Hashable] = each_alone
    sources: Mapping[str, str] = field(default_factory=dict)

    def identity(self, cell: Cell) -> dict[str, Any]:
        """All that the numbers of a cell depend on."""
        whole = {"experiment": self.name, "config": asdict(self.config), "versions": versions(), "cell": cell}
        return whole | ({"sources": dict(self.sources)} if self.sources else {})


def run_sweep(
    sweep: Sweep,
    output_dir: Path,
    *,
    resume: bool = False,
    processes: int = 1,
    hurry: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Measures every cell and writes `<name>.json`.

    A cell is written whole or not at all, in a file named by all that its numbers depend on: a run that was killed at
    any point goes on with what is missing, and what another configuration or other versions wrote is not taken for it.

    Args:
        sweep: the experiment.
        output_dir: the folder for the record, made if need be; cells go into its folder `cells`.
        resume: keep the cells that are there; without it they are measured anew.
        processes: how many cells are measured at a time, each in a process of its own.
        hurry: have those processes compile without optimization, where XLA can; the record says so.
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
    hurry = hurry and processes > 1 and workers.may_hurry()
    total = sum(sweep.cost(cell) for cell in sweep.cells)
    done = total - sum(sweep.cost(sweep.cells[index]) for index in missing)
    for index, numbers in _measured(sweep, missing, files, processes, hurry=hurry):
        found[index] = numbers
        done += sweep.cost(sweep.cells[index])
        if progress is not None:
            progress(", ".join(f"{key} {value}" for key, value in sweep.cells[index].items()), done / total)
    record = Record(
        name=sweep.name,
        config=asdict(sweep.config) | ({"sources": dict(sweep.sources)} if sweep.sources else {}),
        curves=[{**cell, **(numbers or {})} for cell, numbers in zip(sweep.cells, found, strict=True)],
        seeds=sorted({cell["seed"] for cell in sweep.cells if "seed" in cell}),
        versions=versions(),
        machine=machine(),
        started=started,
        notes=[*sweep.notes, *([workers.HURRY_NOTE] if hurry else [])],
    )
    record.save(output_dir / f"{sweep.name}.json")
    return record


def _measured(
    sweep: Sweep, indices: Sequence[int], files: Sequence[Path], processes: int, *, hurry: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, numbers) of each cell as it is done."""
    together: dict[Hashable, list[int]] = {}
    for index in indices:
        together.setdefault(sweep.program(sweep.cells[index]), []).append(index)
    if processes == 1:
        for group in together.values():
            for index in group:
                yield index, _measure(sweep.measure, sweep.config, sweep.cells[index], files[index])
            _drop_programs()
        return
    # A fork of a process that runs JAX's threads may hang: new ones are started.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=workers.end_with_parent)
    with workers.environment(hurry=hurry), pool:
        futures = {}
        for group in together.values():
            work = [(sweep.cells[index], files[index]) for index in group]
            futures[pool.submit(_measure_all, sweep.measure, sweep.config, work)] = group
        try:
            for future in as_completed(futures):
                yield from zip(futures[future], future.result(), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _measure_all(measure: Callable, config: Any, work: Sequence[tuple[Cell, Path]]) -> list[dict[str, Any]]:
    """The numbers of cells that share programs."""
    numbers = [_measure(measure, config, cell, file) for cell, file in work]
    _drop_programs()
    return numbers


# How many groups of cells this process has measured, and after how many their programs are dropped.
_groups, _KEPT = itertools.count(1), 16


def _drop_programs() -> None:
    """Drops compiled programs from time to time.

    Each holds some three hundred mappings of memory, of which Linux gives a process 65,530: a sweep over a hundred
    smoothings would end in LLVM's "Unable to allocate section memory".
    """
    if next(_groups) % _KEPT == 0:
        jax.clear_caches()


def _measure(measure: Callable, config: Any, cell: Cell, path: Path) -> dict[str, Any]:
    """Measures a cell and stores it at once: a process that is killed loses the cell it is at, and no other."""
    with persistent_cache, jax.enable_x64(True):
        numbers = finite(measure(config, cell))
    with replace_atomically(path) as file:
        file.write(json.dumps(numbers, allow_nan=False).encode())
    return numbers


def _file(folder: Path, identity: dict[str, Any]) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _stored(file: Path) -> dict[str, Any] | None:
    """The numbers of a cell that was measured before; what is no JSON counts as missing."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
