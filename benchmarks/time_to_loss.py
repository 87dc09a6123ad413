"""Seconds to a training loss, for concordax and its peers on one core; writes one JSON record.

    python benchmarks/time_to_loss.py --output FILE --workloads A B --repeats 3
    python benchmarks/time_to_loss.py --output FILE --workloads C D E F --peers concordax optax-lbfgs --data-dir FOLDER
    python benchmarks/draw.py FILE --figure FILE.png

Every pair of workload and peer runs in a process of its own, on one core and with one thread, one after the other. A
time is that of a warm run: the same steps compiled and run before, then again from the same start; the clock stands
still while losses are evaluated. A peer with something to tune is run with each of a few settings and its best is
taken. What a peer cannot do, or fails at, stands in the record with its reason.

The peers are installed by the extra `bench`; one that needs versions of its own can be given an
interpreter of its own: `--python kfac-jax=PATH`. An existing FILE is added to, pair by pair, unless `--fresh`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from one_thread import ONE_THREAD
from peers import PEERS
from workloads import BUILDERS

HERE = Path(__file__).parent
ENVIRONMENT = ONE_THREAD | {"MKL_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}


def run_pair(workload: str, peer: str, arguments: argparse.Namespace) -> dict:
    """Runs a pair in its own process; a process that dies or takes too long is a result too."""
    interpreters = dict(each.split("=", 1) for each in arguments.python)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [
            interpreters.get(peer, sys.executable), str(HERE / "worker.py"), workload, peer, "--output", str(output),
            "--limit", str(arguments.limit), "--repeats", str(arguments.repeats), "--core", str(arguments.core),
            *(["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []),
        ]  # fmt: skip
        failed = {"workload": workload, "peer": peer}
        try:
            # What libraries print is kept from the table; the end of it tells why a process died.
            done = subprocess.run(
                command, env=os.environ | ENVIRONMENT, timeout=arguments.timeout, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return failed | {"error": f"gave no result within {arguments.timeout:.0f} s, all settings together"}
        if not output.exists():
            last = (done.stderr.strip().splitlines() or ["nothing printed"])[-1]
            return failed | {"error": f"the process ended with code {done.returncode}: {last[:200]}"}
        return json.loads(output.read_text())


def show(result: dict) -> None:
    """Prints a result in a line."""
    what = f"{result['workload']:10s} {result['peer']:26s}"
    if "error" in result:
        print(what, result["error"], flush=True)
        return
    times = "  ".join("       -" if each is None else f"{each:8.3f}" for each in result["times"])
    print(what, times, f"  final {result['final_loss']:.1e}  {result['settings']}", flush=True)


def main() -> None:
    """Runs all pairs and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--workloads", nargs="+", choices=BUILDERS, default=["A", "B"])
    parser.add_argument("--data-dir", type=Path, help="folder of mnist10k.npz and kin8nm.npz; made-up data without it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds on a run's clock (pyscsopt: 60 at least)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds of a pair, all settings")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1, help="the core to run on; the last one")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="another interpreter for a peer")
    parser.add_argument("--fresh", action="store_true", help="forget what the file holds")
    arguments = parser.parse_args()
    results = []
    if arguments.output.exists() and not arguments.fresh:
        results = json.loads(arguments.output.read_text())["results"]
    for workload in arguments.workloads:
        for peer in arguments.peers:
            result = run_pair(workload, peer, arguments) | {"when": datetime.now(UTC).isoformat(timespec="seconds")}
            show(result)
            results = [each for each in results if (each["workload"], each["peer"]) != (workload, peer)] + [result]
            settings = {"limit": arguments.limit, "repeats": arguments.repeats, "threads": 1, "dtype": "float64"}
            arguments.output.write_text(json.dumps({"settings": settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
