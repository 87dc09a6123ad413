"""What fitted estimators can be asked: outputs, posteriors, what was learnt. NumPy ↔ JAX only."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from .._status import RunStatus
from ..compilation_cache import persistent_cache
from ..diagnosis import Diagnosis, explain_fit
from ..history import RunSetup
from ..laplace import Posterior, posterior
from ..losses import AbstractLoss
from ..models import DenseLayer
from ..optimizer import make_algorithm
from ..solvers import Auto
from ..solvers.memory import free_bytes
from . import defaults

# Numbers of output up to which LAPACK gets one thread.
_SMALL_SYSTEM = 3000
# Of free memory, for the posteriors of several networks together.
_SHARE_OF_CACHE = 0.25


class FittedNetworks(BaseEstimator):
    """Base of the estimators: all that is asked of them once they are fitted.

    A fitted estimator keeps the scaled training rows: predictions with uncertainty need the kernel between new rows
    and them. Everything that is kept is NumPy, so that it pickles and persists.
    """

    @abstractmethod
    def _make_loss(self) -> AbstractLoss:
        """The loss, from what fitting has learnt of the targets."""

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
        """γ, how many of `n_parameters_` the data determine; of the first network."""
        with self._computation():
            return float(self._posterior().effective_parameters)

    @property
    def log_evidence_(self) -> float:
        """Log p(y) of Laplace's approximation at the solution, in nats, in the targets' units; of the first network."""
        with self._computation():
            return float(self._posterior().log_evidence()) - self._log_units()

    def _log_units(self) -> float:
        """Log of what a density of the encoded targets is divided by for the given ones, summed over the rows."""
        return 0.0

    @property
    def kernel_eigenvalues_(self) -> np.ndarray:
        """Eigenvalues of the whitened kernel on the training rows at the first network's solution, largest first."""
        with self._computation():
            return np.asarray(self._posterior().eigenvalues())

    def explain(self) -> Diagnosis:
        """What is wrong with the fit, the numbers it shows in, and what to change; empty when nothing is."""
        check_is_fitted(self)
        with self._computation():
            rows = float(self._sample_weight.sum()) * self._targets.shape[1]
            way = defaults.way_of(self.strength, rows)
            regularizer = defaults.regularizer(self.regularizer, self._units)
            step = defaults.step()
            strength = defaults.strength(way, self.strength_, float(self._sample_weight.sum()))
            algorithm = make_algorithm(
                self._model, self._make_loss(), regularizer, strength=strength, solver=Auto(), step=step, damping=0.0
            )
            batch = algorithm.batch(self._params(), self._rows, self._targets, self._sample_weight)
            setup = RunSetup(algorithm, batch, full=not self.batch_size)
            found = explain_fit(self._params(), self.strength_, self.status_, self.history_, setup)
            # The smoothing is this class's choice: what it acts as is no news to who did not make it.
            return Diagnosis([finding for finding in found if not finding.name.startswith("smoothing")])

    def _params(self, number: int = 0) -> tuple[DenseLayer, ...]:
        cast = lambda array: jnp.asarray(array, self._dtype)
        return tuple(DenseLayer(cast(weight), cast(bias)) for weight, bias in self.networks_[number])

    def _posterior(self, number: int = 0) -> Posterior:
        """The posterior of a network, built at the first need after a fit or a load; call it within `_computation`.

        Kept only where those of all networks fit well: of several thousand rows each is some hundred megabytes.
        """
        check_is_fitted(self)
        cache: dict[int | str, Any] = self.__dict__.setdefault("_cache", {})
        if number in cache:
            return cache[number]
        regularizer = defaults.regularizer(self.regularizer, self._units)
        data = (jnp.asarray(self._rows, self._dtype), jnp.asarray(self._targets, self._dtype))
        parts = (self._model, self._make_loss(), regularizer, self._params(number))
        built = posterior(*parts, data, strength=float(self.strengths_[number]), weights=self._sample_weight)
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(built) if eqx.is_array(leaf))
        if number == 0 or needed * len(self.networks_) < _SHARE_OF_CACHE * free_bytes():
            cache[number] = built
        return built

    def _posteriors(self) -> Iterator[Posterior]:
        """Those of all networks, one at a time; call it within `_computation`."""
        check_is_fitted(self)
        return (self._posterior(number) for number in range(len(self.networks_)))

    def _inputs(self, X) -> np.ndarray:
        """Checked and scaled rows [m, d]."""
        check_is_fitted(self)
        return self._scaler.transform(validate_data(self, X, dtype=np.float64, reset=False)).astype(self._dtype)

    def _outputs(self, x: np.ndarray) -> np.ndarray:
        """The networks' outputs [k, m, c]."""
        with self._computation():
            inputs, numbers = jnp.asarray(x), range(len(self.networks_))
            each = [_forward(self._model, self._params(number), inputs) for number in numbers]
            return np.stack([np.asarray(outputs, np.float64) for outputs in each])

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_cache", None)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "networks_")


@eqx.filter_jit
def _forward(model: Callable, params: tuple[DenseLayer, ...], inputs):
    return model(params, inputs)
