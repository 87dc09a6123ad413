"""An experiment by its name; its module is imported when it is asked for."""

from importlib import import_module

from concordax.errors import UsageError, suggest

from .experiment import Experiment
from .names import ENTRIES


def experiment(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        UsageError: there is none of this name.

    Example:
        >>> experiment("widths").name
        'widths'
    """
    if name not in ENTRIES:
        raise UsageError(f"There is no experiment {name!r}.{suggest(name, ENTRIES)}")
    entry = ENTRIES[name]
    return getattr(import_module(f"concordax.experiments.{entry.module}"), entry.attribute)
