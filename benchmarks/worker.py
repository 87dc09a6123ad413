"""One workload and one peer in a process of its own: tries the peer's settings, repeats the best, writes JSON.

Started by `time_to_loss.py`, with threads set to 1 in the environment; pins itself to a core before JAX starts.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
import traceback
from importlib.metadata import version
from pathlib import Path

# A run longer than this is not repeated: its spread is small beside it.
_LONG = 15.0
# Short runs are repeated more often, for so many seconds in all: what else the machine does adds milliseconds at times.
_SECONDS, _MOST = 3.0, 25


def rank(workload, trace) -> tuple:
    """The better of two traces has the smaller rank: more levels reached, then sooner, then the lower loss."""
    times = [trace.time_to(level) for level in workload.levels]
    reached = [each for each in times if each is not None]
    losses = [loss for loss in trace.losses if math.isfinite(loss)]
    return -len(reached), reached[-1] if reached else 0.0, min(losses)


def measure(workload, peer, limit: float, repeats: int) -> dict:
    """All settings once, the best `repeats` times and more if short; the trace kept is the one of median time."""
    limit = max(limit, getattr(peer, "LIMIT", 0.0))
    tried, best = [], None
    for settings in peer.settings(workload):
        begun = time.perf_counter()
        try:
            run = peer.prepare(workload, **settings)
            compiling = time.perf_counter() - begun
            trace = run(limit)
        except Exception as error:
            tried.append({"settings": settings, "error": f"{type(error).__name__}: {error}"[:300]})
            continue
        times = [trace.time_to(level) for level in workload.levels]
        tried.append({"settings": settings, "times": times, "final_loss": trace.losses[-1], "steps": trace.steps[-1]})
        if best is None or rank(workload, trace) < rank(workload, best[1]):
            best = settings, trace, run, compiling
    if best is None:
        return {"error": tried[-1]["error"], "tried": tried}
    settings, trace, run, compiling = best
    traces = [trace]
    # The first one may compile what comes late.
    spent = lambda: sum(each.seconds[-1] for each in traces[1:])
    while trace.seconds[-1] <= _LONG and (len(traces) < repeats or (len(traces) < _MOST and spent() < _SECONDS)):
        traces.append(run(limit))
    columns = [[each.time_to(level) for each in traces] for level in workload.levels]
    medians = [None if None in column else statistics.median(column) for column in columns]
    kept = sorted(traces, key=lambda each: each.seconds[-1])[len(traces) // 2]
    return {
        "settings": settings,
        "tried": tried,
        "times": medians,
        "all_times": columns,
        "final_loss": kept.losses[-1],
        "steps": kept.steps[-1],
        "preparation_seconds": compiling,
        "trace": {"seconds": kept.seconds, "losses": kept.losses, "steps": kept.steps},
    }


def main() -> None:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("peer")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int)
    arguments = parser.parse_args()
    if arguments.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})
    result = {"workload": arguments.workload, "peer": arguments.peer}
    try:
        result |= _run(arguments)
    except Exception as error:
        result |= {"error": f"{type(error).__name__}: {error}"[:300]}
        traceback.print_exc()
    arguments.output.write_text(json.dumps(result, default=float))


def _run(arguments: argparse.Namespace) -> dict:
    # Imported here: whatever an import says goes into the result, and the core is chosen before any thread starts.
    import jax
    import peers
    import workloads
    from peers.trace import CannotRun

    from concordax.experiments.record import machine

    jax.config.update("jax_enable_x64", True)
    workload = workloads.build(arguments.workload, arguments.data_dir)
    peer = peers.load(arguments.peer)
    about = {
        "title": workload.title,
        "levels": list(workload.levels),
        "rows": len(workload.inputs),
        "outputs": workload.targets.shape[1],
        "parameters": workload.parameters,
        "strength": workload.strength,
        "start_loss": float(workload.data_loss(workload.start)),
        "note": peer.NOTE,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in peer.PACKAGES}},
        "machine": machine(),
    }
    try:
        return about | measure(workload, peer, arguments.limit, arguments.repeats)
    except CannotRun as reason:
        return about | {"error": f"cannot run: {reason}"}


if __name__ == "__main__":
    main()
