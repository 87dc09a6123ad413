"""What a fit is worth: scores of held-out rows and all that the printed summary, the JSON and the HTML report show."""

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np
from scipy import stats
from scipy.special import ndtri_exp
from sklearn.pipeline import Pipeline

from concordax._status import RunStatus
from concordax._version import __version__
from concordax.importance import Importance, importances
from concordax.tabular import Split

NOMINAL_COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RELIABILITY_BINS = 10

# A probability of exactly zero would make one row's log loss infinite and hide all others.
SMALLEST_PROBABILITY = 1e-15

# An eigendecomposition of a larger matrix takes longer than the fit; the spectrum is a diagnostic only.
MOST_EIGENVALUES = 2000

# Rows predicted at a time: bounds the memory of the Jacobian of the predictions.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Metric:
    """A held-out score.

    Args:
        name: What is measured.
        value: The score.
        baseline: Score of the trivial predictor, or None if there is none.
        unit: Unit of the score, "" if it has none.
        note: A standard error or a reading aid, "" if there is none.
    """

    name: str
    value: float
    baseline: float | None
    unit: str
    note: str


@dataclass(frozen=True)
class FitSummary:
    """All that is shown of a fit; reports and plots compute nothing.

    Args:
        name: Data set or file name.
        task: What is learnt.
        target: Name of the target column.
        n_train: Rows learnt from.
        n_test: Held-out rows.
        n_columns: Columns of the table in use.
        n_features: Features after encoding.
        loss: "squared error", "softmax cross-entropy" or "binary cross-entropy".
        loss_reason: One sentence on why.
        model: One line on the network.
        metrics: Held-out scores.
        strength: Strength of the regularizer.
        noise: Standard deviation of the target noise, as `noise_unit` says; None for classification.
        noise_unit: "in units of the target", or "of the target's logarithm" where that is learnt.
        degrees_of_freedom: Of Student's t, which new observations follow; None for classification.
        effective_parameters: Effective number of parameters; None where it was neither estimated nor cheap to have.
        n_networks: Networks that predict together; strength and steps, and what follows on the run, are the first's.
        n_parameters: Number of parameters of each.
        n_steps: Steps taken.
        best_step: Steps taken when the parameters that were kept were reached.
        seconds: Wall time of the fit.
        status: Name of the run's status.
        message: Why it stopped, a sentence.
        history: One value a step for each name.
        y_true: [m] floats, or class labels as text.
        y_pred: [m] predictions of the same type.
        y_interval: [m, 2] ends of the 95% intervals of new observations; None for classification.
        y_deviations: [m] of the truth from the prediction, in standard deviations of a normal; None likewise.
        probabilities: [m, c]; None for regression.
        classes: The c labels, as text.
        coverage: Regression: (nominal, observed) share of held-out rows within the central interval.
        reliability: Classification: (mean confidence, observed accuracy, rows) of each bin that is not empty.
        importance: What shuffling each column costs, most important first.
        kernel_eigenvalues: Descending eigenvalues of the whitened Gram matrix at the solution; None for large fits.
        versions: Package versions.
        kernel_history: What `ntk.Monitor` saw, one value a measurement for each name; None where none was there.
    """

    name: str
    task: Literal["regression", "classification"]
    target: str
    n_train: int
    n_test: int
    n_columns: int
    n_features: int
    loss: str
    loss_reason: str
    model: str
    metrics: tuple[Metric, ...]
    strength: float
    noise: float | None
    noise_unit: str
    degrees_of_freedom: float | None
    effective_parameters: float | None
    n_networks: int
    n_parameters: int
    n_steps: int
    best_step: int
    seconds: float
    status: str
    message: str
    history: dict[str, np.ndarray]
    y_true: np.ndarray
    y_pred: np.ndarray
    y_interval: np.ndarray | None
    y_deviations: np.ndarray | None
    probabilities: np.ndarray | None
    classes: tuple[str, ...]
    coverage: tuple[tuple[float, float], ...]
    reliability: tuple[tuple[float, float, int], ...]
    importance: tuple[Importance, ...]
    kernel_eigenvalues: np.ndarray | None
    versions: dict[str, str]
    kernel_history: dict[str, np.ndarray] | None = None


