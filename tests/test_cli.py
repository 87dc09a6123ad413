"""The command line as its users see it: a fit, predictions, and one paragraph for each mistake."""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from concordax import __version__, cli, console, workflow
from concordax.errors import ConcordaxError
from concordax.persistence import load_model

WIDE = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def run(*arguments):
    result = CliRunner(env=WIDE).invoke(cli.app, [str(argument) for argument in arguments], prog_name="concordax")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(rows=40):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "city": rng.choice(["Rome", "Oslo"], rows)})
    frame["y"] = 3 * frame["x"] + rng.normal(size=rows)
    frame["kind"] = np.where(frame["x"] > 0, "plus", "minus")
    frame.loc[3, "x"] = np.nan
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, and a fit of its numbers and of its classes."""
    folder = tmp_path_factory.mktemp("cli")
    table().drop(columns="kind").to_csv(folder / "numbers.csv", index=False)
    table().drop(columns="y").to_parquet(folder / "classes.parquet")
    for name, target in (("numbers.csv", "y"), ("classes.parquet", "kind")):
        stem = folder / target
        files = ("--output", f"{stem}.cx", "--report", f"{stem}.html")
        result = run("fit", folder / name, "--target", target, "--width", 4, "--max-steps", 2, *files)
        assert result.exit_code == 0, result.output
        (folder / f"{target}.txt").write_text(result.stdout)
    return folder


def test_fit_prints_what_it_chose_and_what_it_is_worth(folder):
    text = (folder / "y.txt").read_text()
    assert "Squared error, because 'y' holds numbers (40 different ones in 40 rows)." in text
    for line in ("RMSE", "log likelihood", "log likelihood, noise only", "95% interval coverage"):
        assert re.search(rf"^{line} +-?\d", text, re.MULTILINE), line
    assert re.search(r"^strength +\d\S*, chosen by the data", text, re.MULTILINE)
    assert re.search(r"^effective parameters +\d\S* of \d+", text, re.MULTILINE)
    assert re.search(r"^steps +2 in \d", text, re.MULTILINE)
    assert re.search(r"^stopped +Stopped at max_steps", text, re.MULTILINE)
    assert f"Model   {folder / 'y.cx'}\n" in text
    assert f"Report  {folder / 'y.html'}\n" in text
    assert "Binary cross-entropy, because 'kind' holds 2 classes." in (folder / "kind.txt").read_text()


def test_fit_writes_a_model_and_a_report_that_needs_nothing_else(folder):
    assert load_model(folder / "y.cx").target_name == "y"
    page = (folder / "y.html").read_text(encoding="utf-8")
    assert "numbers.csv" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_predict_writes_a_mean_and_a_width_for_each_row(folder):
    result = run("predict", folder / "y.cx", folder / "numbers.csv")
    assert result.exit_code == 0
    assert result.stderr == ""
    predictions = pd.read_csv(io.StringIO(result.stdout))
    assert list(predictions.columns) == ["prediction", "standard_deviation", "lower_95", "upper_95"]
    assert len(predictions) == 40
    assert (predictions["standard_deviation"] > 0).all()
    width = predictions["upper_95"] - predictions["lower_95"]
    nu = load_model(folder / "y.cx").pipeline[-1].degrees_of_freedom_
    wide = np.sqrt((nu - 2) / nu) * stats.t.ppf(0.975, nu)
    np.testing.assert_allclose(width, 2 * wide * predictions["standard_deviation"], rtol=1e-6)


def test_predict_writes_a_class_and_its_probabilities(folder):
    result = run("predict", folder / "kind.cx", folder / "classes.parquet", "--output", folder / "out.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    predictions = pd.read_csv(folder / "out.csv")
    probabilities = predictions[["probability_minus", "probability_plus"]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert ("probability_" + predictions["prediction"]).tolist() == probabilities.idxmax(axis=1).tolist()


def test_predict_ignores_other_columns_and_takes_new_categories(folder, tmp_path):
    table().drop(columns="y").assign(city="Lima", more=1).to_csv(tmp_path / "new.csv", index=False)
    result = run("predict", folder / "y.cx", tmp_path / "new.csv")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 41
    assert result.stderr == "Ignored columns that the model does not use: 'kind', 'more'.\n"


def test_predict_does_not_depend_on_the_order_of_columns_and_rows(folder, tmp_path):
    table()[["city", "x"]][::-1].to_csv(tmp_path / "new.csv", index=False)
    turned = pd.read_csv(io.StringIO(run("predict", folder / "y.cx", tmp_path / "new.csv").stdout))
    straight = pd.read_csv(io.StringIO(run("predict", folder / "y.cx", folder / "numbers.csv").stdout))
    np.testing.assert_allclose(turned[::-1], straight, rtol=1e-8)


BAD_TABLES = {
    "empty": ("", 1, "is empty"),
    "no_rows": ("x,y\n", 1, "no rows"),
    "one_row": ("x,y\n1,2\n", 1, "There are 1 rows"),
    "one_column": ("y\n1\n2\n3\n4\n5\n6\n", 1, "no column besides the target"),
    "other_target": ("x,z\n1,2\n2,3\n", 2, "no column 'y'"),
    "constant": ("x,y\n" + "1,2\n" * 9, 1, "is 2 in every row"),
    "gap": ("x,y\n1,2\n2,\n3,4\n4,5\n5,6\n6,7\n", 1, "missing in 1 of 6 rows, first in row 2"),
    "infinite_target": ("x,y\n1,2\n2,inf\n3,4\n4,5\n5,6\n6,7\n", 1, "'y' is infinite .* row 2"),
    "infinite_feature": ("x,y\n1,2\n-inf,3\n3,4\n4,5\n5,6\n6,7\n", 1, "'x' is infinite .* row 2"),
    "free_text": ("x,y\n" + "".join(f"text {i},{i}\n" for i in range(9)), 1, "names or free text"),
    "too_many_classes": ("x,y\n" + "".join(f"{i},text {i}\n" for i in range(9)), 1, "too many to be classes"),
    "ragged": ("x,y\n1,2\n1,2,3\n", 1, "line 3"),
    "markup": ("[red]x,y\ninf,1\n" + "1,2\n" * 9, 1, r"'\[red\]x' is infinite"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_gives_one_paragraph(tmp_path, name):
    content, code, message = BAD_TABLES[name]
    (tmp_path / "t.csv").write_text(content)
    files = ("--output", tmp_path / "model.cx", "--report", tmp_path / "report.html")
    result = run("fit", tmp_path / "t.csv", "--target", "y", *files)
    assert result.exit_code == code, result.output
    assert re.fullmatch(rf"Error: .*{message}.*\n", result.stderr)
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "none.csv", "--target", "y"), "no file 'none.csv'"),
        (("fit", "diabets"), "Did you mean 'diabetes'"),
        (("fit", "diabetes", "--target", "agee"), "Did you mean 'age'"),
        (("fit", "{folder}/numbers.csv"), "--target is needed for a file.*'x', 'city', 'y'"),
        (("fit", "diabetes", "--test-size", "1.5"), "test_size is 1.5"),
        (("fit", "diabetes", "--output", "{folder}/none/model.cx"), "create it first"),
        (("fit", "diabetes", "--report", "{folder}"), "is a folder"),
        (("fit", "diabetes", "--loss", "hinge"), "squared-error"),
        (("fit", "diabetes", "--width", "0"), "Invalid value for '--width'"),
        (("fit",), "Missing argument"),
        (("predict", "{folder}/none.cx", "{folder}/numbers.csv"), "no model file"),
        (("predict", "{folder}/y.cx", "{folder}/none.csv"), "no file"),
        (("predict", "{folder}/y.cx", "{folder}/short.csv"), "lacks 1 of 2 columns: 'city'"),
        (("reproduce", "figure-9"), "There is no experiment 'figure-9'"),
    ],
)
def test_a_wrong_command_is_a_usage_error(folder, arguments, message):
    (folder / "short.csv").write_text("x\n1\n")
    result = run(*(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.search(message, result.stderr), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("model", "file", "message"),
    [
        ("numbers.csv", "numbers.csv", "damaged or no concordax model file"),
        ("y.cx", "text.csv", "'x' needs a number in each row; row 1 holds 'tall'"),
        ("y.cx", "infinite.csv", "'x' is infinite"),
    ],
)
def test_a_bad_model_or_table_to_predict_is_a_failure(folder, model, file, message):
    (folder / "text.csv").write_text("x,city\ntall,Rome\n")
    (folder / "infinite.csv").write_text("x,city\ninf,Rome\n")
    result = run("predict", folder / model, folder / file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_a_class_with_one_member_is_said(tmp_path, monkeypatch):
    frame = table().assign(kind=["rare"] + ["a", "b", "c"] * 13)
    frame.to_csv(tmp_path / "t.csv", index=False)

    def no_fit(*_, **__):
        raise ConcordaxError("No fit here.")

    monkeypatch.setattr(workflow, "fit_split", no_fit)
    result = run("fit", tmp_path / "t.csv", "--target", "kind")
    assert "The class rare has one row: it is kept to learn from" in result.stderr
    assert "Softmax cross-entropy, because 'kind' holds 4 classes." in result.stdout
    assert run("fit", tmp_path / "t.csv", "--target", "kind", "--quiet").output == "Error: No fit here.\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"), 1, 'pip install "concordax[all]"'),
        (MemoryError(), 1, "Out of memory"),
        (OSError(28, "No space left on device", "report.html"), 1, "No space left on device: report.html"),
    ],
)
def test_what_the_machine_lacks_is_said(monkeypatch, error, code, message):
    def fail(_):
        raise error

    monkeypatch.setattr(console, "print_datasets", fail)
    result = run("datasets")
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_defect_of_the_program_is_not_hidden(monkeypatch):
    def fail(_):
        raise ModuleNotFoundError("No module named 'concordax.typo'", name="concordax.typo")

    monkeypatch.setattr(console, "print_datasets", fail)
    with pytest.raises(ModuleNotFoundError):
        run("datasets")


def test_an_interrupt_ends_with_the_shells_code(monkeypatch, capsys):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
    assert "Interrupted" in capsys.readouterr().err


def test_datasets_and_version():
    result = run("datasets")
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "name", "diabetes", "breast-cancer", "wine", "digits", "iris",
    ]  # fmt: skip
    assert run("--version").stdout == f"concordax {__version__}\n"
    module = subprocess.run([sys.executable, "-m", "concordax", "--version"], capture_output=True, text=True)
    assert module.stdout == f"concordax {__version__}\n"


def test_reproduce_passes_its_options_on(tmp_path, monkeypatch):
    from concordax import reproduction
    from concordax.experiments.finding import Finding

    calls = []

    def stand_in(names, output_dir, **options):
        options.pop("progress")("step", 0.5)
        calls.append((names, output_dir, options))
        found = Finding("A claim.", "somewhere", "1", "2", "3", "holds", "a rule")
        return reproduction.Outcome({}, [], [found], {"mnist": "not there"}, output_dir / "report.html")

    monkeypatch.setattr(reproduction, "reproduce", stand_in)
    target = tmp_path / "new" / "folder"
    options = ("--full", "--seeds", 3, "--resume", "--output-dir", target, "--data-dir", tmp_path, "--processes", 2)
    result = run("reproduce", "widths", "mnist", *options)
    # What did not run is an error of the whole.
    assert result.exit_code == 1, result.output
    expected = {"quick": False, "seeds": 3, "resume": True, "processes": 2, "data_dir": tmp_path}
    assert calls == [(["widths", "mnist"], target, expected)]
    for text in ("A claim.", "holds", str(target / "report.html")):
        assert text in result.stdout
    assert "mnist did not run: not there" in result.stderr


def test_reproduce_help_names_every_experiment():
    from concordax.experiments.names import ENTRIES

    text = run("reproduce", "--help").stdout
    assert all(name in text for name in ENTRIES)


def test_reproduce_with_data_that_are_not_there(tmp_path):
    result = run("reproduce", "uci", "--full", "--data-dir", tmp_path, "--output-dir", tmp_path / "out")
    assert result.exit_code == 1
    assert "pendigits.npz" in result.stderr
    assert "Traceback" not in result.stderr


def test_progress_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    for forced, quiet, drawn in (("", False, False), ("1", False, True), ("1", True, False)):
        monkeypatch.setenv("FORCE_COLOR", forced)
        with console.fit_progress(10, quiet=quiet) as callback:
            callback(3, {"loss": 0.5, "strength": 1e-3})
        captured = capsys.readouterr()
        assert ("3/10" in captured.err) == drawn
        assert (captured.err != "") == drawn
        assert captured.out == ""


def test_help_needs_no_heavy_library():
    heavy = {"sklearn", "pandas", "matplotlib", "skops", "scipy.stats"}
    code = f"import sys, concordax.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("theirs", [None, "0"])
def test_jax_logs_nothing_unless_asked(theirs, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1" if theirs is None else theirs)
    if theirs is None:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    monkeypatch.setattr(cli, "app", lambda **_: None)
    cli.main()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == (theirs or "3")
