"""Data of nearly the same size share one compiled program."""

import jax
import numpy as np
import pytest

sklearn_model_selection = pytest.importorskip("sklearn.model_selection")
from concordax.sklearn import GGNClassifier, GGNRegressor  # noqa: E402


class _Compilations:
    """Counts compilations by their own announcements; those of `_step` are the long ones, but none may be repeated."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event, duration, **_):
        del duration
        # Announced also where a compiled program is read from the disk.
        self.count += event == "/jax/core/compile/backend_compile_duration"


COMPILATIONS = _Compilations()


@pytest.mark.parametrize("rows", [500, 503])
def test_folds_compile_once(rows):
    """Five folds of 500 rows, and of 503, which are not of one size: the first compiles, the others do not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3 if rows == 500 else 4))
    y = np.sin(x[:, 0]) + 0.1 * rng.normal(size=rows)
    estimator = GGNRegressor(hidden_widths=(6,), max_steps=2)
    counts = []
    for train, test in sklearn_model_selection.KFold(5).split(x):
        before = COMPILATIONS.count
        estimator.fit(x[train], y[train]).predict(x[test[:100]])
        counts.append(COMPILATIONS.count - before)
    assert counts[0] > 0
    assert counts[1:] == [0] * 4


def test_a_larger_table_compiles_anew():
    """The counter counts: another size is another program."""
    rng = np.random.default_rng(0)
    estimator = GGNClassifier(hidden_widths=(6,), max_steps=2)
    for rows in (40, 80):
        before = COMPILATIONS.count
        x = rng.normal(size=(rows, 3))
        estimator.fit(x, x[:, 0] > 0)
        assert COMPILATIONS.count > before
