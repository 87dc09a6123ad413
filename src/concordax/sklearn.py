"""scikit-learn estimators: a network that fits itself, and its error bars. Validation and NumPy ↔ JAX only."""

import contextlib
import time
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from ._status import RunStatus
from .compilation_cache import persistent_cache
from .laplace import Posterior, class_probabilities, posterior
from .losses import AbstractLoss, BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from .models import ACTIVATIONS, MLP, DenseLayer
from .regularizers import PseudoHuber
from .strength import AbstractStrength, Evidence, FixedStrength
from .training import train
from .trust_region import TrustRegion

# Numbers of output up to which LAPACK gets one thread.
_SMALL_SYSTEM = 3000
# Large: the strength then settles before the features have moved far. Of 0.1 to 30, test errors of concrete fell from
# 4.9 at 0.1 to 4.1 to 4.3 from 2 up; those of Boston and diabetes stayed at 3.0 and 55.
_INITIAL_DAMPING = 10.0


class _GGNEstimator(BaseEstimator):
    """What regressor and classifier share: standardisation, training, posterior.

    The fitted estimator keeps the standardised training rows: predictions with uncertainty need the kernel between new
    rows and them. Everything that is kept is NumPy, so that it pickles and persists.
    """

    _parameter_constraints: ClassVar[dict] = {
        "hidden_widths": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "strength": [StrOptions({"evidence"}), Interval(Real, 0, None, closed="neither")],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "tolerance": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
        "callback": [callable, None],
    }

    def __init__(
        self,
        hidden_widths=(100,),
        activation="tanh",
        strength="evidence",
        max_steps=70,
        tolerance=1e-4,
        random_state=0,
        verbose=False,
        callback=None,
    ):
        self.hidden_widths = hidden_widths
        self.activation = activation
        self.strength = strength
        self.max_steps = max_steps
        self.tolerance = tolerance
        self.random_state = random_state
        self.verbose = verbose
        self.callback = callback

    def _train(self, x: np.ndarray, targets: np.ndarray, weights: np.ndarray | None, loss: AbstractLoss, outputs: int):
        """Trains on standardised inputs and encoded targets; sets what a fit learns."""
        start = time.perf_counter()
        self._model = MLP(x.shape[1], tuple(int(w) for w in self.hidden_widths), outputs, activation=self.activation)
        self._loss = type(loss).__name__
        strength: AbstractStrength = Evidence() if self.strength == "evidence" else FixedStrength(float(self.strength))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._rows, self._targets, self._sample_weight = _padded(x, targets, weights)
        with _computation(), _blas_threads(self._rows.shape[0] * outputs):
            result = train(
                self._model,
                loss,
                self._regularizer(),
                _init(self._model, jax.random.key(seed)),
                (self._rows, self._targets),
                strength=strength,
                step=TrustRegion(initial_damping=_INITIAL_DAMPING),
                weights=self._sample_weight,
                max_steps=self.max_steps,
                tolerance=self.tolerance,
                callbacks=[self.callback] if self.callback else (),
                progress=bool(self.verbose),
            )
            self.weights_ = [np.asarray(layer.weight) for layer in result.best_params]
            self.biases_ = [np.asarray(layer.bias) for layer in result.best_params]
            self.strength_ = result.best_strength
            self._cache = None
        self.n_parameters_ = int(sum(w.size + b.size for w, b in zip(self.weights_, self.biases_, strict=True)))
        self.n_steps_ = len(result.history["loss"])
        self.n_iter_ = self.n_steps_
        self.best_step_ = result.best_step
        self._status, self.history_ = int(result.status), result.history
        self.seconds_ = time.perf_counter() - start

    @property
    def status_(self) -> RunStatus:
        """Why training ended."""
        check_is_fitted(self)
        return RunStatus(self._status)

    def _regularizer(self) -> PseudoHuber:
        """Pseudo-Huber with the paper's μ = √width: near zero it is L2, large weights it leaves alone."""
        return PseudoHuber(float(np.sqrt(max(self._model.widths, default=1))))

    def _params(self) -> tuple[DenseLayer, ...]:
        pairs = zip(self.weights_, self.biases_, strict=True)
        return tuple(DenseLayer(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in pairs)

    def _posterior(self) -> Posterior:
        """The posterior, built at the first need after a fit or a load; call it within `_computation`."""
        cached: Posterior | None = getattr(self, "_cache", None)
        if cached is None:
            check_is_fitted(self)
            parts = (self._model, _LOSSES[self._loss](), self._regularizer(), self._params())
            data = (jnp.asarray(self._rows), jnp.asarray(self._targets))
            cached = posterior(*parts, data, strength=self.strength_, weights=self._sample_weight)
            self._cache = cached
        return cached

    def _outputs(self, X, *, covariance: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Standardised outputs [m, c] and, if asked, their covariance [m, c, c]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        x = self._scaler.transform(X)
        with _computation():
            if covariance:
                outputs, cov = self._posterior().predict(jnp.asarray(x))
                return np.asarray(outputs), np.asarray(cov)
            return np.asarray(_forward(self._model, self._params(), jnp.asarray(x))), None

    @property
    def effective_parameters_(self) -> float:
        """γ, the number of parameters that the data determine, of `n_parameters_`."""
        with _computation():
            return float(self._posterior().effective_parameters)

    @property
    def kernel_eigenvalues_(self) -> np.ndarray:
        """Eigenvalues of the whitened kernel on the training rows at the solution, largest first."""
        with _computation():
            return np.asarray(self._posterior().eigenvalues())

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_cache", None)
        return state


@contextlib.contextmanager
def _computation():
    """What everything on JAX runs in: float64, and the programs that earlier processes compiled."""
    with persistent_cache, jax.enable_x64(True):
        yield


def _blas_threads(numbers: int):
    """One thread for LAPACK while the systems are small.

    Its threads and XLA's wait busily for each other: on two cores a step at N = 1000 took 58 ms with two, 38 ms with
    one; at N = 3000 Cholesky alone was no slower with one.
    """
    return threadpool_limits(1, "blas") if numbers <= _SMALL_SYSTEM else contextlib.nullcontext()


def _padded(x: np.ndarray, targets: np.ndarray, weights: np.ndarray | None):
    """Rows filled up with rows of weight 0 to the next of sixteen sizes an octave.

    Weight 0 is absence, exactly, and folds of nearly the same size share one compiled program. From 512 rows on, the
    sizes are 8 above a multiple of the grain: rows of a Gram that lie a power of two apart fall on the same lines of
    the cache (1032 rows are a quarter faster than 1024).
    """
    rows = len(x)
    grain = max(1, 2 ** (max(rows - 1, 1).bit_length() - 5))
    missing = ((8 if grain >= 16 else 0) - rows) % grain
    weights = np.ones(rows) if weights is None else weights
    index = np.concatenate([np.arange(rows), np.zeros(missing, int)])
    return x[index], targets[index], np.concatenate([weights, np.zeros(missing)])


@eqx.filter_jit
def _init(model: MLP, key: PRNGKeyArray) -> tuple[DenseLayer, ...]:
    # One program: op by op, each layer's normals are compiled by themselves, for longer than all together.
    return model.init(key)


@eqx.filter_jit
def _forward(model: MLP, params: tuple[DenseLayer, ...], inputs):
    return model(params, inputs)


class GGNRegressor(RegressorMixin, _GGNEstimator):
    """A network for a table of numbers, with nothing to tune and with error bars.

    Inputs and targets are standardised inside; a tanh network in NTK scaling is trained on the squared error by
    trust-region Gauss-Newton steps, its strength chosen by the Laplace evidence.

    Args:
        hidden_widths: units of each hidden layer.
        activation: tanh, silu, relu, gelu, erf, linear, or a function on arrays.
        strength: "evidence", or a positive number.
        max_steps: steps at most.
        tolerance: relative decrease below which, three steps in a row, the fit has converged.
        random_state: seed of the initial weights.
        verbose: draw a progress bar.
        callback: called as callback(step, record) after each step; returning True stops.

    Attributes:
        strength_: the strength in force at the end.
        noise_: standard deviation of the noise, in target units; an array for several targets.
        effective_parameters_: γ, of `n_parameters_`.
        n_steps_, status_, history_, seconds_: the run.
        best_step_: steps taken when the parameters that were kept were reached.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-3, 3, 60)[:, None]
        >>> model = GGNRegressor(hidden_widths=(20,)).fit(x, np.sin(x[:, 0]))
        >>> mean, std = model.predict([[0.5], [9.0]], return_std=True)
        >>> bool(abs(mean[0] - np.sin(0.5)) < 0.05 and std[1] > std[0])
        True
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> "GGNRegressor":
        """Fits to X [n, d] and y [n] or [n, c]; a row of weight 2 counts twice, one of weight 0 not at all."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self._single = y.ndim == 1
        targets = y.reshape(len(y), -1).astype(np.float64)
        self._scaler = StandardScaler().fit(X, sample_weight=weights)
        self._target_scaler = StandardScaler().fit(targets, sample_weight=weights)
        standardised = self._target_scaler.transform(targets)
        self._train(self._scaler.transform(X), standardised, weights, SquaredError(), targets.shape[1])
        return self

    @property
    def noise_(self) -> float | np.ndarray:
        """Standard deviation of the noise, in target units; an array for several targets."""
        noise = np.sqrt(self._noise_variance()) * self._target_scaler.scale_
        return float(noise[0]) if self._single else noise

    def _noise_variance(self) -> float:
        with _computation():
            return float(self._posterior().noise_variance)

    def predict(self, X, return_std: bool = False, observation_noise: bool = True):
        """The mean [m] or [m, c] and, with `return_std`, the standard deviation of a new observation.

        Args:
            X: rows [m, d].
            return_std: also return the standard deviation, in target units.
            observation_noise: False leaves the noise out: the standard deviation of the network's output alone.

        Returns:
            The mean, or (mean, standard deviation).
        """
        outputs, covariance = self._outputs(X, covariance=return_std)
        mean = self._target_scaler.inverse_transform(outputs)
        mean = mean[:, 0] if self._single else mean
        if covariance is None:
            return mean
        variance = np.einsum("iaa->ia", covariance) + (self._noise_variance() if observation_noise else 0.0)
        std = np.sqrt(variance) * self._target_scaler.scale_
        return mean, (std[:, 0] if self._single else std)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class GGNClassifier(ClassifierMixin, _GGNEstimator):
    """A network for classes, with nothing to tune and with probabilities that know their uncertainty.

    Inputs are standardised inside; two classes use one logit and binary cross-entropy, more use softmax. The strength
    is chosen by the Laplace evidence. Arguments and attributes are those of `GGNRegressor`, without `noise_`, and with
    `classes_`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = GGNClassifier(hidden_widths=(10,)).fit(X, y)
        >>> bool(model.score(X, y) > 0.95)
        True
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> "GGNClassifier":
        """Fits to X [n, d] and labels y [n] of any type."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"GGNClassifier needs at least two classes; the data contain only one class, {self.classes_[0]!r}."
            )
        self._scaler = StandardScaler().fit(X, sample_weight=weights)
        binary = len(self.classes_) == 2
        loss = BinaryCrossEntropy() if binary else SoftmaxCrossEntropy()
        targets = codes.astype(np.float64)[:, None] if binary else np.eye(len(self.classes_))[codes]
        self._train(self._scaler.transform(X), targets, weights, loss, targets.shape[1])
        return self

    def predict_proba(self, X, corrected: bool = True) -> np.ndarray:
        """Class probabilities [m, classes], columns as in `classes_`.

        Args:
            X: rows [m, d].
            corrected: take the uncertainty of the parameters into account (probit correction); False gives the
                probabilities of the trained network alone.
        """
        outputs, covariance = self._outputs(X, covariance=corrected)
        with _computation():
            spread = np.zeros((*outputs.shape, outputs.shape[1])) if covariance is None else covariance
            return np.asarray(class_probabilities(_LOSSES[self._loss](), jnp.asarray(outputs), jnp.asarray(spread)))

    def predict(self, X) -> np.ndarray:
        """The most probable class of each row."""
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]


_LOSSES: dict[str, Callable[[], AbstractLoss]] = {
    loss.__name__: loss for loss in (SquaredError, SoftmaxCrossEntropy, BinaryCrossEntropy)
}
