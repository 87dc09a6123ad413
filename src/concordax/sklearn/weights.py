"""Checks of sample weights."""

import numpy as np


def check_some_weight(weights: np.ndarray, name: str) -> None:
    """Raises ValueError where every row has weight 0."""
    if not weights.any():
        raise ValueError(f"`{name}.fit(sample_weight=...)`: every sample weight is zero: no row is left to fit to.")
