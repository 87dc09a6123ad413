"""Files written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from concordax.errors import UsageError


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Any]:
    """Opens a temporary binary file beside `path` and moves it there at the end; on any failure it is removed.

    Args:
        path: The file to write; a link is followed.

    Raises:
        UsageError: Something else than a file is there.
        OSError: It could not be written; a file that was there before is as it was.
    """
    path = Path(os.path.realpath(path))
    _refuse_other_than_file(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _refuse_other_than_file(path: Path) -> None:
    # Moving a file over a device or a pipe would destroy it for everyone on the machine.
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder; the name of a file is needed.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{str(path)!r} is a device or a pipe; the name of a file is needed.")


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    # Without it a power cut can bring the old file back. Some systems cannot open a folder; either file is whole then.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path: Path) -> None:
    """Refuses a path that could not be written, before time is spent on what is to go there.

    Args:
        path: The file to be written later.

    Raises:
        UsageError: Its folder does not exist or cannot be written, or it is a folder, a device or a pipe itself.
    """
    _refuse_other_than_file(path)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r} to write {path.name!r} into: create it first.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"The folder {str(folder)!r} cannot be written to.")
