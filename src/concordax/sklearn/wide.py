"""A network of infinite width that predicts along with the trained ones: regression with its tangent kernel."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ..compilation_cache import persistent_cache
from ..models import MLP
from ..ntk.network_kernel import NetworkKernel
from ..ntk.ridge import SpectralRidge
from ..solvers.memory import free_bytes

# Rows of one block of predictions: their kernel with the training rows is held at once.
_ROWS = 1024


class WideNetwork:
    """The network that training to the end would give in infinite width, with the strength of the largest evidence.

    f(x) = k(x, X)(K + n τ I)⁻¹ y with the tangent kernel k of one hidden layer of relu units, as `KernelRegression`,
    which chose them. It learns no features. It answers what a `Posterior` does, and pickles as its coefficients.

    Args:
        rows: scaled inputs [n, d].
        targets: scaled targets [n, c].
        weights: [n], positive, counting rows.

    Attributes:
        noise_variance: σ², one for all targets.

    Raises:
        MemoryError: where its n × n matrices do not fit.

    Source: Jacot, Gabriel & Hongler, NeurIPS 2018; Rasmussen & Williams, 2006, chapter 2.

    Example:
        >>> x = np.linspace(-2, 2, 30)[:, None]
        >>> wide = WideNetwork(x, np.sin(x), np.ones(30))
        >>> bool(abs(wide.outputs(np.array([[0.5]]))[0, 0] - np.sin(0.5)) < 0.01)
        True
    """

    def __init__(self, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray):
        # The kernel, its eigenvectors, and what LAPACK needs on the way.
        needed, free = 32 * len(rows) ** 2, free_bytes()
        if needed > 0.5 * free:
            raise MemoryError(
                f"`infinite_width=True` takes {needed / 1e9:.3g} GB for {len(rows)} rows; {0.5 * free / 1e9:.3g} GB "
                'may be used. Leave it at "auto", or fit fewer rows.'
            )
        self._rows, self._targets, self._weights = (np.asarray(part, np.float64) for part in (rows, targets, weights))
        ridge = self._ridge()
        self._shift = ridge.best_by_evidence()
        self._coefficients = ridge.coefficients(self._shift)
        self.noise_variance = self._shift * ridge.scale(self._shift)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """The scaled outputs [m, c]."""
        return np.concatenate([self._evaluated(block, self._rows) @ self._coefficients for block in _blocks(x)])

    def predict(self, inputs) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [m, c] and, a row, their covariance [m, c, c] without noise."""
        parts = [self._predicted(block) for block in _blocks(np.asarray(inputs, np.float64))]
        outputs, variance = (np.concatenate(part) for part in zip(*parts, strict=True))
        return outputs, variance[:, None, None] * np.eye(self._targets.shape[1])

    def joint(self, inputs) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [m, c] and their covariance [m, c, m, c] over all rows together, without noise."""
        x = np.asarray(inputs, np.float64)
        cross = self._evaluated(x, self._rows)
        covariance = self._ridge().covariance(cross, self._evaluated(x, None), self._shift)
        return cross @ self._coefficients, np.einsum("ij,ab->iajb", covariance, np.eye(self._targets.shape[1]))

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """`predict` at the training rows [n], without the row: exact at its strength, from leverages."""
        ridge = self._ridge()
        variance = ridge.left_out_variance(self._shift)
        outputs = self._targets - ridge.left_out(self._shift)
        return outputs, variance[:, None, None] * np.eye(self._targets.shape[1])

    def _predicted(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cross = self._evaluated(x, self._rows)
        return cross @ self._coefficients, self._ridge().variance(cross, self._diagonal(x), self._shift)

    def _ridge(self) -> SpectralRidge:
        """The eigendecomposition that error bars need, made anew after a load: it is n² numbers."""
        if not hasattr(self, "_spectrum"):
            self._spectrum = SpectralRidge(self._evaluated(self._rows, None), self._targets, self._weights)
        return self._spectrum

    @property
    def _kernel(self) -> NetworkKernel:
        # In infinite width the layers are counted, not their units.
        return NetworkKernel(MLP(self._rows.shape[1], (1,), activation="relu"), None)

    def _evaluated(self, x1: np.ndarray, x2: np.ndarray | None) -> np.ndarray:
        # In float32 the kernel's small eigenvalues would be rounding.
        with persistent_cache, jax.enable_x64(True):
            return self._kernel(x1, x2)

    def _diagonal(self, x: np.ndarray) -> np.ndarray:
        with persistent_cache, jax.enable_x64(True):
            return self._kernel.diagonal(x)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_spectrum"}


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    return (x[start : start + _ROWS] for start in range(0, len(x), _ROWS))