def summarize(pipeline: Pipeline, split: Split) -> FitSummary:
    """Scores a fitted pipeline on the held-out rows.

    Args:
        pipeline: Preprocessor and fitted estimator.
        split: The rows learnt from and the held-out rows.
    """
    estimator = pipeline[-1]
    scores = _regression(pipeline, split) if split.task.kind == "regression" else _classification(pipeline, split)
    status = RunStatus(estimator.status_)
    common = {
        "name": split.name,
        "task": split.task.kind,
        "target": split.target_name,
        "n_train": len(split.y_train),
        "n_test": len(split.y_test),
        "n_columns": len(split.columns),
        "n_features": int(estimator.n_features_in_),
        "loss": split.task.loss,
        "loss_reason": split.task.reason,
        "model": _describe_model(estimator, split.task.loss),
        "strength": float(estimator.strength_),
        "effective_parameters": _effective_parameters(estimator, len(split.y_train)),
        "n_networks": len(estimator.networks_),
        "n_parameters": int(estimator.n_parameters_),
        "n_steps": int(estimator.n_steps_),
        "best_step": int(estimator.best_step_),
        "seconds": float(estimator.seconds_),
        "status": status.name.lower().replace("_", " "),
        "message": status.message,
        "history": {name: np.asarray(values) for name, values in estimator.history_.items()},
        "importance": importances(pipeline, split.x_test, split.y_test, regression=split.task.kind == "regression"),
        "kernel_eigenvalues": _eigenvalues(estimator, len(split.y_train)),
        "versions": versions(),
    }
    return FitSummary(**common, **scores)


def predict_in_chunks(method: Any, x: Any) -> Any:
    """Calls a prediction method on some rows at a time.

    Args:
        method: A method of a pipeline that takes [n, k] rows; returns [n, ...] or a tuple of such.
        x: [n, k] table.

    Returns:
        What `method(x)` would return, as numpy arrays.
    """
    parts = [
        method(x.iloc[start : start + ROWS_AT_ONCE]) for start in range(0, max(len(x), 1), ROWS_AT_ONCE)
    ]
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate([np.asarray(each) for each in group]) for group in zip(*parts, strict=True))
    return np.concatenate([np.asarray(part) for part in parts])


def _regression(pipeline: Pipeline, split: Split) -> dict[str, Any]:
    estimator, x = pipeline[-1], pipeline[:-1].transform(split.x_test)
    mean, distribution = estimator.predict(x), estimator.predict_distribution(x)
    y, y_train = split.y_test, split.y_train
    center, spread = float(y_train.mean()), float(y_train.std())
    error, trivial = y - mean, y - center
    rmse = float(np.sqrt(np.mean(error**2)))
    # Delta method: the standard error of a root is that of the mean square over twice the root.
    rmse_error = _standard_error(error**2) / (2 * rmse) if rmse > 0 else np.nan
    variance = float(np.mean((y - y.mean()) ** 2))
    trivial_density = float(np.mean(stats.norm.logpdf(y, center, spread)))
    density = distribution.logpdf(y)
    noise_only = estimator.predict_distribution(x, parameter_uncertainty=False).logpdf(y)
    coverage = tuple((nominal, _coverage(distribution, y, nominal)) for nominal in NOMINAL_COVERAGES)
    metrics = [
        Metric("RMSE", rmse, float(np.sqrt(np.mean(trivial**2))), "target", _plus_minus(rmse_error)),
        Metric("MAE", float(np.mean(np.abs(error))), float(np.mean(np.abs(trivial))), "target", ""),
    ]
    if variance > 0:
        r2, trivial_r2 = 1 - rmse**2 / variance, 1 - float(np.mean(trivial**2)) / variance
        metrics.append(Metric("R2", r2, trivial_r2, "", "1 is perfect"))
    metrics += [
        Metric("log likelihood", float(density.mean()), trivial_density, "nats", _plus_minus(_standard_error(density))),
        Metric(
            "log likelihood, noise only", float(noise_only.mean()), trivial_density, "nats",
            "the same share for all rows" if estimator.target_is_log_ else "one width for all rows",
        ),
        *(
            Metric(f"{100 * nominal:.0f}% interval coverage", observed, None, "share", f"{nominal:g} is perfect")
            for nominal, observed in coverage
            if nominal in (0.5, 0.8, 0.95)
        ),
    ]
    return {
        "metrics": tuple(metrics),
        "noise": float(estimator.noise_),
        "noise_unit": "of the target's logarithm" if estimator.target_is_log_ else "in units of the target",
        "degrees_of_freedom": float(estimator.degrees_of_freedom_),
        "y_true": y,
        "y_pred": mean,
        "y_interval": np.stack(distribution.interval(0.95), axis=1),
        "y_deviations": _deviations(distribution, y),
        "probabilities": None,
        "classes": (),
        "coverage": coverage,
        "reliability": (),
    }


