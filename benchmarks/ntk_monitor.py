"""The time that `ntk.Monitor` takes of a run: by its own account, and beside a run without it.

    python benchmarks/ntk_monitor.py --data-dir /path/to/data --output benchmarks/records/ntk_monitor.json

Workload A (synthetic, n = 1000, 20 -> 500 -> 1, 150 steps) and F (kin8nm, full batch, 8 -> 200 -> 1, 60 steps) of
`workloads.py` with the default monitor. Each mode runs in a process of its own without stored programs: first with
compilation ("cold"), then again ("warm", where the steps compile no more). After the last step the parameters of
both modes are compared bit by bit.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from results import write
from workloads import BUILDERS

import concordax as cx
from concordax import ntk

STEPS = {"A": 150, "F": 60}


def measure(name: str, data_dir: Path | None, *, watched: bool) -> dict[str, dict]:
    """A run with compilation and one without, in this process."""
    jax.config.update("jax_enable_x64", True)
    load = BUILDERS[name](data_dir, "float64")
    found = {}
    for turn in ("cold", "warm"):
        monitor = ntk.Monitor()
        begun = time.perf_counter()
        result = cx.train(
            load.model, load.loss, load.regularizer, load.start, (load.inputs, load.targets), strength=load.strength,
            max_steps=STEPS[name], tolerance=0.0, callbacks=[monitor] if watched else (),
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        bits = hashlib.sha256(np.asarray(ravel_pytree(result.params)[0]).tobytes()).hexdigest()
        found[turn] = {"seconds": seconds, "steps": len(result.history["loss"]), "parameters": bits}
        if watched:
            found[turn] |= {
                "monitor_seconds": monitor.seconds,
                "share": monitor.seconds / seconds,
                "measured_at": monitor.history["step"].tolist(),
                "drift": float(monitor.history["drift"][-1]),
            }
    return found


def markdown(record: dict) -> str:
    """The monitor's share of each run."""
    lines = ["| run | steps | seconds, watched | of it the monitor's | measurements |", "|---" * 5 + "|"]
    for name, found in record["workloads"].items():
        for pace, run in found["watched"].items():
            share, count = f"{100 * run['share']:.1f} %", len(run["measured_at"])
            lines.append(f"| {name}, {pace} | {run['steps']} | {run['seconds']:.0f} | {share} | {count} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures the workloads asked for and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--data-dir", type=Path, help="folder of kin8nm.npz; made-up data without it")
    parser.add_argument("--workloads", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, mode = arguments.worker
        print(json.dumps(measure(name, arguments.data_dir, watched=mode == "watched")))
        return
    folder = ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    workloads = {}
    for name in arguments.workloads:
        runs = {}
        for mode in ("alone", "watched"):
            command = [sys.executable, __file__, *folder, "--worker", name, mode]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            runs[mode] = json.loads(done.stdout.splitlines()[-1])
            print(name, mode, runs[mode], flush=True)
        same = {run[turn]["parameters"] for run in runs.values() for turn in run}
        workloads[name] = runs | {"same_bits": len(same) == 1, "load": os.getloadavg()[0]}
    if arguments.output:
        write(arguments.output, {"workloads": workloads})


if __name__ == "__main__":
    main()
