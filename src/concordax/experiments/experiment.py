"""What an experiment is: a frozen configuration, the cells it is made of, and a function that measures one of them."""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concordax.errors import UsageError

from .record import Record
from .sweep import Cell, Progress, Sweep, each_alone, run_sweep

_QUICK_SEEDS = 2


@dataclass(frozen=True)
class Experiment:
    """An experiment by its parts.

    Args:
        name: as the command line has it.
        full: the configuration as published, or as large as a day allows.
        quick: one of a minute.
        tiny: one for tests, of seconds.
        cells: cells(config, seeds) -> what each measurement is of.
        measure: a function of a module, measure(config, cell) -> numbers, as JSON values; with `datasets` also
            measure(config, cell, data_dir=...).
        cost: cost(config, cell), in any unit, for the progress alone.
        notes: what the numbers mean.
        program: see `Sweep`.
        datasets: datasets(config) -> the names of the data sets that it reads.
        seeds: how many repetitions by default.
        timed: whether what is found compares times: also quick sizes are then compiled with all optimizations.
        alone: whether a measurement of times needs the machine for itself: one process, whatever is asked for.
    """

    name: str
    full: Any
    quick: Any
    tiny: Any
    cells: Callable[[Any, int], Iterable[Cell]]
    measure: Callable[..., dict[str, Any]]
    cost: Callable[[Any, Cell], float]
    notes: Sequence[str]
    program: Callable[[Cell], Hashable] = each_alone
    datasets: Callable[[Any], Sequence[str]] = lambda _: ()
    seeds: int = 3
    timed: bool = False
    alone: bool = False

    def run(
        self,
        output_dir: Path,
        *,
        quick: bool = True,
        seeds: int | None = None,
        resume: bool = False,
        processes: int = 1,
        progress: Progress | None = None,
        config: Any = None,
        data_dir: Path | None = None,
    ) -> Record:
        """Measures all cells and writes `<name>.json`.

        Args:
            output_dir: the folder for it, made if need be.
            quick: the configuration `quick`, or with False `full`.
            seeds: how many repetitions; by default those of the experiment, of a quick one two at most.
            resume: keep what is there.
            processes: how many measurements at a time.
            progress: called as progress(what, share done) now and then.
            config: another configuration; `quick` then decides nothing.
            data_dir: a folder with data sets as files; see `datasets.load`.

        Returns:
            The record: one mapping a measurement in `curves`.

        Raises:
            UsageError: no repetition, or no process.
            DatasetError: a data set is not there, or not what it should be.
        """
        few = _QUICK_SEEDS if quick and config is None else self.seeds
        seeds = min(few, self.seeds) if seeds is None else seeds
        if seeds < 1:
            raise UsageError(f"seeds={seeds}: at least one repetition is needed.")
        config = config or (self.quick if quick else self.full)
        measure, sources = self.measure, {}
        if names := self.datasets(config):
            from . import datasets

            sources = {name: datasets.load(name, data_dir).checksum for name in names}
            measure = functools.partial(measure, data_dir=data_dir)
        sweep = Sweep(
            self.name, config, tuple(self.cells(config, seeds)), measure, functools.partial(self.cost, config),
            self.notes, self.program, sources,
        )  # fmt: skip
        processes = min(processes, 1) if self.alone else processes
        return run_sweep(
            sweep, output_dir, resume=resume, processes=processes, hurry=quick and not self.timed, progress=progress
        )
