"""Rows held out of training: which they are, and tables that have hardly any to spare."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from concordax.sklearn import GGNRegressor
from concordax.sklearn.held_out import is_held_out


def test_held_out_rows_depend_on_the_row_alone():
    x = np.random.default_rng(0).normal(size=(4000, 5))
    parts = np.array([is_held_out(x, tenth) for tenth in range(10)])
    np.testing.assert_array_equal(parts.sum(axis=0), 1)
    np.testing.assert_allclose(parts.mean(axis=1), 0.1, atol=0.02)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_array_equal(is_held_out(x[order], 3), parts[3][order])
    np.testing.assert_array_equal(is_held_out(np.repeat(x[:50], 2, axis=0), 3), np.repeat(parts[3][:50], 2))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_each_network_holds_out_a_row_at_least(rows):
    x = np.random.default_rng(0).normal(size=(rows, 2))
    parts = np.array([is_held_out(x, tenth) for tenth in range(10)])
    assert parts.any(axis=1).all()
    assert (parts.sum(axis=0) > 0).all()


@pytest.mark.parametrize("inputs", [np.arange(6.0).reshape(3, 2), np.ones((20, 2))], ids=["three rows", "all the same"])
def test_rows_that_can_hardly_be_held_out_are_fitted(inputs):
    y = np.linspace(0, 1, len(inputs))
    model = GGNRegressor(hidden_widths=(5,), strength="held_out", max_steps=12).fit(inputs, y)
    assert len(model.networks_) == 5
    mean, std = model.predict(inputs, return_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
