"""Estimators on tables that nobody would wish for, their messages, and how they stand beside simple peers."""

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")
from sklearn.datasets import load_diabetes  # noqa: E402
from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402

from concordax.sklearn import GGNRegressor  # noqa: E402
from table_cases import SMALL, sine  # noqa: E402


def _rotten(kind):
    rng = np.random.default_rng(0)
    x, y = sine(120)
    if kind == "scales":
        x = x * [1e-150, 1.0, 1e150]
    elif kind == "constant":
        x = np.concatenate([x, np.full((120, 2), 7.0)], axis=1)
    elif kind == "duplicated rows":
        x, y = np.repeat(x[:60], 2, axis=0), np.repeat(y[:60], 2)
    elif kind == "duplicated columns":
        x = np.repeat(x, 4, axis=1)
    elif kind == "outlier":
        x[3] = [1e6, -1e9, 1e3]
    elif kind == "more columns than rows":
        x = np.concatenate([x, rng.normal(size=(120, 600))], axis=1)
    elif kind == "one-hot":
        codes = rng.integers(0, 30, 120)
        x, y = np.concatenate([x, np.eye(30)[codes]], axis=1), y + 0.1 * codes
    return x, y


KINDS = ("scales", "constant", "duplicated rows", "duplicated columns", "outlier", "more columns than rows", "one-hot")


@pytest.mark.parametrize("kind", KINDS)
def test_odd_tables_give_finite_predictions(kind):
    x, y = _rotten(kind)
    model = GGNRegressor(hidden_widths=(20,)).fit(x[:90], y[:90])
    mean, std = model.predict(x[90:], return_std=True)
    assert np.isfinite(mean).all()
    assert (np.isfinite(std) & (std > 0)).all()
    mean_alone = np.sqrt(np.mean((y[90:] - y[:90].mean()) ** 2))
    assert np.sqrt(np.mean((mean - y[90:]) ** 2)) < 1.05 * mean_alone
    assert model.status_.succeeded


def test_an_outlier_among_the_inputs_does_not_spoil_the_rest():
    x, y = sine(150)
    spoilt = x.copy()
    spoilt[0, 0] = 1e9
    new, truth = sine(300, seed=7)
    clean, found = (GGNRegressor(hidden_widths=(20,)).fit(each, y).predict(new) for each in (x, spoilt))
    error = lambda prediction: np.sqrt(np.mean((prediction - truth) ** 2))
    assert error(found) < 1.3 * error(clean)


def test_pseudo_huber_withstands_outliers_among_the_targets():
    x, y = sine(200)
    rng = np.random.default_rng(2)
    y[rng.choice(200, 10, replace=False)] += 30 * rng.normal(size=10)
    new, truth = sine(300, seed=7)
    plain, robust = (
        GGNRegressor(hidden_widths=(20,), loss=loss).fit(x, y).predict(new)
        for loss in ("squared_error", "pseudo_huber")
    )
    error = lambda prediction: np.sqrt(np.mean((prediction - truth) ** 2))
    assert error(robust) < 0.3
    assert error(robust) < 0.5 * error(plain)


def test_a_constant_target_is_predicted():
    x, _ = sine(30)
    mean, std = GGNRegressor(**SMALL).fit(x, np.full(30, 5.0)).predict(x, return_std=True)
    np.testing.assert_allclose(mean, 5.0, atol=1e-3)
    assert np.isfinite(std).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_widths": (0,)}, "whole numbers from 1 up"),
        ({"hidden_widths": (2.5,)}, "whole numbers from 1 up"),
        ({"hidden_widths": "wide"}, "hidden_widths"),
        ({"strength": -1.0}, "strength"),
        ({"strength": "best"}, "strength"),
        ({"dtype": "float16"}, "dtype"),
        ({"loss": "absolute"}, "loss"),
    ],
)
def test_messages_name_the_parameter(parameters, message):
    x, y = sine(20)
    with pytest.raises(ValueError, match=message):
        GGNRegressor(**parameters).fit(x, y)


def test_diabetes_is_no_worse_than_ridge():
    x, y = load_diabetes(return_X_y=True)
    network, ridge = GGNRegressor().fit(x[:350], y[:350]), Ridge(0.1).fit(x[:350], y[:350])
    error = lambda model: np.sqrt(np.mean((model.predict(x[350:]) - y[350:]) ** 2))
    assert error(network) < 1.05 * error(ridge)


def test_error_bars_widen_like_those_of_a_gaussian_process():
    x, y = sine(60)
    far = x + 10.0
    network, process = GGNRegressor(**SMALL).fit(x, y), GaussianProcessRegressor(normalize_y=True).fit(x, y)
    for model in (network, process):
        assert model.predict(far, return_std=True)[1].min() > model.predict(x, return_std=True)[1].mean()
