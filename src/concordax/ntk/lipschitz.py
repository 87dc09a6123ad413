"""How fast the whitened Jacobian turns: L with ‖(W(θ) − W(θ'))H^-½‖ ≤ L‖θ − θ'‖_H over a ball, measured or bounded.

L is the supremum of ‖D²r(θ)[v, v]‖ over θ in the ball and ‖v‖_H = 1, r the residual with its √(w/Σw).
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._types import Batch
from ..metrics import AbstractMetric, GroupMetric
from ..models import DenseLayer
from ..system import Problem, row_scale
from .recentering import Centered

# The line along which a model's smoothness is tried moves each parameter by so much, and is as long as the ball at
# least: shorter ones might cross no jump.
_MOVED = 0.3
# Gauss-Legendre nodes on a piece of it; the share of the change of its slope that they may miss, and so many roundings
# of the slope. What one piece misses is tried again with many: a smooth function is then met, a jump never.
_NODES, _PIECES, _MISSED, _ROUNDINGS = 64, (1, 32), 1e-3, 1e3


class Curve(eqx.Module):
    """The residuals as a function of whitened displacements z of the start: θ = θ₀ + R z, R Rᵀ = H⁻¹."""

    problem: Problem
    flat: Float[Array, " p"]
    batch: Batch
    metric: AbstractMetric

    def second(self, z: Float[Array, " p"], v: Float[Array, " p"]) -> Float[Array, "n c"]:
        """D²r(θ₀ + R z)[R v, R v]."""
        root = self.metric.root()
        return self.problem.bend(self.flat + root.mv(z), self.batch, root.mv(v))

    @property
    def longest(self) -> float:
        """√ of the largest eigenvalue of H⁻¹, or a bound of it: ‖x‖₂ ≤ that · ‖x‖_H."""
        inverse = jnp.max(self.metric.diagonal(self.flat.size))
        if isinstance(self.metric, GroupMetric):
            inverse = inverse + jnp.max(self.metric.groups.total(self.metric.along**2), initial=0.0)
        return math.sqrt(float(inverse))


class AbstractLipschitz(eqx.Module):
    """A way to know L."""

    proved: ClassVar[bool]

    @abstractmethod
    def over(self, curve: Curve, radius: float, key: PRNGKeyArray) -> float:
        """L over the ball of this radius, in ‖·‖_H, around the start."""


class MeasuredLipschitz(AbstractLipschitz):
    """The largest ‖D²r(θ)[v, v]‖ that ascent in θ and v together finds, times a margin: an estimate, for any model.

    v ← ∇_v ‖D²r[v, v]‖², the power method for a symmetric tensor; from every other start θ moves too, to where the
    linear model of that norm is largest on the ball. Starts are heavy-tailed: each begins near a few other parameters,
    for in a wide network the largest curvature is that of a single unit.

    Args:
        starts: ascents.
        rounds: steps of each.
        margin: the factor from what was found to what is used, 1 or more.

    Raises:
        ValueError: for numbers out of range; by `over` for a model whose slope has jumps along a line that is tried, as
            that of relu has.

    Source: Kofidis & Regalia, SIAM J. Matrix Anal. Appl. 23, 2002, for the power method.

    Example:
        >>> MeasuredLipschitz().margin
        1.5
    """

    proved: ClassVar[bool] = False
    starts: int = eqx.field(static=True)
    rounds: int = eqx.field(static=True)
    margin: float = eqx.field(static=True)

    def __init__(self, starts: int = 8, rounds: int = 40, margin: float = 1.5):
        for name, value in (("starts", starts), ("rounds", rounds)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`MeasuredLipschitz({name}={value!r})`: must be a whole number from 1 up.")
        if not (isinstance(margin, int | float) and math.isfinite(margin) and margin >= 1):
            raise ValueError(f"`MeasuredLipschitz(margin={margin!r})`: must be a finite number from 1 up.")
        self.starts, self.rounds, self.margin = starts, rounds, float(margin)

    def over(self, curve, radius, key):
        """The largest found, times the margin."""
        line, climb = jax.random.split(key)
        # As an array: a float would be part of the program, and each radius another one.
        reach = jnp.asarray(radius, curve.flat.dtype)
        _check_smooth(curve, reach, line)
        return self.margin * float(_steepest(curve, reach, climb, self.starts, self.rounds))


def _unit(x: Array) -> Array:
    norm = jnp.linalg.norm(x)
    return x / jnp.where(norm > 0, norm, 1.0)


def _check_smooth(curve: Curve, radius: Float[Array, ""], key: PRNGKeyArray) -> None:
    reach = jnp.maximum(radius, _MOVED * curve.flat.size**0.5 / curve.longest)
    missed, change = 0.0, 0.0
    for pieces in _PIECES:
        missed, change, slope = map(float, _missed(curve, reach, key, pieces))
        if missed <= _MISSED * change + _ROUNDINGS * float(jnp.finfo(curve.flat.dtype).eps) * slope:
            return
    raise ValueError(
        f"`certify(model={curve.problem.model!r})`: its Jacobian jumps: its second derivative leaves "
        f"{missed / change:.0%} of the change of its slope along a line unexplained. A certificate needs a smooth "
        "model: use silu, tanh or gelu for relu."
    )


@eqx.filter_jit
def _missed(curve: Curve, radius: Float[Array, ""], key: PRNGKeyArray, pieces: int) -> tuple[Array, Array, Array]:
    """Along a random radius ‖r'(1) − r'(0) − ∫r''‖, 0 if r' has no jumps; ‖r'(1) − r'(0)‖; ‖r'(1)‖."""
    z = radius * _unit(jax.random.normal(key, curve.flat.shape, curve.flat.dtype))
    root = curve.metric.root()
    scale = row_scale(curve.batch)[:, None]
    outputs = lambda s: curve.problem.outputs(curve.flat + s * root.mv(z), curve.batch.inputs)
    slope = lambda s: scale * jax.jvp(outputs, (s,), (jnp.ones_like(s),))[1]
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    at = ((np.arange(pieces)[:, None] + 0.5 * (1 + nodes)) / pieces).ravel()
    shares = jnp.asarray(np.tile(0.5 * weights / pieces, pieces), z.dtype)

    def add(total, node):
        s, share = node
        return total + share * curve.second(s * z, z), None

    first, last = slope(jnp.zeros((), z.dtype)), slope(jnp.ones((), z.dtype))
    integral, _ = jax.lax.scan(add, jnp.zeros_like(first), (jnp.asarray(at, z.dtype), shares))
    change = last - first
    return jnp.linalg.norm(change - integral), jnp.linalg.norm(change), jnp.linalg.norm(last)


@eqx.filter_jit
def _steepest(curve: Curve, radius: Float[Array, ""], key: PRNGKeyArray, starts: int, rounds: int) -> Float[Array, ""]:
    """The largest ‖D²r(θ)[v, v]‖ of all rounds of all starts."""

    def climb(begin):
        key, number = begin
        at, along = jax.random.split(key)
        normal = lambda key: jax.random.normal(key, curve.flat.shape, curve.flat.dtype)
        # One ascent stays at the center, one in two at a point of the sphere.
        z = jnp.where(number == 0, 0.0, radius) * _unit(normal(at))
        height = lambda z, v: 0.5 * jnp.sum(curve.second(z, v) ** 2)

        def ascend(carry, _):
            z, v = carry
            value, (up, turn) = jax.value_and_grad(height, (0, 1))(z, v)
            z = jnp.where(number % 2 == 1, radius * _unit(up), z)
            return (z, _unit(turn)), jnp.sqrt(2 * value)

        _, found = jax.lax.scan(ascend, (z, _unit(normal(along) ** 3)), None, length=rounds)
        return jnp.max(found)

    return jnp.max(jax.lax.map(climb, (jax.random.split(key, starts), jnp.arange(starts))))


class _Slopes(NamedTuple):
    """sup|φ'| and sup|φ''|."""

    first: float
    second: float


