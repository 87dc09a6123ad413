"""How much each column of a table matters to a fit: what its shuffling costs on held-out rows."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.inspection import permutation_importance

# Rows and repetitions that give two digits; more cost predictions, of which there is one a column and repetition.
_ROWS = 1000
_REPEATS = 5


class Importance(NamedTuple):
    """A column, and by how much the score worsens when its values are shuffled: mean and standard deviation."""

    column: str
    mean: float
    std: float


def importances(model: Any, x: Any, y: np.ndarray, *, regression: bool) -> tuple[Importance, ...]:
    """Permutation importance of the columns, most important first.

    Args:
        model: A fitted pipeline.
        x: [m, k] held-out rows, a table with column names; the first thousand are used.
        y: [m] their targets.
        regression: Whether the score is the root mean squared error, else the log loss; both get worse upwards.

    Returns:
        One entry a column. Columns that say the same stand in for each other: each of them alone looks unimportant.

    Source: Breiman, Machine Learning 45, 2001.
    """
    x, y = x.iloc[:_ROWS], y[:_ROWS]
    found = permutation_importance(
        model, x, y, scoring=_rmse if regression else _log_loss, n_repeats=_REPEATS, random_state=0
    )
    order = np.argsort(-found.importances_mean)
    return tuple(
        Importance(str(x.columns[i]), float(found.importances_mean[i]), float(found.importances_std[i])) for i in order
    )


def _rmse(model: Any, x: Any, y: np.ndarray) -> float:
    return -float(np.sqrt(np.mean((model.predict(x) - y) ** 2)))


def _log_loss(model: Any, x: Any, y: np.ndarray) -> float:
    # Not scikit-learn's scorer: it refuses held-out rows that lack a class.
    chosen = model.predict_proba(x)[np.arange(len(y)), np.searchsorted(model[-1].classes_, y)]
    return float(np.mean(np.log(np.maximum(chosen, 1e-15))))
