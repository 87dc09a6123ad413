"""Data sets that need no network: scikit-learn's bundled ones as tables."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from sklearn import datasets

from concordax.errors import UsageError, suggest


@dataclass(frozen=True)
class Bundled:
    """A bundled data set: its default target, its size, one line on what it is, and its loader."""

    target: str
    rows: int
    columns: int
    description: str
    loader: Callable


BUNDLED = {
    "diabetes": Bundled(
        "target", 442, 10, "progression of diabetes after one year, from blood tests", datasets.load_diabetes
    ),
    "breast-cancer": Bundled(
        "diagnosis", 569, 30, "malignant or benign, from images of cells", datasets.load_breast_cancer
    ),
    "wine": Bundled("cultivar", 178, 13, "one of three cultivars, from a chemical analysis", datasets.load_wine),
    "digits": Bundled("digit", 1797, 64, "handwritten digits 0 to 9, from 8 x 8 pixels", datasets.load_digits),
    "iris": Bundled("species", 150, 4, "one of three species, from lengths and widths", datasets.load_iris),
}

# Sets whose target is a number by itself; the others carry the names of their classes.
_UNNAMED = ("diabetes", "digits")


def load_bundled(name: str) -> pd.DataFrame:
    """Loads a bundled data set.

    Args:
        name: One of `BUNDLED`.

    Returns:
        The table with its target column, classes under their names.

    Raises:
        UsageError: There is no such set.
    """
    if name not in BUNDLED:
        raise UsageError(f"There is no file and no bundled data set {name!r}.{suggest(name, BUNDLED)}")
    entry = BUNDLED[name]
    data = entry.loader(as_frame=True)
    frame = data.frame.rename(columns={"target": entry.target})
    if name not in _UNNAMED:
        frame[entry.target] = [str(data.target_names[code]) for code in data.target]
    return frame
