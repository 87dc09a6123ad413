"""Tables that the tests of the estimators share."""

import numpy as np

SMALL = {"hidden_widths": (10,), "n_networks": 2, "max_steps": 12}


def sine(rows=80, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size=(rows, 3))
    return x, np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.1 * rng.normal(size=rows)
