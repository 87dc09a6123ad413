"""What regressor and classifier share: scaling, training, the posterior. Validation and NumPy ↔ JAX only."""

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from .._status import RunStatus
from ..compilation_cache import persistent_cache
from ..diagnosis import Diagnosis, explain_fit
from ..history import RunSetup
from ..laplace import Posterior, posterior
from ..losses import AbstractLoss
from ..models import ACTIVATIONS, MLP, DenseLayer
from ..observers import Observer
from ..optimizer import make_algorithm
from ..solvers import Auto
from ..training import train
from ..trust_region import TrustRegion
from . import defaults
from .held_out import Rows, train_with_held_out
from .reservoir import Reservoir

# Numbers of output up to which LAPACK gets one thread.
_SMALL_SYSTEM = 3000
# From 0.1 to 10 times the mean of diag K, errors on twelve tables differ by less than the splits do, but for two, where
# structure is nearly linear and 10 is worse.
_INITIAL_DAMPING = 1.0
# Rows that a stream is remembered by.
RESERVOIR_ROWS = 5000


class GGNEstimator(BaseEstimator):
    """Base of the estimators; they say what they learn from, this trains.

    The fitted estimator keeps the scaled training rows: predictions with uncertainty need the kernel between new rows
    and them. Everything that is kept is NumPy, so that it pickles and persists.
    """

    _parameter_constraints: ClassVar[dict] = {
        "hidden_widths": [StrOptions({"auto"}), "array-like"],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "regularizer": [StrOptions(set(defaults.REGULARIZERS))],
        "strength": [StrOptions(set(defaults.STRENGTHS)), Interval(Real, 0, None, closed="neither")],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "tolerance": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "dtype": [StrOptions({"auto", "float32", "float64"})],
        "warm_start": ["boolean"],
        "verbose": ["boolean"],
        "callback": [callable, Observer, list, None],
    }

    def __init__(
        self,
        hidden_widths: Any = "auto",
        *,
        activation="tanh",
        regularizer="pseudo_huber",
        strength="auto",
        max_steps=70,
        tolerance=1e-4,
        batch_size=None,
        random_state=0,
        dtype="auto",
        warm_start=False,
        verbose=False,
        callback=None,
    ):
        self.hidden_widths = hidden_widths
        self.activation = activation
        self.regularizer = regularizer
        self.strength = strength
        self.max_steps = max_steps
        self.tolerance = tolerance
        self.batch_size = batch_size
        self.random_state = random_state
        self.dtype = dtype
        self.warm_start = warm_start
        self.verbose = verbose
        self.callback = callback

    @abstractmethod
    def _make_loss(self) -> AbstractLoss:
        """The loss, from what fitting has learnt of the targets."""

    def _train(self, x: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, go_on: bool) -> None:
        """Trains on scaled inputs and encoded targets [n, c]; sets what a fit learns.

        With `go_on`, from the parameters and the strength that an earlier fit left.
        """
        start = time.perf_counter()
        if self.batch_size is not None and isinstance(self.strength, str):
            raise ValueError(
                f"`batch_size={self.batch_size!r}` with `strength={self.strength!r}`: the strength is chosen by all "
                "rows; pass a number as strength, or batch_size=None."
            )
        outputs = targets.shape[1]
        x, targets, weights = (part[weights > 0] for part in (x, targets, weights))
        # A row of weight 2 is two rows, for every choice by size too.
        rows = float(weights.sum())
        same = go_on and isinstance(self.hidden_widths, str)
        units = self._units if same else defaults.widths(self.hidden_widths, rows)
        model = MLP(x.shape[1], units, outputs, activation=self.activation)
        go_on = go_on and self._model == model
        self._model, self._units, self._dtype = model, units, defaults.precision(self.dtype, rows * outputs)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._rows, self._targets, self._sample_weight = defaults.padded(x, targets, weights)
        with self._computation():
            key = jax.random.key(seed)
            way = defaults.way_of(self.strength, rows * outputs)
            parts = (model, self._make_loss(), defaults.regularizer(self.regularizer, units))
            options: dict[str, Any] = {
                "strength": defaults.strength(way, self.strength_ if go_on else None, rows),
                "step": TrustRegion(initial_damping=_INITIAL_DAMPING),
                "max_steps": self.max_steps,
                "tolerance": self.tolerance,
                "callbacks": self._callbacks(),
                "progress": bool(self.verbose),
            }
            params = self._params() if go_on else _init(model, key)
            if way == defaults.HELD_OUT:
                given = Rows(x.astype(self._dtype), targets.astype(self._dtype), weights)
                result = train_with_held_out(parts, params, given, **options)
            else:
                data = (self._rows.astype(self._dtype), self._targets.astype(self._dtype))
                options |= {"weights": self._sample_weight, "batch_size": self.batch_size, "key": key}
                result = train(*parts, params, data, **options)
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

    def _train_on_stream(self, x: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> None:
        """Adds scaled rows and encoded targets to what is remembered of a stream, and trains on that."""
        go_on, reservoir = self.__sklearn_is_fitted__(), getattr(self, "_reservoir", None)
        if reservoir is None:
            reservoir = Reservoir(RESERVOIR_ROWS, seed=0)
            if go_on:
                # A fit came before: its rows are the beginning of the stream.
                present = self._sample_weight > 0
                reservoir.add(self._rows[present], self._targets[present], self._sample_weight[present])
        reservoir.add(x, targets, weights)
        x, targets, weights = reservoir.rows
        self._train(x, targets, weights, go_on=go_on)
        self._reservoir = reservoir

    @contextlib.contextmanager
    def _computation(self):
        """What everything on JAX runs in: the fit's precision, and the programs that earlier processes compiled.

        One thread for LAPACK while the systems are small: its threads and XLA's wait busily for each other. On two
        cores a step at N = 1000 took 58 ms with two, 38 ms with one; at N = 3000 Cholesky alone was no slower with one.
        """
        threads = threadpool_limits(1, "blas") if self._targets.size <= _SMALL_SYSTEM else contextlib.nullcontext()
        with persistent_cache, jax.enable_x64(self._dtype == "float64"), threads:
            yield

    @property
    def status_(self) -> RunStatus:
        """Why training ended."""
        check_is_fitted(self)
        return RunStatus(self._status)

    @property
    def effective_parameters_(self) -> float:
        """γ, the number of parameters that the data determine, of `n_parameters_`."""
        with self._computation():
            return float(self._posterior().effective_parameters)

    @property
    def log_evidence_(self) -> float:
        """Log p(y) of Laplace's approximation at the solution, in nats, the targets in their own units."""
        with self._computation():
            return float(self._posterior().log_evidence()) - self._log_units()

    def _log_units(self) -> float:
        """Log of what a density of the encoded targets is divided by for the given ones, summed over the rows."""
        return 0.0

    @property
    def kernel_eigenvalues_(self) -> np.ndarray:
        """Eigenvalues of the whitened kernel on the training rows at the solution, largest first."""
        with self._computation():
            return np.asarray(self._posterior().eigenvalues())

    def explain(self) -> Diagnosis:
        """What is wrong with the fit, the numbers it shows in, and what to change; empty when nothing is."""
        check_is_fitted(self)
        with self._computation():
            rows = float(self._sample_weight.sum()) * self._targets.shape[1]
            way = defaults.way_of(self.strength, rows)
            regularizer = defaults.regularizer(self.regularizer, self._units)
            step = TrustRegion(initial_damping=_INITIAL_DAMPING)
            strength = defaults.strength(way, self.strength_, float(self._sample_weight.sum()))
            algorithm = make_algorithm(
                self._model, self._make_loss(), regularizer, strength=strength, solver=Auto(), step=step, damping=0.0
            )
            batch = algorithm.batch(self._params(), self._rows, self._targets, self._sample_weight)
            setup = RunSetup(algorithm, batch, full=not self.batch_size)
            found = explain_fit(self._params(), self.strength_, self.status_, self.history_, setup)
            # The smoothing is this class's choice: what it acts as is no news to who did not make it.
            return Diagnosis([finding for finding in found if not finding.name.startswith("smoothing")])

    def _callbacks(self) -> list:
        if self.callback is None:
            return []
        return list(self.callback) if isinstance(self.callback, list) else [self.callback]

    def _params(self) -> tuple[DenseLayer, ...]:
        pairs = zip(self.weights_, self.biases_, strict=True)
        cast = lambda array: jnp.asarray(array, self._dtype)
        return tuple(DenseLayer(cast(weight), cast(bias)) for weight, bias in pairs)

    def _posterior(self) -> Posterior:
        """The posterior, built at the first need after a fit or a load; call it within `_computation`."""
        cached: Posterior | None = getattr(self, "_cache", None)
        if cached is None:
            check_is_fitted(self)
            regularizer = defaults.regularizer(self.regularizer, self._units)
            data = (jnp.asarray(self._rows, self._dtype), jnp.asarray(self._targets, self._dtype))
            parts = (self._model, self._make_loss(), regularizer, self._params())
            cached = posterior(*parts, data, strength=self.strength_, weights=self._sample_weight)
            self._cache = cached
        return cached

    def _inputs(self, X) -> np.ndarray:
        """Checked and scaled rows [m, d]."""
        check_is_fitted(self)
        return self._scaler.transform(validate_data(self, X, dtype=np.float64, reset=False)).astype(self._dtype)

    def _outputs(self, x: np.ndarray) -> np.ndarray:
        """The network's outputs [m, c]."""
        with self._computation():
            return np.asarray(_forward(self._model, self._params(), jnp.asarray(x)), np.float64)

    def _outputs_and_covariance(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's outputs [m, c] and their covariance [m, c, c], a row."""
        with self._computation():
            outputs, covariance = self._posterior().predict(jnp.asarray(x))
            return np.asarray(outputs, np.float64), np.asarray(covariance, np.float64)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_cache", None)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")


@eqx.filter_jit
def _init(model: MLP, key: PRNGKeyArray) -> tuple[DenseLayer, ...]:
    # One program: op by op, each layer's normals are compiled by themselves, for longer than all together.
    return model.init(key)


@eqx.filter_jit
def _forward(model: Callable, params: tuple[DenseLayer, ...], inputs):
    return model(params, inputs)