def _classification(pipeline: Pipeline, split: Split) -> dict[str, Any]:
    classes = pipeline[-1].classes_
    probabilities = predict_in_chunks(pipeline.predict_proba, split.x_test)
    predicted = classes[probabilities.argmax(axis=1)]
    y, m = split.y_test, len(split.y_test)
    codes = np.searchsorted(classes, y)
    right = predicted == y
    accuracy = float(right.mean())
    shares = np.array([np.mean(split.y_train == label) for label in classes])
    frequent = classes[shares.argmax()]
    losses = _log_losses(probabilities, codes)
    reliability = reliability_bins(probabilities.max(axis=1), right)
    calibration = calibration_error(reliability)
    # Two more of each outcome (Agresti and Coull): without them the error of an accuracy of 1 would be zero.
    share = (right.sum() + 2) / (m + 4)
    accuracy_error = float(np.sqrt(share * (1 - share) / (m + 4)))
    trivial_loss = float(_log_losses(np.broadcast_to(shares, probabilities.shape), codes).mean())
    return {
        "metrics": (
            Metric("accuracy", accuracy, float(np.mean(y == frequent)), "share", _plus_minus(accuracy_error)),
            Metric("log loss", float(losses.mean()), trivial_loss, "nats", _plus_minus(_standard_error(losses))),
            Metric("expected calibration error", float(calibration), None, "share", "0 is perfect"),
        ),
        "noise": None,
        "noise_unit": "",
        "degrees_of_freedom": None,
        "y_true": y.astype(str),
        "y_pred": predicted.astype(str),
        "y_interval": None,
        "y_deviations": None,
        "probabilities": probabilities,
        "classes": tuple(str(label) for label in classes),
        "coverage": (),
        "reliability": reliability,
    }


def reliability_bins(confidence: np.ndarray, right: np.ndarray) -> tuple[tuple[float, float, int], ...]:
    """Groups predictions by confidence in ten bins of equal width.

    Args:
        confidence: [m] probability of the predicted class.
        right: [m] True where it was the class.

    Returns:
        (mean confidence, observed accuracy, rows) of each bin that is not empty.
    """
    bins = np.minimum((confidence * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    groups = [bins == index for index in np.unique(bins)]
    return tuple((float(confidence[group].mean()), float(right[group].mean()), int(group.sum())) for group in groups)


def calibration_error(bins: tuple[tuple[float, float, int], ...]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over `reliability_bins`, by their rows.

    Args:
        bins: (mean confidence, observed accuracy, rows) of each bin.
    """
    rows = sum(count for _, _, count in bins)
    return sum(count * abs(confidence - observed) for confidence, observed, count in bins) / rows


def _coverage(distribution: Any, y: np.ndarray, nominal: float) -> float:
    low, high = distribution.interval(nominal)
    return float(np.mean((low <= y) & (y <= high)))


def _deviations(distribution: Any, y: np.ndarray) -> np.ndarray:
    """Where y would lie if its distribution were the standard normal: Φ⁻¹(F(y)), from whichever tail has digits."""
    below, above = distribution.logcdf(y), distribution.logsf(y)
    return np.where(below < above, ndtri_exp(np.minimum(below, above)), -ndtri_exp(np.minimum(below, above)))


def _log_losses(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(probabilities[np.arange(len(codes)), codes], SMALLEST_PROBABILITY))


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _plus_minus(error: float) -> str:
    return f"± {error:.2g}" if np.isfinite(error) else ""


def _smaller_side(estimator: Any, rows: int) -> int:
    numbers = rows * (len(estimator.classes_) if hasattr(estimator, "classes_") else 1)
    return min(numbers, estimator.n_parameters_)


def _effective_parameters(estimator: Any, rows: int) -> float | None:
    # Error bars have made the factor already; classes need none, and a large one takes longer than the fit.
    if not hasattr(estimator, "classes_") or _smaller_side(estimator, rows) <= MOST_EIGENVALUES:
        return float(estimator.effective_parameters_)
    estimates = estimator.history_["effective_parameters"]
    estimates = estimates[np.isfinite(estimates)]
    return float(estimates[-1]) if estimates.size else None


def _eigenvalues(estimator: Any, rows: int) -> np.ndarray | None:
    if _smaller_side(estimator, rows) > MOST_EIGENVALUES:
        return None
    eigenvalues = getattr(estimator, "kernel_eigenvalues_", None)
    return None if eigenvalues is None else np.asarray(eigenvalues)


def _describe_model(estimator: Any, loss: str) -> str:
    outputs = len(estimator.classes_) if loss == "softmax cross-entropy" else 1
    networks = estimator.networks_
    hidden = (len(bias) for _, bias in networks[0][:-1])
    sizes = (int(estimator.n_features_in_), *hidden, outputs)
    layers = " -> ".join(str(size) for size in sizes)
    several = f"mean of {len(networks)} networks, each an " if len(networks) > 1 else ""
    wide = ", and one of infinite width" if getattr(estimator, "infinite_width_", False) else ""
    return f"{several}MLP {layers}, {estimator.activation}, {int(estimator.n_parameters_)} parameters{wide}"


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package and those that decide its numbers."""
    names = {name: metadata.version(name) for name in ("jax", "numpy", "scikit-learn", "pandas")}
    return {"concordax": __version__, "python": platform.python_version(), **names}
