"""Kernel ridge regression at every strength from one eigendecomposition.

With D = diag(w) and D^½ K D^½ = U diag(λ) Uᵀ, b = Uᵀ D^½ y, every quantity at the shift t = τ Σw is a sum over
eigenvalues: f(x) = k(x, X) D^½ U b/(λ + t). NumPy in float64: of the n × n algebra nothing would be gained by JAX.
"""

import numpy as np
from scipy.optimize import brentq

# Below the largest eigenvalue by this much, a shift is lost in the rounding of the kernel; above it by so much, the
# prediction is the mean.
_SHORTEST, _LONGEST = 1e-12, 1e4
# Shifts a decade of the first search: curves of evidence or cross-validation bend no faster than λ/(λ + t) does.
_A_DECADE = 4
_EPS = float(np.finfo(float).eps)


class SpectralRidge:
    """y ~ N(0, s² (K + t D⁻¹)) at any t, s² by maximum likelihood; a row of weight w counts as w equal rows.

    Args:
        kernel: K [n, n], symmetric positive semidefinite; the lower triangle is read.
        targets: [n, c], which share K, t and s².
        weights: [n], positive.
    """

    def __init__(self, kernel: np.ndarray, targets: np.ndarray, weights: np.ndarray):
        self.weights, self.root = weights, np.sqrt(weights)
        values, self.vectors = np.linalg.eigh(self.root[:, None] * kernel * self.root)
        self.smallest = float(values[0])
        # Those of repeated rows are rounding, of either sign.
        self.values = np.where(values > len(values) * _EPS * values[-1], values, 0.0)
        self.image = self.vectors.T @ (self.root[:, None] * targets)
        self.columns, self.count = targets.shape[1], float(weights.sum())

    @property
    def numbers(self) -> float:
        """N = c Σw."""
        return self.columns * self.count

    # At one shift -----------------------------------------------------------------------------------------------------

    def coefficients(self, shift: float) -> np.ndarray:
        """α [n, c] of f(x) = k(x, X) α."""
        return self.root[:, None] * (self.vectors @ (self.image / (self.values + shift)[:, None]))

    def scale(self, shift: float) -> float:
        """s² = yᵀ (K + tD⁻¹)⁻¹ y/N, the likeliest; the noise variance is t s².

        Targets are known to their rounding at best: of constant ones there is that as white noise, which asks for the
        largest t.
        """
        least = _EPS**2 * float(np.mean(1 / (self.values + shift)))
        return max(float(np.sum(self.image**2 / (self.values + shift)[:, None])) / self.numbers, least)

    def effective_parameters(self, shift: float) -> float:
        """γ = c Σ λ/(λ + t)."""
        return self.columns * float(np.sum(self.values / (self.values + shift)))

    def log_evidence(self, shift: float) -> float:
        """log N(y; 0, s² (K + tI)), rows of weight w written out w times; −½ (N log 2πes² + log det(K + tI))."""
        log_scale = np.log(2 * np.pi * self.scale(shift)) + 1 + np.log(shift)
        return -0.5 * float(self.numbers * log_scale + self.columns * np.sum(np.log1p(self.values / shift)))

    def left_out(self, shift: float) -> np.ndarray:
        """Targets minus predictions without the row [n, c]; of a row of weight w > 1, without one of w equal ones."""
        residual, rest = self._left_out_parts(shift / (self.values + shift))
        return residual / rest[:, None]

    def variance(self, cross: np.ndarray, diagonal: np.ndarray, shift: float) -> np.ndarray:
        """s² (k(x, x) − k(x, X)(K + tD⁻¹)⁻¹ k(X, x)) [m] from k(x, X) [m, n] and k(x, x) [m]."""
        # What rounding makes negative is an uncertainty below what can be told from zero.
        return self.scale(shift) * np.maximum(diagonal - np.sum(self._half(cross, shift) ** 2, axis=1), 0.0)

    def covariance(self, cross: np.ndarray, prior: np.ndarray, shift: float) -> np.ndarray:
        """The same for rows together [m, m], from k(x, X) [m, n] and k(x, x') [m, m]."""
        half = self._half(cross, shift)
        return self.scale(shift) * (prior - half @ half.T)

    def left_out_variance(self, shift: float) -> np.ndarray:
        """Variance of what is predicted without the row [n], as σ² h/(1 − h) with σ² = t s²; without noise."""
        _, rest = self._left_out_parts(shift / (self.values + shift))
        return shift * self.scale(shift) * (1 - rest) / rest / np.minimum(self.weights, 1.0)

    def _half(self, cross: np.ndarray, shift: float) -> np.ndarray:
        return (cross * self.root) @ (self.vectors / np.sqrt(self.values + shift))

    def _left_out_parts(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y − f [n, c] and 1 − h [n], from t/(λ + t) or, both being linear in it, their derivatives from its own."""
        residual = self.vectors @ (share[:, None] * self.image) / self.root[:, None]
        # Σ U² t/(λ + t) is 1 − h without a difference; h/w of one of w equal rows.
        return residual, self._of_one(self.vectors**2 @ share)

    def _of_one(self, rest: np.ndarray) -> np.ndarray:
        return rest / np.maximum(self.weights, 1.0) + np.maximum(1 - 1 / self.weights, 0.0)

    # The search -------------------------------------------------------------------------------------------------------

    def best_by_evidence(self) -> float:
        """The shift of the largest log evidence."""
        grid = self._grid()
        return self._refined(grid, np.array([-self.log_evidence(t) for t in grid]), self._evidence_slope)

    def best_by_leave_one_out(self) -> float:
        """The shift of the least Σ w ‖left-out residual‖²."""
        grid = self._grid()
        return self._refined(grid, self._left_out_squares(grid), self._left_out_slope)

    def _grid(self) -> np.ndarray:
        largest = self.values[-1] if self.values[-1] > 0 else 1.0
        decades = np.log10(_LONGEST / _SHORTEST)
        return largest * np.geomspace(_SHORTEST, _LONGEST, round(_A_DECADE * decades) + 1)

    def _refined(self, grid: np.ndarray, scores: np.ndarray, slope) -> float:
        """Where the slope over log t is zero next to the lowest score: a minimum by its slope has all its digits."""
        # Of equal scores, those of a constant target, the larger shift.
        index = len(scores) - 1 - int(np.argmin(scores[::-1]))
        if index in (0, len(grid) - 1):
            return float(grid[index])
        low, high = np.log(grid[[index - 1, index + 1]])
        if not slope(np.exp(low)) < 0 < slope(np.exp(high)):
            return float(grid[index])
        return float(np.exp(brentq(lambda log: slope(np.exp(log)), low, high, xtol=1e-13)))

    def _evidence_slope(self, shift: float) -> float:
        """d(−2 log evidence)/d log t = N − γ − N t yᵀ(K+tI)⁻²y/yᵀ(K+tI)⁻¹y."""
        first, second = (float(np.sum(self.image**2 / (self.values + shift)[:, None] ** p)) for p in (1, 2))
        # N − γ without a difference of nearly equal numbers.
        free = self.count - len(self.values) + np.sum(shift / (self.values + shift))
        return float(self.columns * free) - self.numbers * shift * second / first

    def _left_out_squares(self, grid: np.ndarray) -> np.ndarray:
        shares = grid / (self.values[:, None] + grid)
        squares = self.vectors**2
        rests = np.stack([self._of_one(rest) for rest in (squares @ shares).T])
        total = np.zeros(len(grid))
        for column in self.image.T:
            residuals = self.vectors @ (shares * column[:, None]) / self.root[:, None]
            total += np.sum(self.weights * (residuals.T / rests) ** 2, axis=1)
        return total

    def _left_out_slope(self, shift: float) -> float:
        """½ d Σ w (ρ/q)²/d log t = Σ w (ρ/q) (ρ' − (ρ/q) q')/q."""
        share = shift / (self.values + shift)
        residual, rest = self._left_out_parts(share)
        moved, shrunk = self._left_out_parts(share * (1 - share))
        shrunk = shrunk - np.maximum(1 - 1 / self.weights, 0.0)
        left_out = residual / rest[:, None]
        change = (moved - left_out * shrunk[:, None]) / rest[:, None]
        return float(np.sum(self.weights[:, None] * left_out * change))
