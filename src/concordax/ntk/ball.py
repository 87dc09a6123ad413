"""The inequalities of the certificate: what a ball around the start allows, from a few numbers. Floats alone.

In the norm ‖·‖ of H, the regularizer's Hessian at the start, for all points of a ball of radius ρ around it: W moves by
at most Lρ, and ∇²g lies between e^{−kρ}H and e^{kρ}H. docs/certificates.md has the proofs; letters are as there.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

# Beyond this exponent no ball is ever certified; e to it is still far from the largest float.
_LARGEST_EXPONENT = 200.0
# A ball has to map strictly into itself: so much is added to the least radius, in turn.
_MARGINS = (1e-6, 1e-4, 1e-2)
_ROUNDS = 10_000


class Start(NamedTuple):
    """What is known at the start.

    Attributes:
        first_step: D = ‖δ₁‖ of the undamped Gauss-Newton step δ₁ from the start.
        dual: ‖u‖ with r + Wδ₁ = τu.
        smallest: σ, the smallest of the min(N, p) singular values of W H^-½.
        largest: the largest of them.
        tall: whether N ≥ p, so that σ bounds WᵀW from below.
        strength: τ.
        bending: k, the self-concordance of g at ν = 2 along a direction of norm one.
    """

    first_step: float
    dual: float
    smallest: float
    largest: float
    tall: bool
    strength: float
    bending: float


class Ball(NamedTuple):
    """A ball of radius ρ around the start in which W has the Lipschitz constant L."""

    start: Start
    lipschitz: float
    radius: float

    @property
    def moved(self) -> float:
        """Lρ, by how much W moves."""
        return self.lipschitz * self.radius

    @property
    def singular(self) -> float:
        """What the smallest singular value keeps, by Weyl's inequality."""
        return max(0.0, self.start.smallest - self.moved)

    @property
    def stretch(self) -> float:
        """e^{kρ}."""
        return math.exp(min(self.start.bending * self.radius, _LARGEST_EXPONENT))

    def held(self, shift: float) -> float:
        """The least eigenvalue of WᵀW + t∇²g in units of H."""
        return shift / self.stretch + (self.singular**2 if self.start.tall else 0.0)

    def response(self, shift: float) -> float:
        """‖(WᵀW + t∇²g)⁻¹Wᵀ‖ ≤ e^{kρ/2} max x/(x² + t) over the singular values x of W(∇²g)^-½."""
        least, root = self.singular / math.sqrt(self.stretch), math.sqrt(shift)
        worst = least / (least**2 + shift) if least > root else 0.5 / root
        return math.sqrt(self.stretch) * worst

    @property
    def curved(self) -> float:
        """‖q − Δδ₁‖ ≤ L(ρ²/2 + ρD): what the bending of the model adds to the linear residual."""
        return self.moved * (0.5 * self.radius + self.start.first_step)

    @property
    def bent(self) -> float:
        """What the bending of g adds to its linearised gradient, in the norm of H⁻¹."""
        exponent = math.log(self.stretch)
        grown = self.radius * _first_moment(exponent) + math.expm1(exponent) * self.start.first_step
        return self.start.strength * grown

    @property
    def linear_residual(self) -> float:
        """‖r + Wδ₁‖."""
        return self.start.strength * self.start.dual

    @property
    def spill(self) -> float:
        """E: how far the Gauss-Newton step from any point of the ball can end from δ₁."""
        tau = self.start.strength
        along = (self.moved * self.linear_residual + self.bent) / self.held(tau)
        return along + self.response(tau) * self.curved

    @property
    def residual(self) -> float:
        """V ≥ ‖r‖ at every stationary point of the ball."""
        tau = self.start.strength
        least = 0.0 if self.start.tall else self.singular**2 / self.stretch
        kept = tau / (least + tau) * self.curved
        return self.linear_residual + kept + self.response(tau) * (self.moved * self.linear_residual + self.bent)

    @property
    def maps_into_itself(self) -> bool:
        """Whether D + E < ρ."""
        return self.start.first_step + self.spill < self.radius

    @property
    def convexity(self) -> float:
        """A lower bound of ∇²F at stationary points of the ball, in units of H."""
        return self.held(self.start.strength) - self.lipschitz * self.residual

    def shrunk(self, distance: float, residual: float, step_size: float, damping: float) -> float:
        """How far the minimiser is after a step from `distance` of it, if ‖r‖ ≤ `residual` there."""
        shift = self.start.strength + damping
        rate = damping / shift * self.stretch + self.lipschitz * residual / self.held(shift)
        rate += 0.5 * self.response(shift) * self.lipschitz * distance
        grown = self.stretch * _second_moment(min(self.start.bending * distance, _LARGEST_EXPONENT))
        rate += self.start.strength / self.held(shift) * grown
        return (1 - step_size + step_size * rate) * distance


