"""What a diagnosis consists of: findings with their evidence, the most important first."""

import textwrap
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

_WIDTH = 96


class Severity(IntEnum):
    """How much a finding matters."""

    NOTE = 0
    WARNING = 1
    SERIOUS = 2


class Finding(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        name: what it is, in a few words.
        severity: SERIOUS: the result is not what was asked for; WARNING: it could be much better; NOTE: good to know.
        evidence: the numbers that it was seen by, by name.
        meaning: what they mean, a sentence or two.
        change: what to change.
    """

    name: str
    severity: Severity
    evidence: Mapping[str, float | int | str]
    meaning: str
    change: str

    @property
    def numbers(self) -> dict[str, str]:
        """The evidence as it is shown, to three digits."""
        return {name: _number(value) for name, value in self.evidence.items()}

    def __str__(self) -> str:
        """Four lines or more."""
        numbers = ", ".join(f"{name} {value}" for name, value in self.numbers.items())
        parts = [f"({numbers})"] * bool(numbers) + [self.meaning, f"→ {self.change}"]
        lines = [f"{self.severity.name.lower()}: {self.name}"]
        return "\n".join([*lines, *(textwrap.indent(textwrap.fill(part, _WIDTH), "  ") for part in parts)])


class Diagnosis(tuple[Finding, ...]):
    """Findings, most important first; empty, and false, when nothing is wrong. `print` shows them readably.

    Example:
        >>> print(Diagnosis([]))
        Nothing wrong was found.
        >>> print(Diagnosis([Finding("few rows", Severity.NOTE, {"rows": 9}, "They say little.", "Find more.")]))
        note: few rows
          (rows 9)
          They say little.
          → Find more.
    """

    __slots__ = ()

    def __new__(cls, findings: Iterable[Finding] = ()) -> "Diagnosis":
        """Puts the findings in order; of equal ones the first stays first."""
        return super().__new__(cls, sorted(findings, key=lambda finding: -finding.severity))

    @property
    def serious(self) -> bool:
        """Whether a finding is serious."""
        return any(finding.severity == Severity.SERIOUS for finding in self)

    @property
    def names(self) -> tuple[str, ...]:
        """The findings' names."""
        return tuple(finding.name for finding in self)

    def __str__(self) -> str:
        """All findings, or that there are none."""
        return "\n\n".join(map(str, self)) if self else "Nothing wrong was found."

    __repr__ = __str__


def _number(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else f"{value:.3g}"
