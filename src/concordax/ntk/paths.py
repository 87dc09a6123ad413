r"""Rules of training whose path on a linear model has a closed form, by its spectral functions.

Under ½τ‖θ‖² (τ = 0 for none) and squared error, each rule moves the parameters by θ_k − θ_0 = −P_k(A)(Wᵀr_0 + τθ_0),
A = WᵀW, with P_k(λ) = (1 − m_k(λ))/(λ + τ). On the side of the outputs K = WWᵀ has the same eigenvalues:

    W (θ_k − θ_0) = −K P_k(K) r_0 − τ P_k(K) Wθ_0,
    V (θ_k − θ_0) = −VWᵀ P_k(K) r_0 − τ (P_k(0) Vθ_0 + VWᵀ Q_k(K) Wθ_0),   Q_k(λ) = (P_k(λ) − P_k(0))/λ,

for the Jacobian V of other rows. P_k and Q_k are differences of nearly equal numbers where few steps are taken or λ is
small, and are computed without one.
"""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float


class Response(NamedTuple):
    """P_k(λ) [s, m], P_k(0) [s] and τ Q_k(λ) [s, m] at s times; the last two are 0 without a decay."""

    moved: Float[np.ndarray, "s m"]
    at_zero: Float[np.ndarray, " s"]
    across: Float[np.ndarray, "s m"]


class AbstractPath(eqx.Module):
    """A rule of training: P_k for the eigenvalues of a kernel."""

    @abstractmethod
    def check(self, name: str, strength: float, *, penalized: bool) -> None:
        """Raises ValueError for a strength that the rule cannot use."""

    @abstractmethod
    def check_times(self, times: np.ndarray) -> None:
        """Raises ValueError for times that the rule does not have."""

    @abstractmethod
    def response(
        self, values: Float[np.ndarray, " m"], times: Float[np.ndarray, " s"], strength: float, decay: float
    ) -> Response:
        """The functions above.

        Args:
            values: eigenvalues λ > 0.
            times: steps or time; infinity is the limit.
            strength: τ as it stands in the rule.
            decay: τ where the penalty's gradient is part of the path, else 0.
        """

    def largest_stable(self, value: float, strength: float, decay: float) -> float | None:
        """The rate above which the path diverges for the eigenvalue; None where it never does."""
        del value, strength, decay
        return None


class _Stepwise(AbstractPath):
    """m_k = (1 − x)^k with x = s(λ)(λ + τ)."""

    @abstractmethod
    def gain(self, values: Any, strength: float) -> Any:
        """s(λ)."""

    @abstractmethod
    def tilt(self, values: Any, strength: float, decay: float) -> Any:
        """(x(λ) − x(0))/λ, without a difference."""

    def check_times(self, times):
        """Whole numbers from 0 up, and infinity."""
        if not np.all((times >= 0) & ((times == np.floor(times)) | np.isinf(times))):
            raise ValueError(
                f"`predict_training(steps={times.tolist()})`: must be whole numbers from 0 up; math.inf is the limit."
            )

    def response(self, values, times, strength, decay):
        """By expm1(k log1p(−x)) where m_k is near 1."""
        times = times[:, None]
        gap, start = self.gain(values, strength) * (values + decay), self.gain(0.0, strength) * decay
        moved = _one_less_power(gap, times) / (values + decay)
        if decay == 0:
            return Response(moved, np.zeros(len(times)), np.zeros_like(moved))
        at_zero = _one_less_power(np.array([start]), times)[:, 0] / decay
        if not np.isfinite(moved).all():
            return Response(moved, at_zero, moved)
        fallen = _difference_of_powers(start, values * self.tilt(values, strength, decay), times) / values
        return Response(moved, at_zero, (decay * fallen - decay * at_zero[:, None]) / (values + decay))


def _one_less_power(gap, times):
    """1 − (1 − x)^k; the limit 1 at infinity."""
    small = np.minimum(gap, 0.5)
    limit = np.isinf(times)
    finite = np.where(limit, 0.0, times)
    with np.errstate(over="ignore"):
        found = np.where(gap <= 0.5, -np.expm1(finite * np.log1p(-small)), 1 - np.power(1 - gap, finite))
        # Where it does not converge, the limit is none.
        return np.where(limit, np.where((gap > 0) & (gap < 2), 1.0, np.inf), found)


