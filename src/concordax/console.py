"""What the command line prints: errors and progress to stderr, tables to stdout, all drawn by rich."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from concordax.diagnosis import Diagnosis
    from concordax.experiments.finding import Finding
    from concordax.summary import FitSummary


def say(text: str, *, error: bool = False, style: str = "") -> None:
    """Prints one paragraph as it is; a terminal wraps it, a file gets one line.

    Args:
        text: The paragraph, no markup.
        error: To stderr instead of stdout.
        style: A rich style.
    """
    console = Console(stderr=error)
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def fail(text: str) -> None:
    """Prints an error as one paragraph to stderr."""
    say("Error: " + " ".join(text.split()), error=True, style="red")


@contextlib.contextmanager
def fit_progress(max_steps: int, *, quiet: bool) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Draws a progress bar on stderr while a fit works; nothing unless stderr is a terminal.

    Args:
        max_steps: Steps at most.
        quiet: Draw nothing.

    Yields:
        A callback(step, record) for the estimator.
    """
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    ]
    with _progress(columns, quiet=quiet) as progress:
        task = progress.add_task("compiling", total=max_steps, text="")

        def callback(step: int, record: dict[str, float]) -> None:
            text = f"loss {record['loss']:.3g}  strength {record['strength']:.1g}"
            name = "step" if record.get("network", 1) == 1 else f"network {record['network']:.0f}, step"
            progress.update(task, description=name, completed=step, text=text)

        yield callback


@contextlib.contextmanager
def task_progress() -> Iterator[Callable[[str, float], None]]:
    """Draws a progress bar on stderr for a task that reports (what, share done); nothing unless it is a terminal.

    Yields:
        A callback(what, share).
    """
    columns = [
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    ]
    with _progress(columns, quiet=False) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda what, share: progress.update(task, description=what, completed=share)


def _progress(columns: list, *, quiet: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)


def print_summary(summary: "FitSummary") -> None:
    """Prints the held-out scores beside the trivial predictor's, and what the fit chose."""
    console = Console()
    console.print()
    print_scores(summary)
    console.print()
    console.print(_choices(summary))
    console.print()


def print_scores(summary: "FitSummary") -> None:
    """Prints the held-out scores beside the trivial predictor's."""
    trivial = "mean of the target" if summary.task == "regression" else "most frequent class"
    scores = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    scores.add_column(f"held out ({summary.n_test} rows)", overflow="fold")
    scores.add_column("network", justify="right", no_wrap=True)
    scores.add_column(trivial, justify="right")
    scores.add_column("", overflow="fold", style="dim")
    for metric in summary.metrics:
        baseline = "" if metric.baseline is None else f"{metric.baseline:.4g}"
        scores.add_row(metric.name, f"{metric.value:.4g}", baseline, metric.note)
    Console().print(scores)


def _noise(summary: "FitSummary") -> str:
    if summary.noise is None:
        return ""
    shape = f"Student's t, {summary.degrees_of_freedom:.3g} degrees of freedom"
    return f"{summary.noise:.4g} (standard deviation {summary.noise_unit}; {shape})"


def _choices(summary: "FitSummary") -> Table:
    facts = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    facts.add_column(no_wrap=True, style="bold")
    facts.add_column(overflow="fold")
    rows = {
        "network": summary.model,
        "rows": f"{summary.n_train} learnt from, {summary.n_test} held out; "
        f"{summary.n_columns} columns, {summary.n_features} features",
        "strength": f"{summary.strength:.3g}, chosen by the data",
        "effective parameters": _of(summary.effective_parameters, summary.n_parameters),
        "noise": _noise(summary),
        "steps": f"{summary.n_steps} in {summary.seconds:.1f} s; kept step {summary.best_step}",
        "stopped": summary.message,
    }
    for name, value in rows.items():
        if value:
            facts.add_row(name, Text(value))
    return facts


_COLORS = {"serious": "bold red", "warning": "bold yellow", "note": "bold"}


def print_diagnosis(title: str, diagnosis: "Diagnosis") -> None:
    """Prints findings under a title, what they are called in color; a terminal wraps them at its width."""
    console = Console()
    console.print(Text(title, style="bold"), soft_wrap=not console.is_terminal)
    if not diagnosis:
        console.print(Text("  nothing wrong was found"))
    for finding in diagnosis:
        kind = finding.severity.name.lower()
        lines = Table.grid(padding=(0, 0, 0, 2))
        lines.add_column(overflow="fold")
        numbers = ", ".join(f"{name} {value}" for name, value in finding.numbers.items())
        for text, style in ((numbers, "dim"), (finding.meaning, ""), (f"→ {finding.change}", "")):
            if text:
                lines.add_row(Text(text, style=style))
        console.print(Text.assemble("  ", (kind, _COLORS[kind]), f": {finding.name}"))
        console.print(Padding(lines, (0, 0, 0, 2)))
    console.print()


def print_datasets(entries: dict[str, Any]) -> None:
    """Prints the bundled data sets.

    Args:
        entries: Name to `Bundled`.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("columns", justify="right", no_wrap=True)
    table.add_column("target", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for name, entry in entries.items():
        table.add_row(name, str(entry.rows), str(entry.columns), entry.target, entry.description)
    Console().print(table)


def print_findings(findings: "Sequence[Finding]") -> None:
    """Prints each claim with its verdict and what was seen.

    Args:
        findings: As `experiments.findings` makes them.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    for name in ("claim", "verdict", "published", "corrected", "this library"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(finding.claim, finding.verdict, finding.published, finding.corrected, finding.ours)
    Console().print(table)


def write_out(text: str) -> None:
    """Writes to stdout as it is, for a file or another program to read."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _of(effective: float | None, parameters: int) -> str:
    return str(parameters) if effective is None else f"{effective:.1f} of {parameters}"
