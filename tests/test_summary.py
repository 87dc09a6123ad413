"""The summary of a fit against scikit-learn and closed forms; the estimators are stand-ins."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from concordax import RunStatus, __version__
from concordax import summary as module
from concordax.columns import build_preprocessor
from concordax.importance import importances
from concordax.summary import _describe_model, predict_in_chunks, reliability_bins, summarize
from concordax.tabular import Table, split_table


class StandIn(BaseEstimator):
    """What both estimators expose, with predictions that tests choose."""

    networks_ = ([(np.zeros((7, 1)), np.zeros(7)), (np.zeros((1, 7)), np.zeros(1))],)
    activation, strength_, noise_, target_is_log_, degrees_of_freedom_ = "tanh", 0.01, 2.0, False, 7.0
    effective_parameters_, n_parameters_, n_steps_, best_step_, seconds_ = 3.5, 22, 5, 4, 0.1
    status_, kernel_eigenvalues_ = int(RunStatus.CONVERGED), np.array([2.0, 1.0])

    def fit(self, x, y):
        self.n_features_in_, self.classes_ = x.shape[1], np.unique(y)
        self.history_ = {"loss": [3.0, 1.0], "effective_parameters": np.array([np.nan, 3.25, np.nan])}
        return self


class Regressor(StandIn):
    def fit(self, x, y):
        super().fit(x, y)
        del self.classes_
        return self

    def predict(self, x):
        return 10 * x[:, 0] + 1

    def predict_distribution(self, x, parameter_uncertainty=True):
        return stats.norm(self.predict(x), 1 + np.abs(x[:, 0]) if parameter_uncertainty else self.noise_)


class Classifier(StandIn):
    def predict_proba(self, x):
        logits = np.stack([x[:, 0], 0 * x[:, 0], -x[:, 0]], axis=1)
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def fitted(estimator, target, test_size=0.3):
    features = pd.DataFrame({"x": np.linspace(-2, 2, len(target))})
    split = split_table(Table("t", "y", features, pd.Series(target, name="y")), test_size=test_size)
    pipeline = Pipeline([("preprocessor", build_preprocessor(split.columns)), ("network", estimator)])
    return pipeline.fit(split.x_train, split.y_train), split


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    pipeline, split = fitted(Regressor(), 9 * np.linspace(-2, 2, 200) + rng.normal(size=200))
    return summarize(pipeline, split), split


@pytest.fixture(scope="module")
def classification():
    rng = np.random.default_rng(0)
    pipeline, split = fitted(Classifier(), rng.choice(["a", "b", "c"], 200, p=[0.5, 0.3, 0.2]))
    return summarize(pipeline, split), split


def by_name(summary):
    return {metric.name: metric for metric in summary.metrics}


def normal_logpdf(y, mean, std):
    return -0.5 * ((y - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def test_regression_scores(regression):
    summary, split = regression
    scores, y, mean = by_name(summary), summary.y_true, summary.y_pred
    std = np.ptp(summary.y_interval, axis=1) / (2 * 1.959964)
    center, spread = split.y_train.mean(), split.y_train.std()
    constant = np.full_like(y, center)
    expected = {
        "RMSE": (metrics.root_mean_squared_error(y, mean), metrics.root_mean_squared_error(y, constant)),
        "MAE": (metrics.mean_absolute_error(y, mean), metrics.mean_absolute_error(y, constant)),
        "R2": (metrics.r2_score(y, mean), metrics.r2_score(y, constant)),
        "log likelihood": (normal_logpdf(y, mean, std).mean(), normal_logpdf(y, center, spread).mean()),
        "log likelihood, noise only": (normal_logpdf(y, mean, 2.0).mean(), normal_logpdf(y, center, spread).mean()),
    }
    for name, (value, baseline) in expected.items():
        np.testing.assert_allclose((scores[name].value, scores[name].baseline), (value, baseline), err_msg=name)
    coverages = {
        "50% interval coverage": 0.6744898,
        "80% interval coverage": 1.2815516,
        "95% interval coverage": 1.959964,
    }
    for name, deviations in coverages.items():
        np.testing.assert_allclose(scores[name].value, np.mean(np.abs(y - mean) <= deviations * std))
    assert set(scores) == {*expected, *coverages}


def test_the_error_of_the_rmse_is_that_of_resampling(regression):
    summary, _ = regression
    errors = summary.y_true - summary.y_pred
    rng = np.random.default_rng(1)
    resampled = [np.sqrt(np.mean(rng.choice(errors, len(errors)) ** 2)) for _ in range(4000)]
    stated = float(by_name(summary)["RMSE"].note.removeprefix("± "))
    np.testing.assert_allclose(stated, np.std(resampled), rtol=0.1)


def test_coverage_is_counted_at_each_nominal_share(regression):
    summary, _ = regression
    assert [nominal for nominal, _ in summary.coverage] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    # The central half of a normal distribution lies within 0.67449 standard deviations.
    inside = np.abs(summary.y_deviations) <= 0.6744898
    assert dict(summary.coverage)[0.5] == inside.mean()


def test_classification_scores(classification):
    summary, split = classification
    scores, y, classes = by_name(summary), summary.y_true, list(summary.classes)
    shares = [np.mean(split.y_train == label) for label in classes]
    np.testing.assert_allclose(scores["accuracy"].value, metrics.accuracy_score(y, summary.y_pred))
    np.testing.assert_allclose(scores["accuracy"].baseline, np.mean(y == "a"))
    np.testing.assert_allclose(scores["log loss"].value, metrics.log_loss(y, summary.probabilities, labels=classes))
    np.testing.assert_allclose(scores["log loss"].baseline, metrics.log_loss(y, [shares] * len(y), labels=classes))
    assert set(scores) == {"accuracy", "log loss", "expected calibration error"}
    assert scores["accuracy"].note.startswith("± 0.0")


def test_importance_is_the_price_of_shuffling(regression):
    summary, _ = regression
    [column] = summary.importance
    # One column: shuffled, predictions and truth are independent.
    trivial = np.sqrt(2 * np.var(summary.y_pred)) - by_name(summary)["RMSE"].value
    assert column.column == "x"
    assert column.mean == pytest.approx(trivial, rel=0.15)
    assert 0 < column.std < 0.2 * column.mean


def test_the_most_important_column_comes_first():
    class Second(Regressor):
        def predict(self, x):
            return 5 * x["b"].to_numpy() + x["c"].to_numpy()

    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"])
    found = importances(Second(), x, 5 * x["b"].to_numpy() + x["c"].to_numpy(), regression=True)
    assert [each.column for each in found] == ["b", "c", "a"]
    # Nothing is left to explain: shuffled, the error is that of two independent draws.
    assert found[0].mean == pytest.approx(5 * np.sqrt(2) * x["b"].std(), rel=0.1)
    assert found[2].mean == 0.0


def test_importance_of_classes_survives_a_class_that_is_not_held_out():
    target = np.array(["a", "b"] * 30 + ["c"])
    pipeline, split = fitted(Classifier(), target)
    assert "c" not in split.y_test
    summary = summarize(pipeline, split)
    assert np.isfinite(summary.importance[0].mean)


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_probabilities():
    right = np.array([True] * 3 + [False])
    assert reliability_bins(np.full(4, 0.75), right) == ((0.75, 0.75, 4),)
    assert reliability_bins(np.ones(4), right) == ((1.0, 0.75, 4),)
    assert [rows for *_, rows in reliability_bins(np.array([0.91, 0.95, 0.99, 1.0]), right)] == [4]
    bins = reliability_bins(np.array([0.31, 0.39, 0.71, 0.79]), right)
    np.testing.assert_allclose(bins, [(0.35, 1.0, 2), (0.75, 0.5, 2)])


def test_expected_calibration_error_weighs_bins_by_rows(classification):
    summary, _ = classification
    confidence = summary.probabilities.max(axis=1)
    right = summary.y_true == summary.y_pred
    tenths = np.minimum(np.floor(confidence * 10), 9)
    gaps = [abs(confidence[tenths == t].sum() - right[tenths == t].sum()) for t in range(10)]
    value = by_name(summary)["expected calibration error"].value
    np.testing.assert_allclose(value, sum(gaps) / len(right))
    assert sum(rows for *_, rows in summary.reliability) == len(right)


def test_facts(regression, classification):
    summary, split = regression
    assert (summary.n_train, summary.n_test) == (len(split.y_train), len(split.y_test)) == (140, 60)
    assert summary.model == "MLP 1 -> 7 -> 1, tanh, 22 parameters"
    assert classification[0].model == "MLP 1 -> 7 -> 3, tanh, 22 parameters"
    assert summary.status == "converged"
    assert summary.message == RunStatus.CONVERGED.message
    assert (summary.noise, summary.probabilities, summary.classes, summary.reliability) == (2.0, None, (), ())
    assert summary.degrees_of_freedom == 7.0
    assert classification[0].noise is classification[0].degrees_of_freedom is None
    assert classification[0].y_interval is None
    assert classification[0].coverage == ()
    assert summary.versions["concordax"] == __version__
    assert isinstance(summary.history["loss"], np.ndarray)


def test_whole_number_labels_become_text():
    pipeline, split = fitted(Classifier(), np.arange(90) % 3)
    summary = summarize(pipeline, split)
    assert summary.classes == ("0", "1", "2")
    assert set(summary.y_true) == {"0", "1", "2"}
    assert set(summary.y_pred) <= {"0", "1", "2"}


def test_one_held_out_row_has_no_standard_error_and_no_r2():
    pipeline, split = fitted(Regressor(), np.linspace(0, 1, 8) ** 2, test_size=0.01)
    summary = summarize(pipeline, split)
    assert summary.n_test == 1
    assert by_name(summary)["RMSE"].note == ""
    assert "R2" not in by_name(summary)
    assert all(np.isfinite(metric.value) for metric in summary.metrics)


def test_the_spectrum_of_a_large_fit_is_left_out(monkeypatch):
    pipeline, split = fitted(Regressor(), np.linspace(0, 1, 50) ** 2)
    np.testing.assert_array_equal(summarize(pipeline, split).kernel_eigenvalues, [2.0, 1.0])
    monkeypatch.setattr(module, "MOST_EIGENVALUES", 21)
    assert summarize(pipeline, split).kernel_eigenvalues is None


def test_predictions_in_chunks_are_the_same(monkeypatch):
    pipeline, split = fitted(Regressor(), np.linspace(0, 1, 50) ** 2)
    whole = pipeline.predict(split.x_train)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 4)
    np.testing.assert_array_equal(predict_in_chunks(pipeline.predict, split.x_train), whole)
    both = predict_in_chunks(lambda x: (pipeline.predict(x), 2 * pipeline.predict(x)), split.x_train)
    np.testing.assert_array_equal(both, (whole, 2 * whole))


def test_the_line_on_the_model_counts_its_networks():
    one = StandIn().fit(np.zeros((2, 1)), np.zeros(2))
    assert _describe_model(one, "squared error") == "MLP 1 -> 7 -> 1, tanh, 22 parameters"
    one.networks_, one.infinite_width_ = 3 * StandIn.networks_, True
    assert _describe_model(one, "squared error") == (
        "mean of 3 networks, each an MLP 1 -> 7 -> 1, tanh, 22 parameters, and one of infinite width"
    )
