"""Tables: reading, the task, column kinds, the preprocessor, and the held-out rows."""

import numpy as np
import pandas as pd
import pytest

from concordax.bundled import BUNDLED, load_bundled
from concordax.columns import build_preprocessor, convert, describe_columns
from concordax.errors import DataError, UsageError
from concordax.tabular import Table, check_target, decide_task, read_frame, split_table, split_target, target_values


def mixed(rows=60):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=rows),
            "city": rng.choice(["Rome", "Oslo", "Bonn"], rows),
            "day": pd.date_range("2024-01-01", periods=rows).astype(str),
            "flag": rng.random(rows) < 0.5,
        }
    )
    frame.loc[3, "x"] = np.nan
    frame.loc[4, "city"] = None
    return frame


def table(target, features=None):
    target = pd.Series(target, name="y")
    features = pd.DataFrame({"x": np.arange(len(target), dtype=float)}) if features is None else features
    return Table("t", "y", features, target)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_in_any_dialect_reads_the_same(tmp_path, separator, suffix):
    path = tmp_path / f"t{suffix}"
    pd.DataFrame({" a ": [1.5, 2.0], 'b, "c"': ["u", None]}).to_csv(
        path, sep=separator, index=False, encoding="utf-8-sig"
    )
    frame = read_frame(path)
    assert list(frame.columns) == ["a", 'b, "c"']
    assert frame["a"].tolist() == [1.5, 2.0]
    assert frame['b, "c"'].isna().tolist() == [False, True]


def test_parquet_and_csv_give_the_same_features(tmp_path):
    frame = mixed()
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.assign(day=pd.to_datetime(frame["day"])).to_parquet(tmp_path / "t.parquet")
    results = []
    for name in ("t.csv", "t.parquet"):
        read = read_frame(tmp_path / name)
        columns, notes = describe_columns(read)
        assert notes == ()
        assert [column.kind for column in columns] == ["number", "category", "date", "category"]
        results.append(build_preprocessor(columns).fit_transform(convert(read, columns)))
    np.testing.assert_allclose(results[0], results[1])
    assert np.isfinite(results[0]).all()


