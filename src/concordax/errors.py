"""Errors that a person at the command line can mend: the text is the whole story, no traceback is needed."""

import difflib
from collections.abc import Iterable


class ConcordaxError(Exception):
    """Something could not be done; the message says what, why, and what to do.

    Attributes:
        exit_code: What the command line returns to the shell.
    """

    exit_code = 1


class UsageError(ConcordaxError):
    """The command itself is wrong: a missing file, column or name, or an option out of range."""

    exit_code = 2


class DataError(ConcordaxError):
    """The table was read, but cannot be used as it is."""


class ModelFileError(ConcordaxError):
    """A model file could not be written or read."""


def shorten(names: Iterable[str], limit: int = 12) -> str:
    """Joins names with commas; beyond `limit` says how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns a sentence with the closest known name, or with all of them; it starts with a space."""
    known = [str(each) for each in known]
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" There are: {shorten(known)}."
