"""The evidence of Bayesian linear regression: how well lines explain targets, in closed form."""

import numpy as np

# Prior precisions that are tried, in units of the mean eigenvalue of the Gram.
_PRECISIONS = np.logspace(-6, 4, 21)


def linear_evidence(x: np.ndarray, t: np.ndarray, weights: np.ndarray) -> float:
    """Log evidence a row of t = a + Bx + noise, in nats: the best over prior widths, with the best noise of each.

    (1/N) log p = −½ log 2πσ² − ½ − (1/2N) Σ log(1 + s/ρ), where s are the eigenvalues of the centred Gram XᵀWX, ρ the
    prior precision in units of the noise's, and σ² what ridge regression with ρ leaves of tᵀWt, divided by N. The
    intercept's prior is flat and left out, so that only differences between targets on the same rows mean something.

    Args:
        x: [n, d].
        t: [n], not constant.
        weights: [n], counting rows, N in all.

    Source: Bishop, Pattern Recognition and Machine Learning, 2006, §3.5.

    Example:
        >>> x = np.linspace(-1, 1, 50)[:, None]
        >>> noise = np.sin(1e4 * x[:, 0])
        >>> explained = linear_evidence(x, x[:, 0] + 0.01 * noise, np.ones(50))
        >>> bool(explained > linear_evidence(x, noise, np.ones(50)) + 2)
        True
    """
    total, root = weights.sum(), np.sqrt(weights)
    rows = root[:, None] * (x - np.average(x, axis=0, weights=weights))
    targets = root * (t - np.average(t, weights=weights))
    if rows.shape[1] <= rows.shape[0]:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        explained = (vectors.T @ (rows.T @ targets)) ** 2
    else:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        explained = np.maximum(values, 0.0) * (vectors.T @ targets) ** 2
    values = np.maximum(values, 0.0)
    precisions = _PRECISIONS[:, None] * max(values.mean(), np.finfo(float).tiny)
    squares = targets @ targets
    left = np.maximum(squares - (explained / (values + precisions)).sum(axis=1), 1e-12 * squares)
    complexity = np.log1p(values / precisions).sum(axis=1) / total
    return float(np.max(-0.5 * (np.log(2 * np.pi * left / total) + 1 + complexity)))