def _difference_of_powers(start: float, change, times):
    """a^k − (a − d)^k for a = 1 − x(0)."""
    base = 1 - start
    finite = np.where(np.isinf(times), 0.0, times)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratio = np.divide(-change, base) if base != 0 else np.full_like(change, -2.0)
        near = np.abs(ratio) <= 0.5
        close = -np.power(base, finite) * np.expm1(finite * np.log1p(np.where(near, ratio, 0.0)))
        apart = np.power(base, finite) - np.power(base - change, finite)
    return np.where(near, close, apart)


class GaussNewtonPath(_Stepwise):
    """Steps θ ← θ − α (WᵀW + (τ + λ) H)⁻¹ ∇F, the `FixedStep(α)` of `train`: m_k = (1 − α(K + τI)(K + (τ+λ)I)⁻¹)^k.

    Without the penalty's gradient r_k = (I − αK(K + (τ+λ)I)⁻¹)^k r_0.

    Args:
        step_size: α.
        damping: λ ≥ 0.

    Raises:
        ValueError: for a number out of range.

    Example:
        >>> GaussNewtonPath(0.5).step_size
        0.5
    """

    step_size: float = eqx.field(static=True)
    damping: float = eqx.field(static=True)

    def __init__(self, step_size: float = 1.0, damping: float = 0.0):
        self.step_size = _positive("GaussNewtonPath", "step_size", step_size)
        if not (math.isfinite(damping) and damping >= 0):
            raise ValueError(f"`GaussNewtonPath(damping={damping!r})`: must be a finite number from 0 up.")
        self.damping = float(damping)

    def check(self, name, strength, *, penalized):
        """The shift τ + λ must be positive."""
        del penalized
        if strength + self.damping <= 0:
            raise ValueError(
                f"`{name}(strength={strength!r})` with `{self!r}`: the shift, strength + damping, must be positive."
            )

    def gain(self, values, strength):
        """α/(λ + t)."""
        return self.step_size / (values + strength + self.damping)

    def tilt(self, values, strength, decay):
        """α(t − τ)/(t(λ + t))."""
        shift = strength + self.damping
        return self.step_size * (shift - decay) / (shift * (values + shift))

    def largest_stable(self, value, strength, decay):
        """2(λ + t)/(λ + τ)."""
        return 2 * (value + strength + self.damping) / (value + decay)


class _First(AbstractPath):
    """What gradient descent and its flow share."""

    def check(self, name, strength, *, penalized):
        """A strength counts only with a penalty."""
        if strength and not penalized:
            raise ValueError(
                f"`{name}(strength={strength!r})` without a regularizer has no effect on `{self!r}`: leave it at 0 or "
                "pass regularizer=L2()."
            )


class GradientDescentPath(_First, _Stepwise):
    """Steps θ ← θ − η ∇F, with a metric −η H⁻¹∇F: r_k = (I − ηK)^k r_0.

    Args:
        rate: η; the path converges below 2/(λ_max + τ).

    Raises:
        ValueError: for a rate that is not a positive finite number.

    Example:
        >>> GradientDescentPath(0.1).rate
        0.1
    """

    rate: float = eqx.field(static=True)

    def __init__(self, rate: float):
        self.rate = _positive("GradientDescentPath", "rate", rate)

    def gain(self, values, strength):
        """η."""
        del strength
        return self.rate * np.ones_like(values)

    def tilt(self, values, strength, decay):
        """η."""
        del strength, decay
        return self.rate * np.ones_like(values)

    def largest_stable(self, value, strength, decay):
        """2/(λ + τ)."""
        del strength
        return 2 / (value + decay)


class GradientFlow(_First):
    """θ' = −∇F, with a metric −H⁻¹∇F: r(T) = exp(−KT) r_0; steps are times T ≥ 0.

    Example:
        >>> GradientFlow() == GradientFlow()
        True
    """

    def check_times(self, times):
        """Numbers from 0 up, and infinity."""
        if not np.all(times >= 0):
            raise ValueError(
                f"`predict_training(steps={times.tolist()})`: the times of `GradientFlow()` are numbers from 0 up; "
                "math.inf is the limit."
            )

    def response(self, values, times, strength, decay):
        """m = exp(−(λ + τ)T)."""
        del strength
        times = times[:, None]
        moved = -np.expm1(-(values + decay) * times) / (values + decay)
        if decay == 0:
            return Response(moved, np.zeros(len(times)), np.zeros_like(moved))
        at_zero = -np.expm1(-decay * times)[:, 0] / decay
        fallen = -np.exp(-decay * times) * np.expm1(-values * times) / values
        return Response(moved, at_zero, (decay * fallen - decay * at_zero[:, None]) / (values + decay))


def _positive(name: str, argument: str, value: float) -> float:
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}({argument}={value!r})`: must be a positive finite number.")
    return float(value)
