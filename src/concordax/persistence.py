"""One model file: written whole or not at all, read without pickle."""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import skops.io
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UntrustedTypesFoundException

from concordax.columns import Column
from concordax.errors import ModelFileError, UsageError
from concordax.files import replace_atomically
from concordax.tabular import Task

FORMAT = "concordax model"
FORMAT_VERSION = 5

# What a model file may bring to life besides what skops trusts by itself (arrays, containers, scikit-learn's classes).
TRUSTED = [
    "concordax.models.MLP",
    "concordax.sklearn.classifier.GGNClassifier",
    "concordax.sklearn.regressor.GGNRegressor",
    "concordax.sklearn.reservoir.Reservoir",
    "concordax.sklearn.scaling.TableScaler",
    "concordax.sklearn.targets.TargetScaler",
    "concordax.sklearn.wide.WideNetwork",
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
