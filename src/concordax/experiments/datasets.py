"""The data sets of the experiments: from a folder, or from the network once and then from a cache."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from concordax.errors import ConcordaxError, shorten

_PARTS = ("X_train", "y_train", "X_test", "y_test")
# The authors' copy of UCI's table, at a commit; SHA-256 of the files.
_AVILA = "https://raw.githubusercontent.com/adeyemiadeoye/ggn-score-nn/0dfab86e53a446f84321a92b6cfe966f833366e7/"
_AVILA_FILES = {
    "experiments/data/avila/avila-tr.txt": "71151f37e1f825f88d6530cfa1e154e63018d41cf03c1d4ab90b17045033d0c7",
    "experiments/data/avila/avila-ts.txt": "7bd296c2ab437d0f27ab92950ac14b700dcc89d53dcf5acdd111ac183ad5f6a3",
}


class DatasetError(ConcordaxError):
    """A data set is not there, or not what it should be."""


@dataclass(frozen=True)
class DataSet:
    """Rows to learn from and rows to judge by.

    Args:
        name: of the data set.
        X_train: [n, d] inputs as they come, float64.
        y_train: [n] classes, from 0.
        X_test: [t, d].
        y_test: [t].
        labels: the classes' names.
        source: where it came from, without a folder's name.
    """

    name: str
    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    labels: tuple[str, ...]
    source: str

    @property
    def checksum(self) -> str:
        """The first 16 digits of SHA-256 over all numbers."""
        digest = hashlib.sha256("\n".join(self.labels).encode())
        for part in _PARTS:
            digest.update(np.ascontiguousarray(getattr(self, part), "<f8").tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Known:
    """What is known of a data set: its size, the checksum where it is, and the way to it without a folder.

    `parts` are files of the same data that serve where the whole is not in a folder.
    """

    rows: tuple[int, int]
    download: Callable[[], tuple[Any, ...]]
    checksum: str = ""
    parts: tuple[str, ...] = ()


def load(name: str, data_dir: Path | None = None) -> DataSet:
    """Loads a data set.

    With `data_dir`, from `<data_dir>/<name>.npz`, arrays X_train [n, d], y_train [n], X_test [t, d], y_test [t], inputs
    numbers, targets numbers or strings; for mnist also from `mnist10k.npz`, a part of it. Without, from the network:
    scikit-learn and pooch check sums and keep what they fetched. "digits" comes with scikit-learn.

    Args:
        name: mnist, fashion-mnist, pendigits, letter, avila or digits.
        data_dir: a folder with files.

    Returns:
        The data set.

    Raises:
        DatasetError: it is not known, not there, damaged, or not what it should be.

    Example:
        >>> load("digits").X_train.shape
        (1347, 64)
    """
    if name == "digits":
        return _encoded(name, _digits(), "bundled with scikit-learn")
    if name not in _KNOWN:
        raise DatasetError(f"There is no data set {name!r}; there are {shorten(('digits', *_KNOWN))}.")
    known = _KNOWN[name]
    if data_dir is not None:
        return _from_folder(name, known, data_dir)
    try:
        found = _encoded(name, known.download(), "network")
    except ImportError:
        raise
    except Exception as error:
        # Three libraries lie below, with errors of their own for a network that is down.
        raise DatasetError(
            f"The data set {name!r} could not be fetched ({type(error).__name__}: {error}). With a network, try again; "
            f"without one, put {name}.npz with the arrays {', '.join(_PARTS)} into a folder and pass --data-dir."
        ) from error
    rows = len(found.y_train), len(found.y_test)
    if rows != known.rows or (known.checksum and found.checksum != known.checksum):
        raise DatasetError(
            f"The data set {name!r} from the network has {rows[0]} + {rows[1]} rows and the checksum "
            f"{found.checksum}, not {known.rows[0]} + {known.rows[1]} and {known.checksum or 'any'}: its publisher has "
            "changed it, or its order. Pass --data-dir with a file that you trust."
        )
    return found


def _from_folder(name: str, known: _Known, data_dir: Path) -> DataSet:
    files = [data_dir / f"{file}.npz" for file in (name, *known.parts)]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise DatasetError(
            f"The data set {name!r} is not in --data-dir {str(data_dir)!r}: there is no {files[0].name}. It holds the "
            f"arrays {', '.join(_PARTS)}; without --data-dir the data set is fetched from the network."
        )
    try:
        # NumPy leaves a file that it opened itself and cannot read open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            missing = [part for part in _PARTS if part not in stored.files]
            if missing:
                raise DatasetError(f"{str(path)!r} lacks the arrays {', '.join(missing)}.")
            parts = tuple(stored[part] for part in _PARTS)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{str(path)!r} is damaged or no .npz file: {error}.") from error
    return _encoded(name, parts, f"the file {path.name}")


def _encoded(name: str, parts: tuple[Any, ...], source: str) -> DataSet:
    """Checks what was read; classes as numbers from 0, in the order of their names."""
    x_train, y_train, x_test, y_test = (np.asarray(part) for part in parts)
    for inputs, targets, which in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if inputs.ndim != 2 or targets.shape != inputs.shape[:1] or not len(targets):
            raise DatasetError(
                f"{name}: X_{which} must be [n, d] and y_{which} [n], n > 0; they are {inputs.shape}, {targets.shape}."
            )
        if inputs.dtype.kind not in "biuf" or not np.isfinite(inputs).all():
            raise DatasetError(f"{name}: X_{which} must hold finite numbers.")
    if x_train.shape[1] != x_test.shape[1]:
        raise DatasetError(f"{name}: X_train has {x_train.shape[1]} columns, X_test {x_test.shape[1]}.")
    labels, codes = np.unique(np.concatenate([y_train, y_test]).astype(str), return_inverse=True)
    if len(labels) < 2:
        raise DatasetError(f"{name}: at least two classes are needed; there is {labels[0]!r} alone.")
    split = len(y_train)
    names = tuple(str(label) for label in labels)
    inputs = (x_train.astype(float), x_test.astype(float))
    return DataSet(name, inputs[0], codes[:split], inputs[1], codes[split:], names, source)


def _digits() -> tuple[Any, ...]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    return x_train, y_train, x_test, y_test


def _openml(number: int, train_rows: int) -> Callable[[], tuple[Any, ...]]:
    """A table of OpenML whose first rows are for training."""

    def download() -> tuple[Any, ...]:
        from sklearn.datasets import fetch_openml

        table = fetch_openml(data_id=number, as_frame=False, parser="pandas")
        x, y = np.asarray(table.data, float), np.asarray(table.target)
        return x[:train_rows], y[:train_rows], x[train_rows:], y[train_rows:]

    return download


def _avila() -> tuple[Any, ...]:
    import pooch

    parts = []
    for file, digest in _AVILA_FILES.items():
        path = pooch.retrieve(_AVILA + file, f"sha256:{digest}", path=pooch.os_cache("concordax"))
        table = np.loadtxt(path, delimiter=",", dtype=str, ndmin=2)
        parts += [table[:, :-1].astype(float), table[:, -1]]
    return tuple(parts)


_KNOWN = {
    "mnist": _Known((60_000, 10_000), _openml(554, 60_000), parts=("mnist10k",)),
    "fashion-mnist": _Known((60_000, 10_000), _openml(40_996, 60_000)),
    "pendigits": _Known((7494, 3498), _openml(32, 7494), "6e3eab644d7619cb"),
    "letter": _Known((15_000, 5000), _openml(6, 15_000), "bab55a81475de963"),
    "avila": _Known((10_430, 10_437), _avila, "9bd225db8be0bad4"),
}
