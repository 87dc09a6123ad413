"""Made-up summaries for the tests of the report: usual ones, large ones and hostile ones."""

import dataclasses

import numpy as np

from concordax.importance import Importance
from concordax.summary import FitSummary, Metric

HOSTILE = '<script>alert("x")</script> & $\\frac{1}{'


def _common(steps: int = 23) -> dict:
    step = np.arange(steps)
    return {
        "strength": 2.1374e-5,
        "effective_parameters": 143.27,
        "n_networks": 5,
        "n_parameters": 1201,
        "n_steps": steps,
        "best_step": steps - 4,
        "seconds": 3.4219,
        "status": "converged",
        "message": "Converged: the objective no longer falls by more than the tolerance.",
        "history": {
            "loss": 0.02 + 0.8 * np.exp(-0.7 * step),
            "objective": 0.031 + 0.8 * np.exp(-0.7 * step),
            "validation_loss": np.full(steps, np.nan),
            "damping": 0.3 * 10.0 ** (-step / 3),
            "step_size": np.ones(steps),
            "strength": 2e-5 + 1e-3 * np.exp(-0.5 * step),
            "effective_parameters": 143.0 - 90 * np.exp(-0.4 * step),
        },
        "importance": (
            Importance("cement", 7.25, 0.41),
            Importance("age $\\frac{1}{2}$", 6.5, 0.3),
            Importance("ash", 0.0, 0.1),
        ),
        "kernel_eigenvalues": 30.0 * np.arange(1, 825) ** -2.2,
        "versions": {"concordax": "0.1.0", "python": "3.11.9", "jax": "0.10.2"},
    }


def regression(rows: int = 206, target: str = "strength") -> FitSummary:
    random = np.random.default_rng(0)
    y_true = 36 + 16 * random.normal(size=rows)
    y_std = 3.5 + 2 * random.random(rows)
    y_pred = y_true + y_std * random.normal(size=rows)
    nominal = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    observed = (0.12, 0.23, 0.33, 0.42, 0.56, 0.65, 0.71, 0.82, 0.91, 0.9466)
    return FitSummary(
        name="concrete.csv",
        task="regression",
        target=target,
        n_train=824,
        n_test=rows,
        n_columns=8,
        n_features=11,
        loss="squared error",
        loss_reason=f"Squared error, because {target!r} holds numbers (845 different ones in 1030 rows).",
        model="MLP 11 -> 100 -> 1, tanh, 1201 parameters",
        metrics=(
            Metric("RMSE", 4.63127, 16.2048, "target", "± 0.21"),
            Metric("MAE", 3.31019, 13.1, "target", ""),
            Metric("R2", 0.918371, -0.001234, "", "1 is perfect"),
            Metric("log likelihood", -2.89717, -4.2051, "nats", "± 0.051"),
            Metric("log likelihood, noise only", -3.01255, -4.2051, "nats", "one width for all rows"),
            Metric("50% interval coverage", 0.56, None, "share", "0.5 is perfect"),
            Metric("80% interval coverage", 0.82, None, "share", "0.8 is perfect"),
            Metric("95% interval coverage", 0.9466, None, "share", "0.95 is perfect"),
        ),
        noise=4.1172,
        noise_unit="in units of the target",
        degrees_of_freedom=6.25,
        y_true=y_true,
        y_pred=y_pred,
        y_interval=np.stack([y_pred - 1.96 * y_std, y_pred + 1.96 * y_std], axis=1),
        y_deviations=(y_true - y_pred) / y_std,
        probabilities=None,
        classes=(),
        coverage=tuple(zip(nominal, observed, strict=True)),
        reliability=(),
        **_common(),
    )


def classification(classes: tuple[str, ...] = ("bream", "perch", "pike"), rows: int = 300) -> FitSummary:
    random = np.random.default_rng(1)
    truth = random.integers(len(classes), size=rows)
    logits = 2.0 * random.normal(size=(rows, len(classes))) + 4.0 * np.eye(len(classes))[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return FitSummary(
        name="fish.parquet",
        task="classification",
        target="species",
        n_train=1200,
        n_test=rows,
        n_columns=1,
        n_features=1,
        loss="softmax cross-entropy",
        loss_reason="Softmax cross-entropy, because 'species' holds 3 classes.",
        model="MLP 1 -> 100 -> 3, tanh, 503 parameters",
        metrics=(
            Metric("accuracy", 0.86333, 0.34333, "share", "± 0.02"),
            Metric("log loss", 0.341927, 1.0978, "nats", "± 0.031"),
            Metric("expected calibration error", 0.0000421, None, "share", "0 is perfect"),
        ),
        noise=None,
        noise_unit="",
        degrees_of_freedom=None,
        y_true=np.asarray(classes)[truth],
        y_pred=np.asarray(classes)[probabilities.argmax(1)],
        y_interval=None,
        y_deviations=None,
        probabilities=probabilities,
        classes=classes,
        coverage=(),
        reliability=((0.37, 0.3, 10), (0.45, 0.52, 21), (0.56, 0.5, 30), (0.75, 0.79, 60), (0.97, 0.98, 179)),
        **_common(),
    )


def without_pictures() -> FitSummary:
    """A summary that is quickly rendered."""
    nothing = np.empty(0)
    return _only_predictions(regression(), y_true=nothing, y_pred=nothing, y_interval=nothing)


def _only_predictions(summary: FitSummary, **changes) -> FitSummary:
    return dataclasses.replace(summary, history={}, kernel_eigenvalues=None, **changes)


SUMMARIES = {
    "regression": regression(),
    "classification": classification(),
    "26-classes": _only_predictions(classification(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), rows=2000)),
    "hostile": _only_predictions(
        classification(("$a$", "\x00\u4e2d", *(f"{HOSTILE} {i}" for i in range(8)))),
        **dict.fromkeys(("name", "target", "loss_reason", "model", "message"), HOSTILE),
        versions={HOSTILE: "1"},
    ),
    "large": dataclasses.replace(regression(rows=5000), name="w" * 300 + ".csv", target="t" * 200),
}
