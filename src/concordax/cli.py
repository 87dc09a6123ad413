"""The command line. No logic of its own: each command calls the library and prints.

JAX, scikit-learn and pandas are imported inside the commands, so that help and completion are quick.
"""

import functools
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

try:
    import typer

    from concordax import console
except ModuleNotFoundError as error:
    raise SystemExit(f'concordax\'s command line needs {error.name}: pip install "concordax[all]"') from error

from concordax.errors import ConcordaxError, DataError, UsageError, shorten
from concordax.experiments.names import ENTRIES

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fits neural networks to tables, without a learning rate and with error bars.",
)


class Loss(StrEnum):
    """The losses a fit can be asked for."""

    AUTO = "auto"
    SQUARED_ERROR = "squared-error"
    SOFTMAX_CROSS_ENTROPY = "softmax-cross-entropy"
    BINARY_CROSS_ENTROPY = "binary-cross-entropy"


def _friendly(command: Callable[..., None]) -> Callable[..., None]:
    """Turns errors that the user can mend into one paragraph on stderr and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ConcordaxError as error:
            console.fail(str(error))
            raise typer.Exit(error.exit_code) from None
        except ImportError as error:
            if (error.name or "").split(".")[0] == "concordax":
                raise
            console.fail(f'{error}. Install what is missing with: pip install "concordax[all]"')
            raise typer.Exit(1) from None
        except MemoryError as error:
            console.fail(f"Out of memory: use fewer rows or a smaller --width. {error}")
            raise typer.Exit(1) from None
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough; a closed stdout must not fail once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            console.fail(f"{error.strerror or error}: {error.filename or 'output'}")
            raise typer.Exit(1) from None

    return wrapped


def _print_version(wanted: bool) -> bool:
    if wanted:
        from concordax._version import __version__

        console.say(f"concordax {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version  # handled before any command runs


@app.command()
@_friendly
def fit(
    source: Annotated[str, typer.Argument(help="A CSV or Parquet file, or a bundled data set's name.")],
    target: Annotated[str | None, typer.Option(help="Column to predict; needed for a file.")] = None,
    loss: Annotated[Loss, typer.Option(help="By default guessed from the target, and said.")] = Loss.AUTO,
    test_size: Annotated[float, typer.Option(help="Share of the rows to hold out.")] = 0.2,
    width: Annotated[
        list[int] | None, typer.Option(min=1, help="Units of a hidden layer; repeat for more. [default: by the rows]")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps at most.")] = 70,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="For held-out rows and initial weights.")] = 0,
    output: Annotated[Path, typer.Option(help="Model file to write.")] = Path("model.cx"),
    report: Annotated[Path, typer.Option(help="HTML report to write.")] = Path("report.html"),
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Fits a network to a table; writes a model file and a report on held-out rows."""
    from concordax import report as reports
    from concordax.files import check_writable
    from concordax.ntk import Monitor
    from concordax.persistence import save_model
    from concordax.tabular import split_table
    from concordax.workflow import fit_split, load_table

    check_writable(output)
    check_writable(report)
    split = split_table(load_table(source, target), loss=loss.value, test_size=test_size, seed=seed)
    if not quiet:
        console.say(f"{split.name}: {split.task.reason}")
        for note in split.notes:
            console.say(note, error=True, style="yellow")
    with console.fit_progress(max_steps, quiet=quiet) as callback:
        model, summary = fit_split(
            split, widths=tuple(width) if width else "auto", max_steps=max_steps, seed=seed, callback=callback,
            monitor=Monitor(),
        )  # fmt: skip
    if not quiet:
        console.print_summary(summary)
    save_model(model, output)
    if not quiet:
        console.say(f"Model   {output}")
    reports.write(summary, report)
    if not quiet:
        console.say(f"Report  {report}")


