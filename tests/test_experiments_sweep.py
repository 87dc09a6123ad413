"""A sweep of small measurements: killed and resumed, in several processes, the record is the same."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from concordax.errors import UsageError
from concordax.experiments import sweep, workers
from concordax.experiments.record import Record
from concordax.experiments.sweep import Sweep, run_sweep

CELLS = tuple({"width": width, "seed": seed} for width in (4, 16) for seed in (0, 1, 2))


@dataclass(frozen=True)
class Config:
    offset: float = 1.0


def measure(config, cell):
    """A number that needs float64, one that is not finite, and nothing random."""
    value = jnp.asarray(cell["width"] + 1e-12 * cell["seed"]) + config.offset
    return {"value": float(value), "nothing": math.nan}


def beats(*_):
    """Shows for a minute, tenfold a second, that its process is there."""
    file = Path(os.environ["BEATS"], str(os.getpid()))
    for _ in range(600):
        file.write_text(str(time.monotonic()), encoding="utf-8")
        time.sleep(0.1)
    return {"value": 0.0}


def _sweep(function=measure, cells=CELLS, **config):
    return Sweep("toy", Config(**config), cells, function, lambda cell: cell["width"], ["A note."])


def _environment():
    """That of a process which can import this module."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def _curves(folder):
    return Record.load(folder / "toy.json").curves


def test_the_record_holds_every_cell_in_order(tmp_path):
    seen = []
    record = run_sweep(_sweep(), tmp_path, progress=lambda what, share: seen.append((what, share)))
    expected = [{**c, "value": 1.0 + c["width"] + 1e-12 * c["seed"], "nothing": None} for c in CELLS]
    assert record.curves == expected == _curves(tmp_path)
    assert record.seeds == [0, 1, 2]
    assert record.config == {"offset": 1.0}
    assert [what for what, _ in seen] == [f"width {c['width']}, seed {c['seed']}" for c in CELLS]
    assert [share for _, share in seen] == pytest.approx([4 / 60, 8 / 60, 12 / 60, 28 / 60, 44 / 60, 1.0])


@pytest.mark.parametrize("stop", range(len(CELLS)))
def test_stopped_anywhere_and_resumed_is_the_same(tmp_path, stop):
    run_sweep(_sweep(), tmp_path / "whole")
    calls = []

    def counted(config, cell):
        calls.append(cell)
        if len(calls) == stop + 1:
            raise KeyboardInterrupt
        return measure(config, cell)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(_sweep(counted), tmp_path / "parts")
    assert not (tmp_path / "parts" / "toy.json").exists()
    run_sweep(_sweep(counted), tmp_path / "parts", resume=True)
    # The one that was stopped is measured twice, every other once.
    assert len(calls) == len(CELLS) + 1
    assert _curves(tmp_path / "parts") == _curves(tmp_path / "whole")


def test_killed_without_warning_and_resumed_is_the_same(tmp_path):
    """SIGKILL while the fourth cell is measured."""
    code = (
        "import os, signal, sys; from pathlib import Path; import test_experiments_sweep as t\n"
        "def deadly(config, cell):\n"
        "    if cell == t.CELLS[3]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return t.measure(config, cell)\n"
        "t.run_sweep(t._sweep(deadly), Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=_environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "cells").glob("*.json"))) == 3
    calls = []
    run_sweep(_sweep(lambda *args: (calls.append(args), measure(*args))[1]), tmp_path, resume=True)
    assert len(calls) == 3
    run_sweep(_sweep(), tmp_path / "whole")
    assert _curves(tmp_path) == _curves(tmp_path / "whole")


def test_no_process_outlives_the_one_that_started_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; import test_experiments_sweep as t\n"
        "if __name__ == '__main__': t.run_sweep(t._sweep(t.beats), Path(sys.argv[1]), processes=2)"
    )
    hearts = tmp_path / "hearts"
    hearts.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=_environment() | {"BEATS": str(hearts)})

    def eventually(true):
        return any(true() or time.sleep(0.5) for _ in range(60))

    def still():
        before = [file.read_text(encoding="utf-8") for file in hearts.iterdir()]
        time.sleep(1)
        return before == [file.read_text(encoding="utf-8") for file in hearts.iterdir()]

    assert eventually(lambda: len(list(hearts.iterdir())) == 2)
    parent.kill()
    parent.wait()
    assert eventually(still)


