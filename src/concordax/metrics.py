"""The regularizer's Hessian H as a metric on the parameters, kept in its structure: a number, a diagonal, groups.

H⁻¹ = D + Σ_g w_g w_gᵀ with D diagonal and one w a group: what group penalties have, and what sums of them with
separable ones keep. No p × p matrix is ever formed.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .groups import Groups, joined
from .linalg import long_sum, sum_of


class Root(eqx.Module):
    """R with R Rᵀ = H⁻¹: R = diag(s) (I + Σ_g β_g z_g z_gᵀ), without `groups` the diagonal alone."""

    scale: Float[Array, "*p"]
    groups: "_AlongGroups | None" = None

    def mv(self, x: Float[Array, "*n p"]) -> Float[Array, "*n p"]:
        """R x."""
        return self.scale * self._symmetric(x)

    def rmv(self, x: Float[Array, "*n p"]) -> Float[Array, "*n p"]:
        """Rᵀ x."""
        return self._symmetric(self.scale * x)

    def _symmetric(self, x):
        return x if self.groups is None else self.groups.mv(x)


class _AlongGroups(eqx.Module):
    """I + Σ_g β_g z_g z_gᵀ."""

    along: Float[Array, " p"]
    share: Float[Array, " g"]
    groups: Groups = eqx.field(static=True)

    def mv(self, x):
        return x + self.groups.spread(self.share * self.groups.total(self.along * x)) * self.along


class AbstractMetric(eqx.Module):
    """H [p, p], positive definite, as the operators that a step needs."""

    @abstractmethod
    def solve(self, x: Float[Array, "*n p"]) -> Float[Array, "*n p"]:
        """H⁻¹ x."""

    @abstractmethod
    def mv(self, x: Float[Array, " p"]) -> Float[Array, " p"]:
        """H x."""

    @abstractmethod
    def squared_norm(self, x: Float[Array, " p"]) -> Float[Array, ""]:
        """‖x‖²_H = xᵀ H x."""

    @abstractmethod
    def squared_dual_norm(self, y: Float[Array, " p"]) -> Float[Array, ""]:
        """yᵀ H⁻¹ y = ‖H⁻¹y‖²_H, without a division."""

    @abstractmethod
    def root(self) -> Root:
        """R with R Rᵀ = H⁻¹."""

    @abstractmethod
    def scaled(self, weight: float | Float[Array, ""]) -> "AbstractMetric":
        """β H."""

    @abstractmethod
    def diagonal(self, size: int) -> Float[Array, " p"]:
        """D, the diagonal part of H⁻¹; all of it without groups."""


class ScalarMetric(AbstractMetric):
    """H = I/d: one number. Layered Grams are then exact Hadamard products, at layer price."""

    inverse: Float[Array, ""]

    def solve(self, x):
        """Returns d x."""
        return self.inverse * x

    def mv(self, x):
        """Returns x/d."""
        return x / self.inverse

    def squared_norm(self, x):
        """‖x‖²/d."""
        return jnp.sum(x**2) / self.inverse

    def squared_dual_norm(self, y):
        """d ‖y‖²."""
        return self.inverse * jnp.sum(y**2)

    def root(self):
        """√d."""
        return Root(jnp.sqrt(self.inverse))

    def scaled(self, weight):
        """Returns β/d."""
        return ScalarMetric(self.inverse / weight)

    def diagonal(self, size):
        """Returns d, repeated."""
        return jnp.full((size,), self.inverse)


class DiagonalMetric(AbstractMetric):
    """H = diag(1/d), d [p] positive."""

    inverse: Float[Array, " p"]

    def solve(self, x):
        """Returns d ∘ x."""
        return self.inverse * x

    def mv(self, x):
        """Returns x/d."""
        return x / self.inverse

    def squared_norm(self, x):
        """Σ x²/d over the coordinates that can move: d is 0 where a penalty holds one."""
        return long_sum(lambda d, x: jnp.where(d > 0, x**2 / d, 0.0), self.inverse, x)

    def squared_dual_norm(self, y):
        """Σ d y²."""
        return long_sum(lambda d, y: d * y**2, self.inverse, y)

    def root(self):
        """√d."""
        return Root(jnp.sqrt(self.inverse))

    def scaled(self, weight):
        """Returns β/d."""
        return DiagonalMetric(self.inverse / weight)

    def diagonal(self, size):
        """Returns d."""
        del size
        return self.inverse


class GroupMetric(AbstractMetric):
    """H⁻¹ = D + Σ_g w_g w_gᵀ.

    With y = D^-½x, z = D^-½w, in each group H⁻¹ = D^½(I + zzᵀ)D^½ and xᵀHx = ‖y − ẑẑᵀy‖² + (ẑᵀy)²/(1 + ‖z‖²):
    a sum of squares. The difference ‖y‖² − (zᵀy)²/(1 + ‖z‖²) would keep no digit of the second term where ‖z‖ is large,
    which is where x lies along a large group.
    """

    inverse: Float[Array, " p"]
    along: Float[Array, " p"]
    groups: Groups = eqx.field(static=True)

    def solve(self, x):
        """D x + Σ w (wᵀx)."""
        return self.inverse * x + self.groups.spread(self.groups.total(self.along * x)) * self.along

    def mv(self, x):
        """D^-½ (y⊥ + ẑẑᵀy/(1 + ‖z‖²))."""
        across, part, unit = self._split(x)
        return self._scaled(across + self.groups.spread(part / self._stretch) * unit)

    def squared_norm(self, x):
        """‖y⊥‖² + (ẑᵀy)²/(1 + ‖z‖²)."""
        across, part, _ = self._split(x)
        return jnp.sum(across**2) + jnp.sum(part**2 / self._stretch)

    def squared_dual_norm(self, y):
        """Σ D y² + Σ_g (w_gᵀ y)²: a sum of squares."""
        return long_sum(lambda d, y: d * y**2, self.inverse, y) + jnp.sum(self.groups.total(self.along * y) ** 2)

    def root(self):
        """D^½ (I + β zzᵀ) with β = (√(1 + ‖z‖²) − 1)/‖z‖² = 1/(1 + √(1 + ‖z‖²))."""
        beta = 1 / (1 + jnp.sqrt(self._stretch))
        return Root(jnp.sqrt(self.inverse), _AlongGroups(self._scaled(self.along), beta, self.groups))

    def scaled(self, weight):
        """D/β and w/√β."""
        return GroupMetric(self.inverse / weight, self.along / weight**0.5, self.groups)

    def diagonal(self, size):
        """Returns D."""
        del size
        return self.inverse

    @property
    def _stretch(self) -> Float[Array, " g"]:
        """1 + ‖z‖²."""
        return 1 + self.groups.total(self._scaled(self.along) ** 2)

    def _scaled(self, x):
        """D^-½ x over the coordinates that can move: D is 0 where a penalty holds one."""
        return jnp.where(self.inverse > 0, x / jnp.sqrt(self.inverse), 0.0)

    def _split(self, x):
        """(y⊥, ẑᵀy, ẑ)."""
        y, z = self._scaled(x), self._scaled(self.along)
        length = jnp.sqrt(self.groups.total(z**2))
        unit = z / self.groups.spread(jnp.where(length > 0, length, 1.0), alone=1.0)
        part = self.groups.total(unit * y)
        return y - self.groups.spread(part) * unit, part, unit


def added(metrics: tuple[AbstractMetric, ...], size: int) -> AbstractMetric:
    """The metric of a sum; at most one of the terms may have groups.

    With E = 1/D of the term with groups and e the other diagonals, H = E + e − m mᵀ, m = E w/√(1 + ‖z‖²), and
    H⁻¹ = D' + D' m mᵀ D'/γ with D' = 1/(E + e) and γ = 1 − mᵀD'm. As 1 − mᵀDm = 1/(1 + ‖z‖²), γ is that plus
    Σ m² (D − D'): a sum of positive terms, where one less the product would lose its digits.
    """
    grouped = [m for m in metrics if isinstance(m, GroupMetric)]
    others = [m for m in metrics if not isinstance(m, GroupMetric)]
    if not grouped:
        if all(isinstance(m, ScalarMetric) for m in others):
            return ScalarMetric(1 / sum_of([1 / m.diagonal(1)[0] for m in others]))
        return DiagonalMetric(1 / sum_of([1 / m.diagonal(size) for m in others]))
    [first], groups = grouped, grouped[0].groups
    if not others:
        return first
    rest = sum_of([1 / m.diagonal(size) for m in others])
    inverse = first.inverse / (1 + first.inverse * rest)
    stretch = first._stretch
    m = first.along / first.inverse / groups.spread(jnp.sqrt(stretch), alone=1.0)
    gap = 1 / stretch + groups.total(m**2 * first.inverse * inverse * rest)
    return GroupMetric(inverse, inverse * m / groups.spread(jnp.sqrt(gap), alone=1.0), groups)


def side_by_side(metrics: tuple[AbstractMetric, ...], sizes: tuple[int, ...]) -> AbstractMetric:
    """The metric of blocks of parameters one after the other."""
    inverse = jnp.concatenate([m.diagonal(size) for m, size in zip(metrics, sizes, strict=True)])
    if not any(isinstance(m, GroupMetric) for m in metrics):
        return DiagonalMetric(inverse)
    along = [m.along if isinstance(m, GroupMetric) else jnp.zeros(n) for m, n in zip(metrics, sizes, strict=True)]
    parts = [m.groups if isinstance(m, GroupMetric) else n for m, n in zip(metrics, sizes, strict=True)]
    return GroupMetric(inverse, jnp.concatenate(along).astype(inverse.dtype), joined(tuple(parts)))
