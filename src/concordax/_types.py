"""Array aliases shared by every module; no functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, PyTree

Scalar = Float[Array, ""]
Vector = Float[Array, " p"]
Outputs = Float[Array, "n c"]
Params = PyTree[Any]
Model = Callable[[Any, Any], Any]
"""Any callable (params, inputs) -> outputs [n, c] that treats the n rows of `inputs` independently."""


class Batch(NamedTuple):
    """Rows a step sees: inputs (a pytree, axis 0 has length n), encoded targets [n, c], weights [n] (0 = no row).

    `total` is what the weights are divided by where the rows are some of many: (rows present) · (mean weight of all
    rows). None for their own sum.
    """

    inputs: PyTree[Any]
    targets: Float[Array, "n c"]
    weights: Float[Array, " n"]
    total: Scalar | None = None