# tanh: φ'' = −2 tanh/cosh², largest at tanh² = 1/3. erf: φ'' = −(4/√π) t e^{−t²}, at t² = ½. silu: φ'' is ½ at 0, φ' is
# largest at t = 2.3994. gelu: JAX computes its tanh form, whose suprema are 1.12901 and 0.79789; both are rounded up.
_SLOPES = {
    "tanh": _Slopes(1.0, 4 / 3**1.5),
    "silu": _Slopes(1.09985, 0.5),
    "gelu": _Slopes(1.1291, 0.79790),
    "erf": _Slopes(2 / math.sqrt(math.pi), 4 / math.sqrt(2 * math.pi * math.e)),
    "linear": _Slopes(1.0, 0.0),
}


class BoundedLipschitz(AbstractLipschitz):
    """A proved bound of L for networks of one hidden layer (`TwoLayer`, `MLP` with one width), from sup|φ'|, sup|φ''|.

    With s the outer scale, x̄ a row as the hidden layer sees it, X₂² = λ_max(Σ ω x̄x̄ᵀ), ω = w/Σw, X₄ = max‖x̄‖ X₂:
    L ≤ s (c₂/2 + √(c₂²/4 + c₁²)) λ, c₁ = sup|φ'| X₂, c₂ = sup|φ''| (max_j ‖v_j‖ + ρ√λ) X₄, v_j the outer weights of
    unit j and λ the largest eigenvalue of H⁻¹. 1.2 to 8 times what `MeasuredLipschitz` gives, the more the larger the
    ball.

    Example:
        >>> BoundedLipschitz().proved
        True
    """

    proved: ClassVar[bool] = True

    def over(self, curve, radius, key):
        """The bound."""
        del key
        slopes, (hidden, outer), scales = _one_hidden_layer(curve.problem.model, curve.problem.unravel(curve.flat))
        rows = np.asarray(curve.batch.inputs, float) * scales[0]
        if hidden.bias is not None:
            rows = np.concatenate([rows, np.ones_like(rows[:, :1])], axis=1)
        share = np.asarray(curve.batch.weights, float)
        spread = np.linalg.norm(np.sqrt(share / share.sum())[:, None] * rows, 2)
        largest = np.linalg.norm(np.asarray(outer.weight, float), axis=0).max() + radius * curve.longest
        first = slopes.first * spread
        second = slopes.second * largest * np.linalg.norm(rows, axis=1).max() * spread
        norm = 0.5 * second + math.hypot(0.5 * second, first)
        return float(scales[1] * norm * curve.longest**2)


def _one_hidden_layer(model: Callable, params) -> tuple[_Slopes, tuple[DenseLayer, DenseLayer], tuple[float, float]]:
    if isinstance(model, Centered):
        model, params = model.model, model.moved(params)
    activation, scales = getattr(model, "activation", None), getattr(model, "scales", ())
    if not isinstance(activation, str) or activation not in _SLOPES or len(scales) != 2:
        raise ValueError(
            f"`BoundedLipschitz()` knows networks of one hidden layer with {', '.join(sorted(_SLOPES))}; the model is "
            f"{model!r}. Use MeasuredLipschitz(), an estimate, for other smooth models."
        )
    return _SLOPES[activation], params, scales
