"""`concordax doctor` as its users see it: what is wrong with a table, a fit and a model, and the exit code."""

import re

import numpy as np
import pandas as pd
import pytest

from concordax import console
from concordax.diagnosis import Diagnosis, Finding, Severity
from test_cli import BAD_TABLES, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=60)})
    frame["y"] = 3 * frame["x"] + 0.5 * rng.normal(size=60)
    frame.to_csv(folder / "sound.csv", index=False)
    frame.assign(copy=frame["y"]).to_csv(folder / "leak.csv", index=False)
    frame.assign(x=frame["x"].where(frame.index != 4, np.inf)).to_csv(folder / "infinite.csv", index=False)
    return folder


def test_a_sound_table_and_its_fit_and_its_model(folder):
    result = run("doctor", folder / "sound.csv", "--target", "y")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("nothing wrong was found") == 2
    assert re.search(r"^RMSE +\d", result.stdout, re.MULTILINE)
    assert result.stderr == ""
    files = ("--output", folder / "y.cx", "--report", folder / "y.html", "--quiet")
    assert run("fit", folder / "sound.csv", "--target", "y", *files).exit_code == 0
    result = run("doctor", folder / "y.cx")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"The fit of 'y' in {folder / 'y.cx'}\n  nothing wrong was found\n\n"


def test_something_serious_gives_exit_code_1(folder):
    result = run("doctor", folder / "leak.csv", "--target", "y", "--max-steps", 20)
    assert result.exit_code == 1
    assert "serious: the target among the columns\n  columns 'copy'" in result.stdout
    assert "→ Remove them" in result.stdout


def test_a_table_that_cannot_be_fitted_says_why(folder):
    result = run("doctor", folder / "infinite.csv", "--target", "y")
    assert result.exit_code == 1
    assert "serious: values that are not finite\n  cells 1, columns 'x'" in result.stdout
    assert re.fullmatch(r"Error: No fit: The column 'x' is infinite .* row 5.*\n", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv", "--target", "y"), "no file 'none.csv'"),
        (("none.cx",), "no model file 'none.cx'"),
        (("{folder}/sound.csv",), "--target is needed for a file"),
        (("{folder}/sound.csv", "--target", "z"), "no column 'z'"),
        (("diabets",), "Did you mean 'diabetes'"),
        (("none.cx", "--target", "y"), "--target is for tables"),
        (("diabetes", "--max-steps", "0"), "Invalid value for '--max-steps'"),
    ],
)
def test_a_mistake_gives_one_paragraph_and_exit_code_2(folder, arguments, message):
    result = run("doctor", *(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_gives_findings_and_one_paragraph(tmp_path, name):
    content, code, message = BAD_TABLES[name]
    (tmp_path / "t.csv").write_text(content)
    result = run("doctor", tmp_path / "t.csv", "--target", "y")
    assert result.exit_code == code, result.output
    assert re.fullmatch(rf"Error: .*{message}.*\n", result.stderr)


def test_findings_are_printed_as_they_are(capsys):
    odd = Finding("[red]name", Severity.NOTE, {"numbers": 1 / 3, "text": "[b]"}, "Means\nthis.", "Do [this].")
    console.print_diagnosis("[title]", Diagnosis([odd]))
    out = capsys.readouterr().out
    for part in ("[title]", "note: [red]name", "numbers 0.333, text [b]", "→ Do [this]."):
        assert part in out