def least_ball(start: Start, lipschitz: float, most: float) -> Ball | None:
    """The least ball of at most radius `most` that the Gauss-Newton step maps into itself; None where there is none.

    E grows with ρ, so that ρ ← D + E(ρ) from D climbs to the least fixed point and not past it.

    Example:
        >>> start = Start(1.0, 1.0, 1.0, 2.0, False, 1e-3, 0.0)
        >>> least_ball(start, 0.0, 3.0).radius < 1.00001
        True
        >>> least_ball(start, 1.0, 3.0) is None
        True
    """
    ball = Ball(start, lipschitz, start.first_step)
    for _ in range(_ROUNDS):
        if ball.radius > most:
            return None
        radius = start.first_step + ball.spill
        settled = radius <= ball.radius * (1 + 1e-12)
        ball = ball._replace(radius=radius)
        if settled:
            break
    candidates = (ball._replace(radius=ball.radius * (1 + margin)) for margin in _MARGINS)
    return next((each for each in candidates if each.radius <= most and each.maps_into_itself), None)


def kantorovich(lipschitz: float, smallest: float, length: float) -> tuple[float, float]:
    """(h, t*): h = Lη/σ, and the radius (1 − √(1−2h)) σ/L within which r has a zero if h ≤ ½; else infinite.

    Args:
        lipschitz: L.
        smallest: σ.
        length: η = ‖W⁺r‖.

    Source: Kantorovich & Akilov, Functional Analysis, XVIII; for underdetermined equations Ben-Israel, J. Math. Anal.
    Appl. 15, 1966.

    Example:
        >>> kantorovich(0.5, 1.0, 1.0)
        (0.5, 2.0)
    """
    if not (smallest > 0 and math.isfinite(length)):
        return math.inf, math.inf
    h = lipschitz * length / smallest
    # (1 − √(1−2h))/h = 2/(1 + √(1−2h)), which has no difference in it.
    return h, 2 * length / (1 + math.sqrt(1 - 2 * h)) if h <= 0.5 else math.inf


def counted(law: Callable[[float], float], distance: float, most: int, reached: Callable[[float], bool]) -> int | None:
    """How often `distance` ← law(distance) is needed until it is reached; None if never, or more than `most` times."""
    for number in range(most + 1):
        if reached(distance):
            return number
        shorter = law(distance)
        if not shorter < distance:
            return None
        distance = shorter
    return None


def _first_moment(x: float) -> float:
    """∫₀¹ (eˣ − e^{sx}) ds = eˣ − (eˣ − 1)/x; for small x a bound of its series without the cancellation."""
    return x / 2 + x**2 / 2 if x < 1e-4 else math.exp(x) - math.expm1(x) / x


def _second_moment(x: float) -> float:
    """∫₀¹ (e^{(1−s)x} − 1) ds = (eˣ − 1)/x − 1."""
    return x / 2 + x**2 / 2 if x < 1e-4 else math.expm1(x) / x - 1