def test_two_processes_give_the_same(tmp_path):
    code = (
        "import sys; from pathlib import Path; import test_experiments_sweep as t\n"
        "if __name__ == '__main__': t.run_sweep(t._sweep(), Path(sys.argv[1]), processes=2)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=_environment(), check=True)
    run_sweep(_sweep(), tmp_path / "whole")
    assert _curves(tmp_path) == _curves(tmp_path / "whole")


def test_what_another_configuration_wrote_is_not_taken(tmp_path):
    run_sweep(_sweep(), tmp_path)
    run_sweep(_sweep(offset=5.0), tmp_path, resume=True)
    assert _curves(tmp_path)[0]["value"] == 9.0
    # More seeds: what is there is kept.
    calls = []
    more = (*CELLS, {"width": 4, "seed": 3})
    run_sweep(_sweep(lambda *args: (calls.append(args[1]), measure(*args))[1], more), tmp_path, resume=True)
    assert calls == [more[-1]]


def test_without_resume_all_is_measured_anew_and_damaged_cells_too(tmp_path):
    run_sweep(_sweep(), tmp_path)
    calls = []
    counted = lambda *args: (calls.append(args[1]), measure(*args))[1]
    run_sweep(_sweep(counted), tmp_path)
    assert len(calls) == len(CELLS)
    file = sorted((tmp_path / "cells").glob("*.json"))[0]
    file.write_text(json.dumps({"value": 1.0})[:-3], encoding="utf-8")
    run_sweep(_sweep(counted), tmp_path, resume=True)
    assert len(calls) == len(CELLS) + 1


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one repetition"):
        run_sweep(_sweep(cells=()), tmp_path)
    with pytest.raises(UsageError, match="processes=0"):
        run_sweep(_sweep(), tmp_path, processes=0)


@pytest.mark.parametrize("hurry", [False, True])
def test_processes_start_with_one_thread_each_and_the_environment_comes_back(monkeypatch, hurry):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with workers.environment(hurry=hurry):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["NPROC"] == "1"
        flags = os.environ["XLA_FLAGS"].split()
        assert flags[0] == "--xla_cpu_multi_thread_eigen=false"
        # The user's come last and win; XLA reads none behind a word that is no flag.
        assert flags[-1] == "--xla_cpu_enable_fast_math=false"
        assert all(flag.startswith("--") for flag in flags)
        assert ("--xla_backend_optimization_level=0" in flags) == hurry
    assert dict(os.environ) == before


def test_a_file_of_flags_is_left_as_it_is(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "flags.txt")
    with workers.environment(hurry=True):
        assert os.environ["XLA_FLAGS"] == "flags.txt"


def test_processes_hurry_only_where_xla_can_and_the_record_says_so(tmp_path, monkeypatch):
    said = lambda record: workers.HURRY_NOTE in record.notes
    assert said(run_sweep(_sweep(), tmp_path, processes=2, hurry=True)) == workers.may_hurry()
    assert not said(run_sweep(_sweep(), tmp_path, processes=2))
    assert not said(run_sweep(_sweep(), tmp_path, hurry=True))
    monkeypatch.setattr(workers, "_HURRY_FLAGS", "--xla_no_such_flag=true")
    workers.may_hurry.cache_clear()
    assert not workers.may_hurry()
    assert not said(run_sweep(_sweep(), tmp_path, processes=2, hurry=True))
    workers.may_hurry.cache_clear()


def test_cells_of_one_program_are_measured_in_a_row(tmp_path, monkeypatch):
    """A pool that works in this process shows who gets what."""
    groups = []

    class Pool:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def shutdown(self, **_):
            pass

        def submit(self, function, *arguments):
            groups.append([cell for cell, _ in arguments[-1]])
            future = Future()
            future.set_result(function(*arguments))
            return future

    monkeypatch.setattr(sweep, "ProcessPoolExecutor", Pool)
    together = replace(_sweep(), program=lambda cell: cell["seed"] % 2)
    record = run_sweep(together, tmp_path / "parts", processes=2)
    assert [[cell["seed"] for cell in group] for group in groups] == [[0, 2, 0, 2], [1, 1]]
    assert record.curves == run_sweep(_sweep(), tmp_path / "whole").curves


def compiling(config, cell):
    """Compiles a program of its own for every cell, and counts those that this process holds."""
    scaled = jax.jit(lambda x: x * (config.offset + cell["width"]))
    HELD.append((scaled, float(scaled(1.0))))
    return {"held": sum(function._cache_size() for function, _ in HELD)}


HELD = []


def test_programs_of_a_long_sweep_are_dropped(tmp_path):
    """A process that kept them all would run out of mappings of memory after some two hundred."""
    HELD.clear()
    cells = [{"width": width} for width in range(2 * sweep._KEPT)]
    record = run_sweep(_sweep(compiling, cells), tmp_path)
    assert max(cell["held"] for cell in record.curves) <= sweep._KEPT
