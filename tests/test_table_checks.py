"""Each fault of a table by a table that has it, and sound tables that show none."""

import numpy as np
import pandas as pd
import pytest

from concordax.diagnosis import Severity
from concordax.table_checks import check_table
from concordax.tabular import split_target


def sound(rows=80):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "z": 30 * rng.normal(size=rows) + 5})
    frame["city"] = rng.choice(["Rome", "Oslo", "Lima"], rows)
    frame["day"] = pd.date_range("2024-01-01", periods=rows)
    frame.loc[3, "x"] = np.nan
    frame["y"] = 2 * frame["z"] + rng.normal(size=rows)
    return frame


def check(frame, target="y"):
    return {finding.name: finding for finding in check_table(split_target(frame, target, name="t.csv"))}


@pytest.mark.parametrize("target", ["y", "city"])
def test_a_sound_table_shows_nothing(target):
    assert check(sound(), target) == {}


def test_values_that_are_not_finite():
    frame = sound()
    frame.loc[[2, 7], "z"] = [np.inf, -1e200]
    frame.loc[4, "y"] = np.inf
    frame.loc[[5, 6], "y"] = np.nan
    found = check(frame)
    assert found["values that are not finite"].evidence == {"cells": 3, "columns": "'z', 'y'"}
    assert found["target missing"].evidence == {"rows": 2, "of": 80}
    assert {found[name].severity for name in ("values that are not finite", "target missing")} == {Severity.SERIOUS}


@pytest.mark.parametrize(
    ("leak", "target"),
    [
        (lambda frame: frame["y"], "y"),
        (lambda frame: 32 - 1.8 * frame["y"], "y"),
        (lambda frame: frame["y"].where(frame.index != 9), "y"),
        (lambda frame: frame["city"].map({"Rome": 1, "Oslo": 2, "Lima": 3}), "city"),
        (lambda frame: frame["city"], "city"),
        (lambda frame: frame["city"] == "Rome", "capital"),
    ],
    ids=["itself", "other units", "a gap", "codes", "its names", "flag"],
)
def test_the_target_among_the_columns(leak, target):
    frame = sound().assign(capital=lambda frame: np.where(frame["city"] == "Rome", "yes", "no"))
    frame["leak"] = leak(frame)
    if target == "capital":
        frame = frame.drop(columns="city")
    finding = check(frame, target)["the target among the columns"]
    assert finding.severity == Severity.SERIOUS
    assert finding.evidence == {"columns": "'leak'"}


def test_a_good_predictor_and_an_identifier_are_no_leaks():
    frame = sound().assign(
        close=lambda frame: frame["y"] + 3 * np.sin(np.arange(80)), name=[f"person {i}" for i in range(80)]
    )
    assert "the target among the columns" not in check(frame)
    assert "the target among the columns" not in check(frame.assign(who=[f"p{i}" for i in range(80)]), "who")


def test_few_rows():
    assert check(sound(49))["few rows"].severity == Severity.WARNING
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 20))).rename(columns=str)
    assert check(wide, "0")["few rows"].evidence == {"rows": 60, "columns": 19}
    assert check(wide, "0")["few rows"].severity == Severity.NOTE


def test_same_columns_with_different_targets():
    frame = sound()
    frame = pd.concat([frame, frame.iloc[[3, 8]].assign(y=-999.0), frame.iloc[[9]]])
    finding = check(frame)["same columns, different targets"]
    # The two rows that contradict and the two that they contradict, the first of them the fourth.
    assert finding.evidence == {"rows": 4, "of": 83, "first": "row 4"}
    assert finding.severity == Severity.WARNING


def test_columns_that_say_nothing_or_the_same():
    frame = sound().assign(
        one=1.0, again=1.0, text="a", empty=np.nan, mm=lambda frame: 1000 * frame["z"],
        town=lambda frame: frame["city"],
        name=[f"person {i}" for i in range(80)],
    )  # fmt: skip
    found = check(frame)
    assert found["constant columns"].evidence == {"columns": "'one', 'again', 'text'"}
    assert found["duplicate columns"].evidence == {"columns": "'mm = z', 'town = city'"}
    assert "names or free text" in found["columns left out"].meaning
    assert "has no values" in found["columns left out"].meaning
    only = pd.DataFrame({"name": [f"person {i}" for i in range(80)], "y": np.arange(80)})
    assert check(only)["no usable column"].severity == Severity.SERIOUS


def test_wildly_different_scales():
    assert "wildly different scales" not in check(sound().assign(z=lambda frame: 1e4 * frame["z"]))
    found = check(sound().assign(z=lambda frame: 1e5 * frame["z"]))["wildly different scales"]
    assert list(found.evidence) == ["standard deviation of 'z'", "of 'x'"]
    assert found.evidence["of 'x'"] == pytest.approx(sound()["x"].std(ddof=0))


@pytest.mark.parametrize(
    "column",
    [[[1], [2]] * 40, [None] * 80, [True, False] * 40, [1 + 2j] * 80, ["a", 3] * 40, pd.array([1, None] * 40, "Int64")],
    ids=["lists", "nothing", "flags", "complex", "mixed", "nullable"],
)
@pytest.mark.parametrize("place", ["column", "target"])
def test_columns_of_any_kind_can_be_looked_at(column, place):
    frame = sound().assign(odd=pd.Series(column, dtype=None if hasattr(column, "dtype") else object))
    assert all(str(finding) for finding in check(frame, "y" if place == "column" else "odd").values())
