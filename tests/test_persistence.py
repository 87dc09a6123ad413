"""Model files: the same predictions after a round trip, no code from a file, the old file intact after any failure."""

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer

from concordax import RunStatus, persistence
from concordax.errors import ModelFileError, UsageError
from concordax.persistence import load_model, save_model
from concordax.sklearn import GGNRegressor
from concordax.tabular import Table, split_table
from concordax.workflow import fit_split


def table():
    rng = np.random.default_rng(0)
    features = pd.DataFrame({"x": rng.normal(size=40), "city": rng.choice(["Rome", "Oslo"], 40)})
    features.loc[3, "x"] = np.nan
    return Table("t", "y", features, pd.Series(rng.normal(size=40), name="y"))


@pytest.fixture(scope="module")
def fitted():
    split = split_table(table())
    model, _ = fit_split(split, widths=(4,), max_steps=2)
    # With everything that a fit may keep.
    regressor = model.pipeline[-1].set_params(infinite_width=True)
    regressor.fit(model.pipeline[:-1].transform(split.x_train), split.y_train)
    assert regressor.infinite_width_
    return model, split


@pytest.fixture
def path(fitted, tmp_path):
    save_model(fitted[0], tmp_path / "model.cx")
    return tmp_path / "model.cx"


def rewrite(path, **changes):
    stored = skops.io.loads(path.read_bytes(), trusted=persistence.TRUSTED)
    path.write_bytes(skops.io.dumps({name: value for name, value in (stored | changes).items() if value is not None}))


def test_a_loaded_model_predicts_the_same(fitted, path):
    model, split = fitted
    loaded = load_model(path)
    for one, other in zip(
        model.pipeline.predict(split.x_test, return_std=True),
        loaded.pipeline.predict(split.x_test, return_std=True),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    assert (loaded.task, loaded.columns, loaded.target_name) == (model.task, model.columns, "y")
    assert loaded.versions == model.versions
    assert loaded.pipeline[-1].status_ is RunStatus.MAX_STEPS


def test_the_allow_list_is_what_a_model_needs(fitted, path):
    assert fitted[0].pipeline[-1].callback is None
    needed = set(skops.io.get_untrusted_types(data=path.read_bytes()))
    # What a stream of classes needs besides.
    needed |= {"concordax.sklearn.classifier.GGNClassifier", "concordax.sklearn.reservoir.Reservoir"}
    assert needed == set(persistence.TRUSTED)


def test_a_stream_goes_on_after_a_file():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    model = GGNRegressor(hidden_widths=(5,), max_steps=4).partial_fit(x[:20], y[:20])
    loaded = skops.io.loads(skops.io.dumps(model), trusted=persistence.TRUSTED)
    for each in (model, loaded):
        each.partial_fit(x[20:], y[20:])
    np.testing.assert_allclose(loaded.predict(x), model.predict(x), rtol=1e-10)


def test_a_file_with_a_foreign_function_is_refused(path):
    rewrite(path, pipeline=FunctionTransformer(os.getcwd))
    with pytest.raises(ModelFileError, match=r"refused.*getcwd"):
        load_model(path)


def zipped(**entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in entries.items():
            archive.writestr(f"{name}.json", text)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(sheet="{}"), "damaged or no concordax model"),
        (zipped(schema="{"), "damaged or no concordax model"),
        (zipped(schema='{"protocol": 0}'), "damaged or no concordax model"),
        (b"", "damaged or no concordax model"),
        (b"a,b\n1,2\n", "damaged or no concordax model"),
        (b"\x80\x04\x95", "damaged or no concordax model"),
        (skops.io.dumps([1, 2]), "no concordax model file"),
        (skops.io.dumps({"format": "other"}), "no concordax model file"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content, message):
    path = tmp_path / "model.cx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(path)


def test_flipped_bytes_never_give_another_error(path):
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    refused = 0
    for position in rng.integers(len(content), size=25):
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            load_model(path)
        except ModelFileError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2; this concordax reads 5"),
        ({"format_version": None}, "format version None"),
        ({"columns": None}, "part of the model is missing"),
        ({"pipeline": "text"}, "part of the model is missing"),
        ({"task": {"kind": "regression"}}, "part of the model is missing"),
    ],
)
def test_another_version_or_a_missing_part_is_named(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def test_no_such_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no model file"):
        load_model(tmp_path / "none.cx")
    with pytest.raises(UsageError, match="no model file"):
        load_model(tmp_path)


FULL_DISK = """
import resource, sys
from pathlib import Path
from concordax.errors import ModelFileError
from concordax.persistence import load_model, save_model
path = Path(sys.argv[1])
model = load_model(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_model(model, path)
except ModelFileError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(path):
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, timeout=100)
    assert done.returncode == 7, done.stderr
    assert "could not be written" in done.stdout
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
