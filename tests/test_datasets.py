"""Data sets of the experiments: files, what is wrong with them, and the network's side on a local server."""

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

sklearn_datasets = pytest.importorskip("sklearn.datasets")
pooch = pytest.importorskip("pooch")
from concordax.experiments import datasets  # noqa: E402
from concordax.experiments.datasets import DatasetError, load  # noqa: E402


def _arrays(**changes):
    rng = np.random.default_rng(0)
    arrays = {
        "X_train": rng.integers(0, 9, (8, 3)).astype(np.uint8), "y_train": np.array(list("abcabcab")),
        "X_test": rng.integers(0, 9, (4, 3)).astype(np.uint8), "y_test": np.array(list("abca")),
    }  # fmt: skip
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def test_a_file_gives_numbers_and_classes_from_0(tmp_path):
    arrays = _arrays()
    np.savez(tmp_path / "letter.npz", **arrays)
    found = load("letter", tmp_path)
    np.testing.assert_array_equal(found.X_train, arrays["X_train"])
    assert found.X_train.dtype == float
    assert found.labels == ("a", "b", "c")
    assert found.y_train.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert found.y_test.tolist() == [0, 1, 2, 0]
    assert str(tmp_path) not in found.source


def test_the_checksum_is_that_of_all_numbers(tmp_path):
    sums = set()
    for number, change in enumerate(({}, {"X_test": np.ones((4, 3))}, {"y_train": np.array(list("abcabcac"))})):
        folder = tmp_path / str(number)
        folder.mkdir()
        np.savez(folder / "avila.npz", **_arrays(**change))
        sums |= {load("avila", folder).checksum, load("avila", folder).checksum}
    assert len(sums) == 3


def test_a_part_of_mnist_serves_where_the_whole_is_not(tmp_path):
    np.savez(tmp_path / "mnist10k.npz", **_arrays())
    assert load("mnist", tmp_path).source == "the file mnist10k.npz"
    np.savez(tmp_path / "mnist.npz", **_arrays())
    assert load("mnist", tmp_path).source == "the file mnist.npz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks the arrays y_test"),
        ({"X_train": np.ones(8)}, "X_train must be"),
        ({"y_train": np.zeros(7)}, "X_train must be"),
        ({"X_test": np.full((4, 3), np.nan)}, "X_test must hold finite numbers"),
        ({"X_test": np.array([["a"] * 3] * 4)}, "X_test must hold finite numbers"),
        ({"X_test": np.ones((4, 2))}, "3 columns, X_test 2"),
        ({"y_train": np.array(["a"] * 8), "y_test": np.array(["a"] * 4)}, "at least two classes"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "pendigits.npz", **_arrays(**changes))
    with pytest.raises(DatasetError, match=message):
        load("pendigits", tmp_path)


def test_a_damaged_file_a_missing_one_and_an_unknown_name_are_refused(tmp_path):
    (tmp_path / "letter.npz").write_bytes(b"PK\x03\x04 not at all")
    wrong = {"letter": "damaged", "avila": r"avila\.npz.*from the network", "iris": "no data set 'iris'"}
    for name, message in wrong.items():
        with pytest.raises(DatasetError, match=message):
            load(name, tmp_path)


def test_without_a_network_the_error_names_both_ways(monkeypatch):
    def down(**_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(sklearn_datasets, "fetch_openml", down)
    with pytest.raises(DatasetError, match=r"With a network.*--data-dir"):
        load("letter")


@pytest.fixture
def server(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def _serve_avila(server, tmp_path, monkeypatch, digests=None):
    folder, address = server
    rows = {"tr.txt": "0.5,-1.25,A\n2,3,B\n", "ts.txt": "4,5,A\n"}
    for name, text in rows.items():
        (folder / name).write_text(text)
    digests = digests or {name: hashlib.sha256(text.encode()).hexdigest() for name, text in rows.items()}
    monkeypatch.setattr(datasets, "_AVILA", address)
    monkeypatch.setattr(datasets, "_AVILA_FILES", digests)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    return folder


def test_a_table_is_fetched_checked_and_kept(server, tmp_path, monkeypatch):
    folder = _serve_avila(server, tmp_path, monkeypatch)
    for known, message in (((2, 1), None), ((3, 1), "2 . 1 rows")):
        monkeypatch.setitem(datasets._KNOWN, "avila", datasets._Known(known, datasets._avila))
        if message:
            with pytest.raises(DatasetError, match=message):
                load("avila")
        else:
            found = load("avila")
            np.testing.assert_array_equal(found.X_train, [[0.5, -1.25], [2, 3]])
            assert (found.labels, found.y_test.tolist()) == (("A", "B"), [0])
    monkeypatch.setitem(datasets._KNOWN, "avila", datasets._Known((2, 1), datasets._avila, "another"))
    with pytest.raises(DatasetError, match=r"not 2 . 1 and another"):
        load("avila")
    # From the cache: what is served is gone.
    (folder / "tr.txt").unlink()
    monkeypatch.setitem(datasets._KNOWN, "avila", datasets._Known((2, 1), datasets._avila))
    assert load("avila").checksum == found.checksum


def test_a_file_with_another_sum_is_refused(server, tmp_path, monkeypatch):
    _serve_avila(server, tmp_path, monkeypatch, {"tr.txt": "0" * 64, "ts.txt": "0" * 64})
    with pytest.raises(DatasetError, match=r"could not be fetched.*hash"):
        load("avila")


def test_first_rows_of_a_table_of_openml_are_for_training(monkeypatch):
    x, y = np.arange(12.0).reshape(6, 2), np.array(list("xyxyxy"))
    monkeypatch.setattr(
        sklearn_datasets, "fetch_openml", lambda **_: type("Table", (), {"data": x, "target": y})
    )
    monkeypatch.setitem(datasets._KNOWN, "letter", datasets._Known((4, 2), datasets._openml(6, 4)))
    found = load("letter")
    np.testing.assert_array_equal(found.X_train, x[:4])
    np.testing.assert_array_equal(found.X_test, x[4:])
