"""A run that can be left and taken up again: written whole or not at all, read without pickle."""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from concordax.files import replace_atomically

from .record import ExperimentError

FORMAT_VERSION = 1
_ADVICE = "Start anew without resume, or use another folder."


class Run(NamedTuple):
    """Where a run stands: `state` is all that its next step needs.

    A row of `curve` is (iteration, seconds, training loss, test loss).
    """

    state: Any
    iteration: int
    seconds: float
    curve: Float[np.ndarray, "k 4"]


def save(path: Path, identity: dict[str, Any], run: Run) -> None:
    """Writes a run; if that fails or is interrupted, the file is as it was.

    Args:
        path: where to.
        identity: all that the run's numbers depend on, as JSON values.
        run: the run.

    Raises:
        OSError: it could not be written.
    """
    header = json.dumps({"format_version": FORMAT_VERSION, "identity": identity})
    arrays: dict[str, Any] = {"header": header, **{name: getattr(run, name) for name in Run._fields[1:]}}
    arrays |= {f"state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(run.state))}
    with replace_atomically(path) as file:
        np.savez(file, **arrays)


def load(path: Path, identity: dict[str, Any], state: Any) -> Run:
    """Reads a run.

    Args:
        path: a file written by `save`.
        identity: what the run to go on with depends on; it must be what the file's run depends on.
        state: a state of the same structure, shapes and types.

    Returns:
        The run.

    Raises:
        ExperimentError: the file is damaged, of another format version, or of another run.
    """
    try:
        # NumPy leaves a file that it opened itself and cannot read open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        header = json.loads(str(stored["header"]))
        version = header["format_version"]
        if version == FORMAT_VERSION:
            _check_identity(path, header["identity"], identity)
            return _run(stored, state)
    except (BadZipFile, zlib.error, EOFError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExperimentError(f"The checkpoint {str(path)!r} is damaged ({error}). {_ADVICE}") from error
    raise ExperimentError(
        f"The checkpoint {str(path)!r} has format version {version}; this concordax reads {FORMAT_VERSION}. {_ADVICE}"
    )


def _check_identity(path: Path, stored: dict[str, Any], identity: dict[str, Any]) -> None:
    stored, wanted = _flat(stored), _flat(json.loads(json.dumps(identity)))
    differing = [
        f"{name} was {stored.get(name)!r} and is now {wanted.get(name)!r}"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]
    if differing:
        raise ExperimentError(f"The checkpoint {str(path)!r} is of another run: {'; '.join(differing)}. {_ADVICE}")


def _flat(mapping: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in mapping.items():
        flat |= {f"{name}.{k}": v for k, v in _flat(value).items()} if isinstance(value, dict) else {name: value}
    return flat


def _run(stored: dict[str, np.ndarray], state: Any) -> Run:
    templates, structure = jax.tree.flatten(state)
    leaves = [stored[f"state_{i}"] for i in range(len(templates))]
    if any(leaf.shape != t.shape or leaf.dtype != t.dtype for leaf, t in zip(leaves, templates, strict=True)):
        raise ValueError("the state has other shapes or types")
    curve = stored["curve"]
    if curve.ndim != 2 or curve.shape[1] != 4 or curve.dtype != np.float64:
        raise ValueError(f"the curve has shape {curve.shape}")
    state = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in leaves])
    return Run(state, int(stored["iteration"]), float(stored["seconds"]), curve)