@app.command()
@_friendly
def predict(
    model: Annotated[Path, typer.Argument(help="A model file that `concordax fit` wrote.")],
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file with the model's columns.")],
    output: Annotated[Path | None, typer.Option(help="CSV file to write; by default stdout.")] = None,
) -> None:
    """Predicts each row of a file, with a standard deviation or class probabilities."""
    from concordax.files import check_writable, replace_atomically
    from concordax.persistence import load_model
    from concordax.tabular import read_frame
    from concordax.workflow import predict_frame

    if output is not None:
        check_writable(output)
    predictions, ignored = predict_frame(load_model(model), read_frame(file))
    if ignored:
        console.say(f"Ignored columns that the model does not use: {shorten(ignored)}.", error=True, style="yellow")
    text = predictions.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    if output is None:
        console.write_out(text)
        return
    with replace_atomically(output) as stream:
        stream.write(text.encode())
    console.say(f"Predictions  {output}", error=True)


@app.command()
@_friendly
def doctor(
    source: Annotated[
        str, typer.Argument(help="A CSV or Parquet file, a bundled data set's name, or a model file (.cx).")
    ],
    target: Annotated[str | None, typer.Option(help="Column to predict; needed for a file.")] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps at most.")] = 70,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="For held-out rows and initial weights.")] = 0,
) -> None:
    """Says what is wrong with a table and with a fit to it; exit code 1 if something is serious."""
    from concordax.persistence import load_model
    from concordax.workflow import check_up, load_table

    if Path(source).suffix == ".cx":
        if target is not None:
            raise UsageError("--target is for tables: a model file knows its target.")
        model = load_model(Path(source))
        diagnosis = model.pipeline[-1].explain()
        console.print_diagnosis(f"The fit of {model.target_name!r} in {source}", diagnosis)
        raise typer.Exit(int(diagnosis.serious))
    table = load_table(source, target)
    with console.fit_progress(max_steps, quiet=False) as callback:
        found = check_up(table, max_steps=max_steps, seed=seed, callback=callback)
    console.print_diagnosis(f"The table {table.name}, target {table.target_name!r}", found.table)
    if found.fit is None or found.summary is None:
        raise DataError(f"No fit: {found.refusal}")
    console.print_diagnosis("A fit to it", found.fit)
    console.print_scores(found.summary)
    raise typer.Exit(int(found.serious))


@app.command()
@_friendly
def datasets() -> None:
    """Lists the bundled data sets."""
    from concordax.bundled import BUNDLED

    console.print_datasets(BUNDLED)


@app.command(epilog="Experiments: " + "; ".join(f"{name}: {entry.question}" for name, entry in ENTRIES.items()))
@_friendly
def reproduce(
    names: Annotated[list[str], typer.Argument(help="Experiments, or all.", autocompletion=lambda: ["all", *ENTRIES])],
    quick: Annotated[bool, typer.Option("--quick/--full", help="Sizes of a minute, or the published ones.")] = True,
    seeds: Annotated[int | None, typer.Option(min=1, help="Repetitions. [default: the experiment's own]")] = None,
    output_dir: Annotated[Path, typer.Option(help="Folder for numbers, pictures, report.")] = Path("reproduction"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with data sets as <name>.npz; else they are fetched and kept.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is already there, and go on.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Measurements at a time. [default: one a core]")
    ] = None,
) -> None:
    """Repeats the experiments of arXiv 2404.14875 and what it leaves open; writes numbers, pictures and a report."""
    from concordax.reproduction import reproduce as run

    with console.task_progress() as progress:
        outcome = run(
            names, output_dir, quick=quick, seeds=seeds, resume=resume, processes=processes or os.cpu_count() or 1,
            data_dir=data_dir, progress=progress,
        )  # fmt: skip
    console.print_findings(outcome.findings)
    for name, why in outcome.refused.items():
        console.say(f"{name} did not run: {why}", error=True, style="yellow")
    console.say(f"Numbers and pictures  {output_dir}")
    console.say(f"Report                {outcome.report}")
    raise typer.Exit(int(bool(outcome.refused)))


def main() -> None:
    """Runs the command line; an interrupt ends it with the shell's code for that."""
    # Read when JAX is imported. Its errors are raised; what it logs are false alarms about programs read from the disk.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app(prog_name="concordax")
    except KeyboardInterrupt:
        console.fail("Interrupted. A fit wrote nothing; an experiment goes on with --resume.")
        raise SystemExit(130) from None