def test_question_mark_is_missing(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n?,3\n")
    assert read_frame(tmp_path / "t.csv")["a"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"\n\n", "is empty"),
        ("t.csv", b"a,b\n", "no rows"),
        ("t.csv", b"a,b\n1,2,3\n4,5,6\n", "more fields"),
        ("t.csv", b"a,b\n1,2\n4,5,6\n", "line 3"),
        ("t.csv", b"a\n\xff\xfe\xfa\n", "UTF-8"),
        ("t.csv", b"a,a\n1,2\n", None),
        ("t.parquet", b"PAR1nonsense", "Parquet"),
        ("t.parquet", b"", "Parquet"),
        ("t.csv.gz", b"no gzip", "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    if message is None:
        assert list(read_frame(path).columns) == ["a", "a.1"]
        return
    with pytest.raises(DataError, match=message) as caught:
        read_frame(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_repeat_after_stripping_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text('a,"a "\n1,2\n')
    with pytest.raises(DataError, match="more than one column named 'a'"):
        read_frame(tmp_path / "t.csv")


@pytest.mark.parametrize(("name", "message"), [("none.csv", "no file"), (".", "folder"), ("t.xlsx", "save it as .csv")])
def test_a_path_that_is_no_table_is_a_usage_error(tmp_path, name, message):
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match=message):
        read_frame(tmp_path / name)


def test_missing_target_column_suggests_the_closest():
    frame = pd.DataFrame({"height": [1.0], "weight": [2.0]})
    with pytest.raises(UsageError, match="Did you mean 'weight'"):
        split_target(frame, "weigth", name="t")
    with pytest.raises(UsageError, match="'height', 'weight'"):
        split_target(frame, "zzz", name="t")
    with pytest.raises(UsageError, match="no line of column names"):
        split_target(pd.DataFrame({"1.5": [1.0], "2": [2.0]}), "y", name="t")
    with pytest.raises(DataError, match="no column besides"):
        split_target(frame[["height"]], "height", name="t")


@pytest.mark.parametrize(
    ("target", "kind", "loss", "reason"),
    [
        (np.linspace(0, 1, 60), "regression", "squared error", "60 different ones in 60 rows"),
        (np.arange(60), "regression", "squared error", "numbers"),
        (np.arange(210) % 21, "regression", "squared error", "21 different"),
        (np.arange(200) % 20, "classification", "softmax cross-entropy", "20 different whole numbers"),
        (np.arange(60) % 13, "regression", "squared error", "13 different"),
        (np.arange(60) % 12, "classification", "softmax cross-entropy", "--loss squared-error"),
        (np.arange(60) % 2 * 1.0, "classification", "binary cross-entropy", "2 different whole numbers"),
        (np.arange(60) % 2 / 2, "regression", "squared error", "numbers"),
        (np.arange(60) % 2 == 0, "classification", "binary cross-entropy", "2 classes"),
        (list("abc") * 20, "classification", "softmax cross-entropy", "3 classes"),
    ],
)
def test_the_task_follows_from_the_target(target, kind, loss, reason):
    task = decide_task(pd.Series(target, name="y"))
    assert (task.kind, task.loss) == (kind, loss)
    assert reason in task.reason
    assert task.reason.count(".") == 1


def test_a_loss_asked_for_is_taken_or_refused():
    codes = pd.Series(np.arange(60) % 3, name="y")
    assert decide_task(codes, "squared-error").kind == "regression"
    assert decide_task(codes, "softmax-cross-entropy").kind == "classification"
    with pytest.raises(DataError, match="holds 3"):
        decide_task(codes, "binary-cross-entropy")
    with pytest.raises(DataError, match="use binary-cross-entropy"):
        decide_task(codes % 2, "softmax-cross-entropy")
    with pytest.raises(DataError, match="60 different numbers in 60 rows"):
        decide_task(pd.Series(np.linspace(0, 1, 60), name="y"), "softmax-cross-entropy")
    with pytest.raises(DataError, match="60 different texts"):
        decide_task(pd.Series([f"t{i}" for i in range(60)], name="y"))
    text = pd.Series(["1", "2.5", "many"], name="y")
    with pytest.raises(DataError, match="'many' in row 3"):
        target_values(text, decide_task(text, "squared-error"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([1.0, np.nan, 3, 4, 5, 6], "missing in 1 of 6 rows, first in row 2"),
        ([1.0, 2, np.inf, 4, 5, 6], "infinite or beyond 1e\\+150 in row 3"),
        ([1.0, 2, 3e200, 4, 5, 6], "row 3"),
        ([7.0] * 6, "is 7.0 in every row"),
        (["a"] * 6, "is a in every row"),
        ([1.0], "There are 1 rows"),
        (["a", None, "b", "a", "b", "a"], "missing in 1 of 6"),
        (pd.date_range("2024-01-01", periods=6), "dates"),
        ([[1], [2], [3], [4], [5], [6]], "lists"),
        ([1j, 2, 3, 4, 5, 6], "complex"),
    ],
)
def test_a_bad_target_is_refused(target, message):
    with pytest.raises(DataError, match=message):
        check_target(pd.Series(target, name="y"))


def test_columns_that_say_nothing_are_left_out():
    frame = mixed()
    frame["Unnamed: 0"] = np.arange(60)
    frame["name"] = [f"person {i}" for i in range(60)]
    frame["empty"] = np.nan
    frame["list"] = [[i] for i in range(60)]
    frame["wait"] = pd.to_timedelta(np.arange(60), unit="s")
    columns, notes = describe_columns(frame)
    assert [column.name for column in columns] == ["x", "city", "day", "flag"]
    assert [note.split("'")[1] for note in notes] == ["Unnamed: 0", "name", "empty", "list", "wait"]
    with pytest.raises(DataError, match=r"No column is left.*free text"):
        describe_columns(frame[["name"]])


def test_all_text_columns_are_fine_as_categories():
    columns, notes = describe_columns(mixed()[["city"]])
    assert notes == ()
    encoded = build_preprocessor(columns).fit_transform(convert(mixed(), columns))
    assert encoded.shape == (60, 4)  # three cities, and one row where it is missing
    assert (encoded.sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", np.inf, "'x' is infinite .* row 6"),
        ("x", -1e200, "'x' is infinite"),
        ("x", "tall", "'x' needs a number in each row; row 6 holds 'tall'"),
        ("day", "yesterday", "'day' needs a date"),
    ],
)
def test_a_bad_feature_is_refused_with_its_column_and_row(column, value, message):
    columns, _ = describe_columns(mixed())
    frame = mixed().astype({column: object})
    frame.loc[5, column] = value
    with pytest.raises(DataError, match=message):
        convert(frame, columns)


def test_a_gap_gets_the_mean_and_a_mark():
    frame = pd.DataFrame({"x": [1.0, np.nan, 5.0]})
    columns, _ = describe_columns(frame)
    encoded = build_preprocessor(columns).fit_transform(convert(frame, columns))
    assert encoded.shape == (3, 2)
    assert encoded[1, 0] == 0  # the mean, standardized
    assert encoded[1, 1] > encoded[0, 1] == encoded[2, 1]


def test_missing_columns_are_all_named():
    columns, _ = describe_columns(mixed())
    with pytest.raises(UsageError, match="lacks 2 of 4 columns: 'city', 'day'"):
        convert(mixed()[["flag", "x"]], columns)


def test_unseen_categories_and_new_gaps_are_fine():
    columns, _ = describe_columns(mixed())
    preprocessor = build_preprocessor(columns).fit(convert(mixed(), columns))
    new = pd.DataFrame({"x": [np.nan], "city": ["Lima"], "day": [None], "flag": [None], "more": ["ignored"]})
    encoded = preprocessor.transform(convert(new, columns))
    assert np.isfinite(encoded).all()


def test_whole_numbers_are_one_label_with_or_without_a_decimal_point():
    ints = pd.Series([1, 2, 2], dtype="category", name="c")
    floats = pd.Series([1.0, 2.0, 2.0], dtype="category", name="c")
    columns, _ = describe_columns(pd.DataFrame({"c": ints}))
    assert columns[0].kind == "category"
    pd.testing.assert_frame_equal(
        convert(pd.DataFrame({"c": ints}), columns), convert(pd.DataFrame({"c": floats}), columns)
    )


def test_nullable_columns_are_numbers():
    frame = pd.DataFrame(
        {"n": pd.array([1, None, 3], dtype="Int64"), "b": pd.array([True, None, False], dtype="boolean")}
    )
    columns, _ = describe_columns(frame)
    assert [column.kind for column in columns] == ["number", "category"]
    np.testing.assert_array_equal(convert(frame, columns)["n"], [1, np.nan, 3])


@pytest.mark.parametrize("seed", range(4))
def test_split_keeps_shares_and_every_class(seed):
    labels = ["a"] * 50 + ["b"] * 40 + ["c"] * 9 + ["d"]
    split = split_table(table(labels), test_size=0.2, seed=seed)
    assert [int(np.sum(split.y_test == label)) for label in "abcd"] == [10, 8, 2, 0]
    assert set(split.y_train) == set("abcd")
    assert len(split.notes) == 1
    assert "class d has one row" in split.notes[0]
    # No row in both parts, and none lost.
    assert sorted([*split.x_train["x"], *split.x_test["x"]]) == list(range(100))


def test_even_a_large_share_leaves_each_class_a_row():
    split = split_table(table(["a", "b", "c", "d"] * 3), test_size=0.9)
    assert set(split.y_train) == set("abcd")
    assert len(split.y_test) > 0


def test_split_is_decided_by_the_seed():
    values = np.linspace(0, 1, 50) ** 2
    first, second, other = (split_table(table(values), seed=seed) for seed in (0, 0, 1))
    assert first.x_test.equals(second.x_test)
    assert not first.x_test.equals(other.x_test)
    assert len(first.y_test) == 10


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0, np.nan])
def test_a_share_out_of_range_is_a_usage_error(share):
    with pytest.raises(UsageError, match="test_size"):
        split_table(table(np.linspace(0, 1, 50)), test_size=share)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_are_as_listed(name):
    entry = BUNDLED[name]
    loaded = split_target(load_bundled(name), entry.target, name=name)
    assert loaded.features.shape == (entry.rows, entry.columns)
    split = split_table(loaded)
    assert split.task.kind == ("regression" if name == "diabetes" else "classification")
    assert split.notes == ()


def test_an_unknown_set_suggests_the_closest():
    with pytest.raises(UsageError, match="Did you mean 'diabetes'"):
        load_bundled("diabets")
