"""The (M, ν) calculus of generalised self-concordant (GSC) functions (Sun & Tran-Dinh, Math. Program. 178, 2019)."""

from typing import NamedTuple


class SelfConcordance(NamedTuple):
    """Constants of |⟨D³g(x)[v]u, u⟩| ≤ M ‖u‖²_x ‖v‖_x^{ν−2} ‖v‖₂^{3−ν}."""

    constant: float
    order: float

    def smoothed(self, smoothing: float) -> "SelfConcordance":
        """Constants of h_μ(x) = μ φ(x/μ) from those of φ: M scales by μ^{ν/2−2}.

        Example:
            >>> SelfConcordance(1.5, 2.0).smoothed(2.0).constant
            0.75
        """
        return SelfConcordance(self.constant * smoothing ** (self.order / 2 - 2), self.order)

    def scaled(self, weight: float) -> "SelfConcordance":
        """Constants of β g: M scales by β^{1−ν/2}; at ν = 2 a weight changes nothing.

        Example:
            >>> SelfConcordance(1.5, 2.0).scaled(1e-4).constant
            1.5
        """
        return SelfConcordance(self.constant * weight ** (1 - self.order / 2), self.order)

    def in_dimension(self, size: int) -> float:
        """M p^{(3−ν)/2}, the bound of the published code. Not needed: a separable sum keeps the M of its terms."""
        return self.constant * size ** ((3 - self.order) / 2)
