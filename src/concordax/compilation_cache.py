"""Compiled programs kept on the disk: another process that fits a table of the same shape reads them.

JAX reads and writes them, under a key of the program, the versions, the flags and the instruction set of the machine.
What is here chooses the folder, keeps it small and lends JAX the configuration for the time of a computation.
"""

import contextlib
import functools
import os
import re
import threading
import warnings
from pathlib import Path

import jax
import platformdirs
from jax.experimental.compilation_cache.compilation_cache import reset_cache

# A place for the programs, or nothing to keep none.
VARIABLE = "CONCORDAX_CACHE_DIR"
# The programs of one shape of table take half a megabyte.
_MAX_BYTES = 2**28
_SETTINGS = {
    # Of the thirty programs of a fit all but four are small; together they take as long to compile as a large one.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    # JAX's own limit needs another library and, once a file with a time of access is missing, writes nothing any more.
    "jax_compilation_cache_max_size": -1,
    "jax_raise_persistent_cache_errors": False,
}
_READING = "Error reading persistent compilation cache entry for '(.*?)'"
_WRITING = "Error writing persistent compilation cache entry"


def cache_folder() -> Path | None:
    """The folder of the compiled programs: that of `CONCORDAX_CACHE_DIR`, or in the platform's cache of the user.

    Returns:
        The folder, which need not exist, or None where no programs are to be kept.

    Example:
        >>> from unittest import mock
        >>> with mock.patch.dict(os.environ, CONCORDAX_CACHE_DIR="programs"):
        ...     folder = cache_folder()
        >>> folder == Path.cwd() / "programs"
        True
        >>> with mock.patch.dict(os.environ, CONCORDAX_CACHE_DIR=""):
        ...     cache_folder()
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(os.path.expanduser(chosen)).absolute() if chosen else None
    # From 0.8.2 to 0.10.1, JAX prints two lines of false alarm about the machine for each program that it reads.
    if jax.__version_info__ < (0, 10, 2) and os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        return None
    folder = platformdirs.user_cache_path("concordax", appauthor=False)
    # Without a home there is no such place, and the working directory is not meant.
    return folder if folder.is_absolute() else None


class _PersistentCache:
    """The cache as a context: on while any thread is within, for JAX has one configuration for all of them.

    A folder that the user gave JAX is left alone, and so is a cache that they switched off. Whatever is wrong with our
    folder or a file in it, the programs are compiled as if there were no cache.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._switch_on()
            self._users += 1

    def __exit__(self, *_) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()

    def _switch_on(self) -> None:
        known = jax.config.values
        theirs = known["jax_compilation_cache_dir"] is not None or not known["jax_enable_compilation_cache"]
        folder = None if theirs else cache_folder()
        if folder is None or not _prepared(folder):
            return
        with contextlib.ExitStack() as undo:
            # Gives back the filters and `showwarning`.
            undo.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", _WRITING)
            # Always, so that it is heard even where warnings are errors.
            warnings.filterwarnings("always", _READING)
            warnings.showwarning = functools.partial(_heard, folder, warnings.showwarning)
            # JAX keeps the folder that it used first, until it is told to look again.
            undo.callback(reset_cache)
            for name, value in {"jax_compilation_cache_dir": str(folder), **_SETTINGS}.items():
                undo.callback(jax.config.update, name, known[name])
                jax.config.update(name, value)
            reset_cache()
            self._undo = undo.pop_all()


persistent_cache = _PersistentCache()


def _heard(folder: Path, show, message, *args, **kwargs) -> None:
    """Shows a warning, unless it is of a damaged program: that is removed, for JAX never replaces a file."""
    damaged = re.match(_READING, str(message))
    if damaged is None:
        return show(message, *args, **kwargs)
    for file in folder.glob(f"{damaged[1]}-*-cache"):
        with contextlib.suppress(OSError):
            file.unlink()
    return None


@functools.cache
def _prepared(folder: Path) -> bool:
    """True if the folder is there, or could be made; once a process, it is then brought under its limit."""
    try:
        # Programs are run as they are read: nobody else may write them.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    _prune(folder, _MAX_BYTES)
    return True


def _prune(folder: Path, limit: int) -> None:
    """Removes programs, those first that were not read for longest, until the rest has at most `limit` bytes."""
    programs = []
    for file in folder.glob("*-cache"):
        # Another process may remove it meanwhile.
        with contextlib.suppress(OSError):
            stat = file.stat()
            programs.append((max(stat.st_atime, stat.st_mtime), stat.st_size, file))
    total = sum(size for _, size, _ in programs)
    for _, size, file in sorted(programs):
        if total <= limit:
            break
        with contextlib.suppress(OSError):
            file.unlink()
        total -= size
