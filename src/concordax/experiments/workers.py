"""Processes that measure: one thread each, programs compiled in a hurry where asked, and an end with their parent."""

import contextlib
import functools
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from ..compilation import UNOPTIMIZED

# XLA's pool of threads has as many as NPROC says; its flag alone leaves more than one busy.
_ONE_THREAD = {"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ONE_THREAD_FLAGS = "--xla_cpu_multi_thread_eigen=false"
# A trust-region step compiles in 0.8 s where XLA's defaults take 4.6, and runs twice as long.
_HURRY_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in UNOPTIMIZED.items())
HURRY_NOTE = (
    "Programs were compiled without optimization, as sizes of a minute spend most of it compiling: seconds are up to "
    "twice those of optimized programs."
)


@contextlib.contextmanager
def environment(*, hurry: bool = False) -> Iterator[None]:
    """An environment in which processes start that shall not wait for each other's threads; then the former one.

    Args:
        hurry: compile without optimization; see `may_hurry`.
    """
    before = dict(os.environ)
    os.environ["XLA_FLAGS"] = _flags(before.get("XLA_FLAGS", ""), hurry=hurry)
    os.environ |= _ONE_THREAD
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _flags(given: str, *, hurry: bool) -> str:
    """Ours before the user's, which may say otherwise."""
    if given and not given.startswith("-"):
        # The name of a file of flags: nothing can be added to it.
        return given
    return " ".join(part for part in (_ONE_THREAD_FLAGS, _HURRY_FLAGS if hurry else "", given) if part)


def end_with_parent() -> None:
    """Ends this process when the one that started it has ended, killed or not: nobody would read what it measures."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@functools.cache
def may_hurry() -> bool:
    """Whether this XLA knows the flags: one that does not ends its process at once, so another one tries."""
    with environment(hurry=True):
        tried = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    return tried.returncode == 0
