"""Targets as numbers of order one, or as logarithms, and distributions of them in their own units."""

import numpy as np
from scipy import stats

from .linear_evidence import linear_evidence
from .scaling import TableScaler
from .tails import log_student_t, unit_scale

SCALES = frozenset({"auto", "linear", "log"})
# What logarithms must gain: medians for means are a price, and on tables where lines gained less so did networks.
_NATS_A_ROW = 0.1
# And over all rows: e³ = 20, from where on evidence is called strong (Kass and Raftery, JASA 90, 1995).
_NATS = 3.0
# Exponentials beyond are held there: e^700 is just below the largest number.
_LARGEST = 700.0


class TargetScaler:
    """Columns of targets centred and scaled, z = (t − center)/scale with t = y or log y.

    By itself the logarithm is taken of positive columns whose logarithms a linear regression explains better by a tenth
    of a nat a row, by its evidence. What is normal in z is then log-normal in y, with quantiles that follow the level;
    the point prediction is the median.

    Args:
        scale: "auto", "linear" or "log", for all columns.
        robust: centre and scale by the bulk of the values rather than by their moments.

    Attributes:
        is_log_: [c], columns whose logarithms are learnt.
        center_, scale_: [c], of t.

    Example:
        >>> x = np.linspace(-2, 2, 41)[:, None]
        >>> y = np.exp(x)
        >>> scaler = TargetScaler().fit(y, np.ones(41), x)
        >>> bool(scaler.is_log_[0]), bool(np.allclose(scaler.inverse(scaler.transform(y)), y))
        (True, True)
    """

    def __init__(self, scale: str = "auto", *, robust: bool = False):
        self.scale, self.robust = scale, robust

    def fit(self, y: np.ndarray, weights: np.ndarray, x: np.ndarray) -> "TargetScaler":
        """Learns from y [n, c], weights [n] counting rows, and scaled inputs x [n, d], by which "auto" chooses."""
        y, x, weights = y[weights > 0], x[weights > 0], weights[weights > 0]
        self.is_log_ = np.array([self._takes_logarithm(column, weights, x) for column in y.T])
        t = self._bent(y)
        if self.robust:
            # Outliers blow the standard deviation up: the bulk's centre and scale take the place of the moments.
            bulk = TableScaler().fit(t, sample_weight=weights)
            self.center_, self.scale_ = bulk.center_, bulk.scale_
            return self
        # Scaled first, because squares of numbers beyond 1e150 overflow.
        size = np.maximum(np.abs(t).max(axis=0), np.finfo(float).tiny)
        center = np.average(t / size, axis=0, weights=weights)
        spread = size * np.sqrt(np.average((t / size - center) ** 2, axis=0, weights=weights))
        self.center_ = size * center
        # Rounding of the mean gives a constant column a spread of some units in the last place.
        self.scale_ = np.where((t.max(axis=0) > t.min(axis=0)) & (spread > 0), spread, 1.0)
        return self

    def _takes_logarithm(self, y: np.ndarray, weights: np.ndarray, x: np.ndarray) -> bool:
        if self.scale == "linear" or (self.scale == "auto" and not 0 < y.min() < y.max()):
            return False
        if self.scale == "log":
            if y.min() <= 0:
                raise ValueError(
                    f'`target_scale="log"`: the targets hold {y.min():.6g}; logarithms need positive numbers. Use '
                    '"linear", or add a number to the targets.'
                )
            return True
        # Scaled first, because squares of numbers beyond 1e150 overflow.
        y = y / y.max()
        logarithms = np.log(y)
        as_logarithms = linear_evidence(x, logarithms, weights) - np.average(logarithms, weights=weights)
        gain = as_logarithms - linear_evidence(x, y, weights)
        return bool(gain > max(_NATS_A_ROW, _NATS / weights.sum()))

    def fits(self, y: np.ndarray) -> bool:
        """Whether other targets [n, c] can be learnt on these scales."""
        return y.shape[1] == len(self.scale_) and bool((y[:, self.is_log_] > 0).all())

    def transform(self, y: np.ndarray) -> np.ndarray:
        """Targets [n, c] on the scales of `fit`."""
        return (self._bent(y) - self.center_) / self.scale_

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Targets [..., c] of scaled ones; of a distribution's mean, its median."""
        t = self.center_ + self.scale_ * z
        return np.where(self.is_log_, np.exp(np.minimum(t, _LARGEST)), t)

    def log_slope(self, z: np.ndarray) -> np.ndarray:
        """log dy/dz [n, c]: what a log density in z loses in y."""
        return np.log(self.scale_) + np.where(self.is_log_, self.center_ + self.scale_ * z, 0.0)

    def distribution(self, column: int, mean: np.ndarray, std: np.ndarray, shape: float):
        """Of a column, where z has mean [m], deviation [m] and Student's t of `shape` degrees of freedom, inf: normal.

        A frozen distribution of SciPy.
        """
        center, spread = self.center_[column] + self.scale_[column] * mean, self.scale_[column] * std
        median = np.exp(np.minimum(center, _LARGEST))
        if np.isinf(shape):
            return stats.lognorm(s=spread, scale=median) if self.is_log_[column] else stats.norm(center, spread)
        spread = unit_scale(shape) * spread
        if self.is_log_[column]:
            return log_student_t(df=shape, s=spread, scale=median)
        return stats.t(shape, center, spread)

    def std(self, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Standard deviations [m, c], where z ~ N(mean, variance), both [m, c]."""
        center, variance = self.center_ + self.scale_ * mean, self.scale_**2 * variance
        return np.where(self.is_log_, np.sqrt(_product_of_moments(center, center, variance, variance, variance)),
                        np.sqrt(variance))  # fmt: skip

    def covariance(self, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Covariances [m, m, c] over rows, a column; `mean` [m, c] and `covariance` [m, m, c] are those of z."""
        center, covariance = self.center_ + self.scale_ * mean, self.scale_**2 * covariance
        variance = np.einsum("iia->ia", covariance)
        of_logarithms = _product_of_moments(center[:, None], center, variance[:, None], variance, covariance)
        return np.where(self.is_log_, of_logarithms, covariance)

    def _bent(self, y: np.ndarray) -> np.ndarray:
        # Rows of weight 0 may hold anything.
        return np.where(self.is_log_, np.log(np.where(self.is_log_ & (y > 0), y, 1.0)), y)


def _product_of_moments(a, b, variance_a, variance_b, covariance) -> np.ndarray:
    """Cov(eᴬ, eᴮ) = E eᴬ E eᴮ (e^c − 1), of normal A and B with means a, b and covariance c."""
    with np.errstate(divide="ignore", over="ignore"):
        excess = np.expm1(np.minimum(covariance, _LARGEST))
        exponent = a + b + 0.5 * (variance_a + variance_b) + np.log(np.abs(excess))
    return np.sign(excess) * np.exp(np.minimum(exponent, _LARGEST))
