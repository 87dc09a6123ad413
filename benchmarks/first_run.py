"""Seconds of a first run in a new process, compilation included, to a training loss of 1e-6; and its memory.

    python benchmarks/first_run.py --output benchmarks/records/first_run.json --data-dir FOLDER

Each run is a process of its own, without programs kept from before. `import`: concordax and what it needs. `train`: the
whole call, from tracing to the last step. `megabytes`: the highest resident memory above that of a process which has
only imported JAX and made an array. On A and B the run goes to 1e-6, on the others for twenty steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from results import write

HERE = Path(__file__).parent
_LEVEL = 1e-6
_STEPS = 20
_SOURCE = """
import json, resource, sys, time
start = time.perf_counter()
import jax
jax.config.update("jax_enable_x64", True)
jax.block_until_ready(jax.numpy.ones(3) + 1)
baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
import concordax as cx
cx.train, cx.TrustRegion, cx.Auto
imported = time.perf_counter() - begun
from pathlib import Path
from workloads import build
name, steps, level, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
workload = build(name, Path(folder) if folder else None)
jax.block_until_ready((workload.inputs, workload.targets, workload.start))
begun = time.perf_counter()
result = cx.train(
    workload.model, workload.loss, workload.regularizer, workload.start, (workload.inputs, workload.targets),
    strength=workload.strength, max_steps=steps, tolerance=0, callbacks=[lambda _, record: record["loss"] < level],
)
train = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "import": imported, "train": train, "first_step": float(result.history["seconds"][0]),
    "last_step": float(result.history["seconds"][-1] - result.history["seconds"][-2]),
    "steps": len(result.history["loss"]), "loss": float(result.history["loss"][-1]), "solver": result.solver,
    "megabytes": (peak - baseline) / 1e3, "process_megabytes": peak / 1e3,
}))
"""


def run(name: str, data_dir: Path | None) -> dict:
    """One process."""
    to_level = name in ("A", "B")
    command = [sys.executable, "-c", _SOURCE, name, str(100 if to_level else _STEPS), str(_LEVEL if to_level else 0.0)]
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [*command, str(data_dir or "")], cwd=HERE, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def markdown(record: dict) -> str:
    """The record as a table."""
    lines = [
        "| workload | train, s | of it the first step | a step at the end, ms | steps | memory, MB | solver |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in record["workloads"].items():
        lines.append(
            f"| {name} | {row['train']:.1f} | {row['first_step']:.1f} | {1e3 * row['last_step']:.3g} "
            f"| {row['steps']:.0f} "
            f"| {row['process_megabytes']:.0f}, {row['megabytes']:.0f} of them above JAX alone "
            f"| {row['solver'].split(' ')[0]} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs every workload some times and writes the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=["A", "B", "C", "D", "F"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.data_dir.resolve() if arguments.data_dir else None
    rows = {}
    for name in arguments.workloads:
        runs = [run(name, folder) for _ in range(arguments.repeats)]
        rows[name] = {
            key: statistics.median(each[key] for each in runs)
            if isinstance(runs[0][key], (int, float))
            else runs[0][key]
            for key in runs[0]
        }
        print(name, rows[name], flush=True)
    write(arguments.output, {"workloads": rows})


if __name__ == "__main__":
    main()
