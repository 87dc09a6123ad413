"""How far new observations may lie: Student's t in the place of the normal, of the same variance."""

import numpy as np
from scipy import optimize, stats

# Of the prior on the degrees of freedom, ν^(shape − 1) e^(−rate ν) (Juárez & Steel, Journal of Business & Economic
# Statistics 28(1), 2010, section 2): it counts while rows are few, where the likelihood of ν is flat.
_SHAPE, _RATE = 2.0, 0.1
# At 2 the variance ends to exist; at 200 no interval differs from a normal's by a hundredth.
_LEAST, _LARGEST = 2.01, 200.0


def degrees_of_freedom(deviations: np.ndarray, weights: np.ndarray) -> float:
    """The degrees of freedom ν of Student's t that deviations are likeliest to come from, with their own variance.

    Maximises Σ w log t_ν(z) + log ν − 0.1 ν over 2 < ν ≤ 200, where z has variance 1 and so has t_ν. Only the shape
    is asked for: how large deviations are, the variance says.

    Args:
        deviations: [n], of any scale; zeros alone say nothing, and have the prior's ν, 10.
        weights: [n] counting rows.

    Returns:
        ν.

    Source: Juárez & Steel, Journal of Business & Economic Statistics 28(1), 2010 (the prior).

    Example:
        >>> z = np.random.default_rng(0).normal(size=500)
        >>> degrees_of_freedom(z, np.ones(500)) > 10 > 5 > degrees_of_freedom(z**3, np.ones(500))
        True
    """
    size = np.abs(deviations).max(initial=0.0)
    if size == 0:
        return (_SHAPE - 1) / _RATE
    # Scaled first, because squares of numbers below 1e-160 vanish.
    z = deviations / size
    z = z / np.sqrt(np.average(z**2, weights=weights))

    def minus_log_posterior(log_excess: float) -> float:
        nu = 2 + np.exp(log_excess)
        likelihood = weights @ stats.t.logpdf(z, nu, scale=unit_scale(nu))
        return -(likelihood + (_SHAPE - 1) * np.log(nu) - _RATE * nu)

    bounds = np.log(_LEAST - 2), np.log(_LARGEST - 2)
    found = optimize.minimize_scalar(minus_log_posterior, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(2 + np.exp(found.x))


def unit_scale(nu):
    """The scale √((ν − 2)/ν) that gives Student's t variance 1, of one ν or an array."""
    return np.sqrt((nu - 2) / nu)


class _LogStudentT(stats.rv_continuous):
    """Of exp(s T), T of Student's t: as `scipy.stats.lognorm` with heavier tails, and without any moment."""

    def _logpdf(self, x, df, s):
        return stats.t.logpdf(np.log(x) / s, df) - np.log(s * x)

    def _pdf(self, x, df, s):
        return np.exp(self._logpdf(x, df, s))

    def _cdf(self, x, df, s):
        return stats.t.cdf(np.log(x) / s, df)

    def _sf(self, x, df, s):
        return stats.t.sf(np.log(x) / s, df)

    def _logcdf(self, x, df, s):
        return stats.t.logcdf(np.log(x) / s, df)

    def _logsf(self, x, df, s):
        return stats.t.logsf(np.log(x) / s, df)

    def _ppf(self, q, df, s):
        return np.exp(s * stats.t.ppf(q, df))

    def _isf(self, q, df, s):
        return np.exp(s * stats.t.isf(q, df))

    def _stats(self, df, s):
        del df, s
        return np.inf, np.inf, np.nan, np.nan


log_student_t = _LogStudentT(a=0.0, name="log_student_t", shapes="df, s")
