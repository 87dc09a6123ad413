"""Runs experiments, draws them, and writes what was found as one HTML page. Every number is a record's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import pages, plots
from .errors import UsageError
from .experiments.datasets import DatasetError
from .experiments.finding import Finding
from .experiments.findings import findings
from .experiments.names import ENTRIES
from .experiments.record import Record
from .experiments.registry import experiment

REPORT = "report.html"
_STAND_IN = "digits"
Progress = Callable[[str, float], None]


class Outcome(NamedTuple):
    """What a reproduction left behind.

    Attributes:
        records: by the experiments' names: those run now, and those that the folder held.
        files: numbers and pictures of those run now.
        findings: of all records.
        refused: experiments that did not run, and why.
        report: the page.
    """

    records: dict[str, Record]
    files: list[Path]
    findings: list[Finding]
    refused: dict[str, str]
    report: Path


class _Section(NamedTuple):
    """One experiment of the page."""

    name: str
    question: str
    made: list[tuple[str, str]]
    notes: list[str]
    pictures: list[pages.Picture]
    stands_in: bool


def reproduce(
    names: Sequence[str],
    output_dir: Path,
    *,
    quick: bool = True,
    seeds: int | None = None,
    resume: bool = False,
    processes: int = 1,
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Runs experiments one after the other, each into a folder of its name, and writes `report.html`.

    Args:
        names: of experiments; "all" is every one.
        output_dir: the folder, made if need be.
        quick: the sizes of a minute, or with False the published ones.
        seeds: how many repetitions; by default those of each experiment, of quick ones two at most.
        resume: keep what is there, and go on.
        processes: how many measurements at a time.
        data_dir: a folder with data sets as files; see `experiments.datasets.load`.
        progress: called as progress(what, share done) now and then.

    Returns:
        What was written. One of several experiments whose data are not there is left out and named in `refused`.

    Raises:
        UsageError: for an unknown experiment or a number out of range.
        DatasetError: the data of the only experiment are not there.
    """
    chosen = list(dict.fromkeys(each for name in names for each in (ENTRIES if name == "all" else [name])))
    found = {name: experiment(name) for name in chosen}
    if not found:
        raise UsageError("no experiment is named; there is also `all`.")
    output_dir.mkdir(parents=True, exist_ok=True)
    refused: dict[str, str] = {}
    files: list[Path] = []
    for place, (name, made) in enumerate(found.items()):
        options = {"quick": quick, "seeds": seeds, "resume": resume, "processes": processes, "data_dir": data_dir}
        try:
            record = made.run(output_dir / name, **options, progress=_part(progress, name, place, len(found)))
        except DatasetError as error:
            if len(found) == 1:
                raise
            refused[name] = str(error)
            continue
        files += [output_dir / name / f"{name}.json", *plots.save(plots.experiment(record), output_dir / name)]
    records = _records(output_dir)
    report = pages.write(render(records, refused), output_dir / REPORT)
    return Outcome(records, files, findings(records), refused, report)


def _part(progress: Progress | None, name: str, place: int, count: int) -> Progress | None:
    """The progress of one experiment as that of all."""
    if progress is None:
        return None
    return lambda what, share: progress(f"{name}: {what}", (place + share) / count)


def _records(folder: Path) -> dict[str, Record]:
    """The records that a folder holds, in the order of the experiments."""
    files = {name: folder / name / f"{name}.json" for name in ENTRIES}
    return {name: Record.load(file) for name, file in files.items() if file.is_file()}


def render(records: dict[str, Record], refused: dict[str, str]) -> str:
    """The page.

    Args:
        records: by the experiments' names.
        refused: experiments that did not run, and why.

    Returns:
        HTML without any reference to another file.
    """
    sections = [_section(name, record) for name, record in records.items()]
    any_record = next(iter(records.values()), None)
    return pages.environment().get_template("reproduction.html.j2").render(
        findings=findings(records),
        sections=sections,
        refused=refused,
        stands_in=[section.name for section in sections if section.stands_in],
        versions=any_record.versions if any_record else {},
        machine=any_record.machine if any_record else {},
    )


def _section(name: str, record: Record) -> _Section:
    question = ENTRIES[name].question
    sources = record.config.get("sources", {})
    made = [
        (key.replace("_", " "), _shown(value))
        for key, value in record.config.items()
        if key != "sources" and value not in ([], (), None)
    ]
    made += [("seeds", str(len(record.seeds))), ("started", record.started)]
    made += [("data, checksum", ", ".join(f"{key} {value}" for key, value in sources.items()))] if sources else []
    pictures = [pages.picture(figure, title, "", question) for title, figure in plots.experiment(record).items()]
    return _Section(name, question, made, record.notes, pictures, _STAND_IN in sources)


def _shown(value: Any) -> str:
    """A number, or the ends of a long list of them."""
    if isinstance(value, list | tuple):
        each = [_shown(part) for part in value]
        return ", ".join(each) if len(each) <= 8 else f"{each[0]} to {each[-1]}, {len(each)} values"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
