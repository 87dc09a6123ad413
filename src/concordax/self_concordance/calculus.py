"""The (M, ν) calculus of generalised self-concordant (GSC) functions (Sun & Tran-Dinh, Math. Program. 178, 2019)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Array, Float


class SelfConcordance(NamedTuple):
    """Constants of |⟨D³g(x)[v]u, u⟩| ≤ M ‖u‖²_x ‖v‖_x^{ν−2} ‖v‖₂^{3−ν}; in one dimension |g'''| ≤ M (g'')^{ν/2}."""

    constant: float | Float[Array, ""]
    order: float

    def smoothed(self, smoothing: float | Float[Array, ""]) -> "SelfConcordance":
        """Constants of h_μ(x) = μ φ(x/μ) from those of φ: M scales by μ^{ν/2−2}.

        Example:
            >>> SelfConcordance(1.5, 2.0).smoothed(2.0).constant
            0.75
        """
        return SelfConcordance(self.constant * smoothing ** (self.order / 2 - 2), self.order)

    def scaled(self, weight: float | Float[Array, ""]) -> "SelfConcordance":
        """Constants of β g: M scales by β^{1−ν/2}; at ν = 2 a weight changes nothing.

        Example:
            >>> SelfConcordance(1.5, 2.0).scaled(1e-4).constant
            1.5
        """
        return SelfConcordance(self.constant * weight ** (1 - self.order / 2), self.order)

    def affine(self, norm: float) -> "SelfConcordance":
        """Constants of x ↦ g(A x + b) from the spectral norm of A: M scales by ‖A‖^{3−ν}.

        Args:
            norm: ‖A‖ ≥ 0; of a scalar factor a in a x + b, |a|.

        Raises:
            ValueError: for a norm below 0, or an order outside [2, 3], for which the norm does not bound it.

        Source: Sun & Tran-Dinh, Math. Program. 178, 2019, Proposition 2.

        Example:
            >>> SelfConcordance(1.5, 2.0).affine(3.0).constant
            4.5
        """
        if not (math.isfinite(norm) and norm >= 0):
            raise ValueError(f"`SelfConcordance.affine(norm={norm!r})`: must be a finite number from 0 up.")
        _check_order("affine", self.order)
        return SelfConcordance(self.constant * norm ** (3 - self.order), self.order)

    @staticmethod
    def total(parts: "Sequence[SelfConcordance]", weights: Sequence[float] | None = None) -> "SelfConcordance":
        """Constants of Σ_i β_i g_i, of whatever variables each: max_i β_i^{1−ν/2} M_i, free of number and dimension.

        Args:
            parts: constants of one order ν in [2, 3].
            weights: β_i > 0, 1 each if None.

        Raises:
            ValueError: for no parts, several orders, an order out of range, or weights that do not fit.

        Source: Sun & Tran-Dinh, Math. Program. 178, 2019, Proposition 1.

        Example:
            >>> SelfConcordance.total([SelfConcordance(2.0, 3.0)] * 2, [1.0, 0.25])
            SelfConcordance(constant=4.0, order=3.0)
        """
        weights = [1.0] * len(parts) if weights is None else weights
        if not parts or len(weights) != len(parts) or not all(weight > 0 for weight in weights):
            raise ValueError(
                f"`SelfConcordance.total`: needs at least one part, and a positive weight each; got {len(parts)} parts "
                f"and the weights {list(weights)}."
            )
        orders = sorted({part.order for part in parts})
        if len(orders) > 1:
            raise ValueError(
                f"`SelfConcordance.total`: the parts have the orders {orders}; a sum has constants at an order that "
                "all its parts share. At ν = 2 most functions have one."
            )
        _check_order("total", orders[0])
        scaled = [part.scaled(weight) for part, weight in zip(parts, weights, strict=True)]
        return SelfConcordance(max(part.constant for part in scaled), orders[0])

    def in_dimension(self, size: int) -> float | Float[Array, ""]:
        """M p^{(3−ν)/2}, the bound of the published code. Not needed: a separable sum keeps the M of its terms."""
        return self.constant * size ** ((3 - self.order) / 2)


def _check_order(rule: str, order: float) -> None:
    if not 2 <= order <= 3:
        raise ValueError(f"`SelfConcordance.{rule}` holds for orders from 2 to 3; this one is {order}.")
