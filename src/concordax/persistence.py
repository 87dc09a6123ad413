"""One model file: written whole or not at all, read without pickle."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import skops.io
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UntrustedTypesFoundException

from concordax._status import RunStatus
from concordax.columns import Column
from concordax.errors import ModelFileError, UsageError
from concordax.tabular import Task

FORMAT = "concordax model"
FORMAT_VERSION = 1

# What a model file may bring to life besides what skops trusts by itself (arrays, containers, scikit-learn's classes).
TRUSTED = [
    "concordax.models.MLP",
    "concordax.sklearn.GGNClassifier",
    "concordax.sklearn.GGNRegressor",
    "numpy.dtype",
]


@dataclass(frozen=True)
class SavedModel:
    """A fitted pipeline and what is needed to use it on another table.

    Args:
        pipeline: Preprocessor and fitted estimator.
        task: What was learnt.
        target_name: Name of the target column.
        columns: The columns that predictions need.
        versions: Package versions at the time of the fit.
    """

    pipeline: Pipeline
    task: Task
    target_name: str
    columns: tuple[Column, ...]
    versions: dict[str, str]


def save_model(model: SavedModel, path: Path) -> None:
    """Writes a model file; if that fails, a file that was there before is as it was.

    Args:
        model: The fitted pipeline and its table's description.
        path: Where to.

    Raises:
        UsageError: Something else than a file is there.
        ModelFileError: It could not be written.
    """
    content = skops.io.dumps(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "pipeline": model.pipeline,
            "task": asdict(model.task),
            "target_name": model.target_name,
            "columns": [asdict(column) for column in model.columns],
            "versions": model.versions,
        }
    )
    try:
        with replace_atomically(path) as file:
            file.write(content)
    except OSError as error:
        raise ModelFileError(f"The model could not be written to {str(path)!r}: {error.strerror or error}.") from error


def load_model(path: Path) -> SavedModel:
    """Reads a model file; runs no code that the file brings.

    Args:
        path: A file written by `save_model`.

    Raises:
        UsageError: There is no such file.
        ModelFileError: The file is damaged, no model file, or of a newer format.
    """
    if not path.is_file():
        raise UsageError(f"There is no model file {str(path)!r}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    stored = _loads(content, path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ModelFileError(f"{str(path)!r} is no concordax model file; `concordax fit` writes one.")
    if stored.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            f"{str(path)!r} has format version {stored.get('format_version')}; this concordax reads {FORMAT_VERSION}: "
            "use the version of concordax that wrote it, or fit again."
        )
    try:
        # The file keeps an enumeration as a plain number.
        stored["pipeline"][-1].status_ = RunStatus(stored["pipeline"][-1].status_)
        return SavedModel(
            pipeline=stored["pipeline"],
            task=Task(**stored["task"]),
            target_name=stored["target_name"],
            columns=tuple(Column(**column) for column in stored["columns"]),
            versions=stored["versions"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{str(path)!r} is damaged: a part of the model is missing ({error}).") from error


def _loads(content: bytes, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # Other versions of scikit-learn warn; ours are stored and shown instead.
            warnings.simplefilter("ignore")
            return skops.io.loads(content, trusted=TRUSTED)
    except UntrustedTypesFoundException as error:
        raise ModelFileError(
            f"{str(path)!r} is refused: it holds objects that no concordax model has. It was not written by this "
            f"program or was tampered with. {error}"
        ) from error
    except (BadZipFile, EOFError) as error:
        raise ModelFileError(
            f"{str(path)!r} is damaged or no concordax model file; `concordax fit` writes one."
        ) from error
    except Exception as error:  # a damaged file can fail in any of the constructors that skops calls
        detail = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{str(path)!r} is damaged or no concordax model file ({detail[:200]}).") from error


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
