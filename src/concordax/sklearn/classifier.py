"""A network for classes."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from ..laplace import class_probabilities
from ..losses import BinaryCrossEntropy, SoftmaxCrossEntropy
from .base import GGNEstimator
from .scaling import TableScaler
from .weights import check_some_weight


class GGNClassifier(ClassifierMixin, GGNEstimator):
    """A network for classes, with nothing to tune.

    Inputs are scaled inside; two classes use one logit and binary cross-entropy, more use softmax. The strength is
    chosen by the Laplace evidence. Several networks predict by the mean of their probabilities. Other arguments and
    attributes are those of `GGNRegressor`, without `noise_` and `loo_residuals_`.

    Args:
        class_weight: None, "balanced" (each class weighs the same in all), or a dict from class to weight.

    Attributes:
        classes_: the labels, sorted.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = GGNClassifier(hidden_widths=(10,)).fit(X, y)
        >>> bool(model.score(X, y) > 0.95)
        True
    """

    _parameter_constraints: ClassVar[dict] = {
        **GGNEstimator._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
        hidden_widths: Any = "auto",
        *,
        n_networks="auto",
        activation="tanh",
        regularizer="pseudo_huber",
        strength="auto",
        class_weight=None,
        max_steps=70,
        tolerance=1e-4,
        batch_size=None,
        random_state=0,
        dtype="auto",
        warm_start=False,
        verbose=False,
        callback=None,
    ):
        super().__init__(
            hidden_widths,
            n_networks=n_networks,
            activation=activation,
            regularizer=regularizer,
            strength=strength,
            max_steps=max_steps,
            tolerance=tolerance,
            batch_size=batch_size,
            random_state=random_state,
            dtype=dtype,
            warm_start=warm_start,
            verbose=verbose,
            callback=callback,
        )
        self.class_weight = class_weight

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> "GGNClassifier":
        """Fits to X [n, d] and labels y [n] of any type."""
        X, y, weights = self._checked(X, y, sample_weight, reset=True)
        classes = np.unique(y[weights > 0])
        _check_classes(classes)
        go_on = self.warm_start and self.__sklearn_is_fitted__() and np.array_equal(self.classes_, classes)
        go_on = go_on and len(self._scaler.scale_) == X.shape[1]
        self.classes_ = classes
        targets, weights = self._encoded(y, weights)
        if not go_on:
            self._scaler = TableScaler().fit(X, sample_weight=weights)
        self._reservoir = None
        self._train(self._scaler.transform(X), targets, weights, go_on=go_on)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None) -> "GGNClassifier":
        """Takes more rows of a stream, and goes on training from where the last call, of `fit` too, ended.

        Trains on all rows seen so far up to 5000, beyond that on a uniform sample of 5000 of them. Scales are those of
        the first call, whose rows should therefore be typical.

        Args:
            X: rows [n, d].
            y: labels [n].
            classes: all labels that the stream will bring; needed in the first call.
            sample_weight: [n].
        """
        first = not self.__sklearn_is_fitted__()
        if first and classes is None:
            raise ValueError("`GGNClassifier.partial_fit(classes=None)`: the first call needs all labels as `classes`.")
        X, y, weights = self._checked(X, y, sample_weight, reset=first)
        if first:
            self.classes_ = np.unique(np.asarray(classes))
            _check_classes(self.classes_)
        elif classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit: {self.classes_!r}."
            )
        targets, weights = self._encoded(y, weights)
        if first:
            self._scaler = TableScaler().fit(X, sample_weight=weights)
        self._train_on_stream(self._scaler.transform(X), targets, weights)
        return self

    def _checked(self, X, y, sample_weight, *, reset: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, dtype=np.float64, reset=reset, ensure_min_samples=2 if reset else 1)
        check_classification_targets(y)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True, dtype=np.float64)
        check_some_weight(weights, type(self).__name__)
        return X, y, weights

    def _encoded(self, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Zeros and ones [n, 1] or one-hot rows [n, classes], and the weights of rows and classes together."""
        known = np.isin(y, self.classes_)
        if not known[weights > 0].all():
            raise ValueError(
                f"`y` holds labels that are not among the classes {self.classes_!r}: {np.unique(y[~known])[:5]!r}."
            )
        codes = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        if self.class_weight is not None:
            present = weights > 0
            # Of the rows as weighted, so that weight 2 stays the row twice.
            if self.class_weight == "balanced":
                counts = np.bincount(codes[present], weights[present], len(self.classes_))
                share = counts.sum() / (np.sum(counts > 0) * np.where(counts > 0, counts, 1.0))
                weights = weights * share[codes]
            else:
                weights = weights * compute_sample_weight(self.class_weight, y)
        targets = codes.astype(np.float64)[:, None] if len(self.classes_) == 2 else np.eye(len(self.classes_))[codes]
        return targets, weights

    def _make_loss(self):
        return BinaryCrossEntropy() if len(self.classes_) == 2 else SoftmaxCrossEntropy()

    def decision_function(self, X) -> np.ndarray:
        """Log odds [m] of the second of two classes; else log probabilities [m, classes], of mean zero a row."""
        logarithms = self._log_probabilities(self._inputs(X))
        if len(self.classes_) == 2:
            return logarithms[:, 1] - logarithms[:, 0]
        return logarithms - logarithms.mean(axis=1, keepdims=True)

    def _log_probabilities(self, x: np.ndarray) -> np.ndarray:
        """Logarithms [m, classes] of the mean of the networks' probabilities."""
        outputs = self._outputs(x)
        logits = np.concatenate([np.zeros_like(outputs), outputs], axis=2) if len(self.classes_) == 2 else outputs
        return logsumexp(log_softmax(logits, axis=2), axis=0) - np.log(len(logits))

    def predict_proba(self, X, corrected: bool = False) -> np.ndarray:
        """Class probabilities [m, classes], columns as in `classes_`: the mean of the networks'.

        Args:
            X: rows [m, d].
            corrected: take the uncertainty of the parameters into account (probit correction), which draws the
                probabilities towards each other where the network has seen little. Off, because on held-out rows of
                known tables it made the log loss worse: those rows are not where the network has seen little.
        """
        x = self._inputs(X)
        if not corrected:
            return np.exp(self._log_probabilities(x))
        loss = self._make_loss()
        with self._computation():
            each = [class_probabilities(loss, *fitted.predict(jnp.asarray(x))) for fitted in self._posteriors()]
            probabilities = np.mean([np.asarray(one, np.float64) for one in each], axis=0)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X) -> np.ndarray:
        """The most probable class of each row."""
        logits = self.decision_function(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else np.argmax(logits, axis=1)]


def _check_classes(classes: np.ndarray) -> None:
    if len(classes) < 2:
        raise ValueError(f"GGNClassifier needs at least two classes; the data contain only one class, {classes[0]!r}.")
