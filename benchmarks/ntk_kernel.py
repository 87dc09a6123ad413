"""Seconds and memory of the tangent kernel of 2,000 rows at 784→512→1, beside a contracted Jacobian.

    python benchmarks/ntk_kernel.py --output benchmarks/records/ntk_kernel.json

Each in a process of its own, in float64, one thread, warm: the median of three kernels after a first, which compiles,
and by how much the largest resident memory of the process is above what it was before the first. The Jacobian by
`jax.vmap(jax.grad)` has 2,000 rows of 401,920 numbers, 6.4 GB: it is made and contracted in blocks of 250 rows,
on and above the diagonal alone. It is run once, after a compilation.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from one_thread import ONE_THREAD

ROWS, INPUTS, WIDTH, BLOCK, REPEATS = 2000, 784, 512, 250, 3
CONTESTANTS = ("H = I", "H = I, x2 given", "contracted Jacobian")


def _problem():
    import jax
    import numpy as np

    import concordax as cx

    jax.config.update("jax_enable_x64", True)
    model = cx.TwoLayer(inputs=INPUTS, width=WIDTH)
    return model, model.init(jax.random.key(0)), np.random.default_rng(0).normal(size=(ROWS, INPUTS))


def _contracted(model, params, x):
    """(kernel, seconds): J in blocks of rows; those of the second factor are made anew for each block of the first."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.flatten_util import ravel_pytree

    flat, unravel = ravel_pytree(params)
    rows = jax.jit(jax.vmap(jax.grad(lambda flat, row: model(unravel(flat), row[None])[0, 0]), in_axes=(None, 0)))
    product = jax.jit(lambda one, two: one @ two.T)
    blocks = [jnp.asarray(x[start : start + BLOCK]) for start in range(0, ROWS, BLOCK)]
    warm = rows(flat, blocks[0])
    jax.block_until_ready(product(warm, warm))
    start, kernel = time.perf_counter(), np.zeros((ROWS, ROWS))
    for i, one in enumerate(blocks):
        left = rows(flat, one)
        for j in range(i, len(blocks)):
            right = left if i == j else rows(flat, blocks[j])
            part = np.asarray(product(left, right))
            where = slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK)
            kernel[where], kernel[where[::-1]] = part, part.T
    return kernel, time.perf_counter() - start


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measure(name: str) -> dict:
    """One contestant, in this process."""
    import jax
    import numpy as np

    from concordax import ntk

    model, params, x = _problem()
    # What the kernel needs of the libraries is loaded, on rows too few to count.
    jax.block_until_ready(ntk.empirical(model, params, x[:5]))
    before = _peak()
    if name == "contracted Jacobian":
        kernel, seconds = _contracted(model, params, x)
    else:
        second = x if name.endswith("x2 given") else None
        kernel, times = ntk.empirical(model, params, x, second), []
        kernel.block_until_ready()
        del kernel
        for _ in range(REPEATS):
            start = time.perf_counter()
            kernel = jax.block_until_ready(ntk.empirical(model, params, x, second))
            times.append(time.perf_counter() - start)
        seconds = float(np.median(times))
    megabytes = (_peak() - before) / 1e6
    kernel = np.asarray(kernel)
    # Of the same kernel, whatever way: a few entries and the norm.
    return {
        "seconds": seconds,
        "megabytes_over_baseline": megabytes,
        "norm": float(np.linalg.norm(kernel)),
        "corner": kernel[:2, -2:].tolist(),
    }


def markdown(record: dict) -> str:
    """The record as a table."""
    slow = record["kernels"]["contracted Jacobian"]["seconds"]
    lines = ["| kernel of 2,000 rows | seconds | MB over the baseline | times as fast |", "|---|---|---|---|"]
    for name, run in record["kernels"].items():
        lines.append(
            f"| {name} | {run['seconds']:.3g} | {run['megabytes_over_baseline']:.0f} | {slow / run['seconds']:.3g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all contestants, each in a process of its own, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", choices=CONTESTANTS, help="measure one contestant here and print it")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    if arguments.output is None:
        parser.error("--output is needed")
    from results import write

    kernels = {}
    for name in CONTESTANTS:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=True)
        kernels[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, kernels[name], flush=True)
    reference = kernels["contracted Jacobian"]["norm"]
    for run in kernels.values():
        assert abs(run["norm"] / reference - 1) < 1e-12, "the kernels differ"
    shape = {"rows": ROWS, "inputs": INPUTS, "width": WIDTH, "block": BLOCK}
    print(markdown(write(arguments.output, {"shape": shape, "kernels": kernels})))


if __name__ == "__main__":
    main()
