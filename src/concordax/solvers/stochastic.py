"""Effective parameters, log determinant and leverages from products alone, with a standard error.

With A = M + τI, M = Rᵀ WᵀW R, and a preconditioner P near A, from the random signs ε of each probe:

    tr A⁻¹     = tr P⁻¹ + E (x − P^-½ ε)ᵀ P^-½ ε,   A x = P^½ ε
    log det A  = log det P + E εᵀ log(P^-½ A P^-½) ε

What P knows is not estimated: it is a control variate. The conjugate gradients that give x give Lanczos's tridiagonal
matrix of P^-½ A P^-½ as well, and with it the quadrature of the logarithm. Source: Ubaru, Chen & Saad, SIAM J. Matrix
Anal. Appl. 38(4), 2017; Gardner et al., NeurIPS 2018, for the preconditioned form.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..metrics import Root
from ..system import System
from .base import Complexity
from .conjugate_gradients import CGState, conjugate_gradients
from .nystrom import NystromSketch

_PROBES = 8
# Iterations of a probe at most, and its relative residual: far below the spread between probes.
_ITERATIONS = 100
_TOLERANCE = 1e-4
# Leverages are held below 1, where the prediction without the row would be anything.
_LARGEST_LEVERAGE = 0.99


class _Coefficients(NamedTuple):
    """The step sizes and the quotients of slopes of a probe's iterations, and its first slope."""

    sizes: Float[Array, " m"]
    ratios: Float[Array, " m"]
    first: Float[Array, ""]


def stochastic_complexity(
    system: System, root: Root, sketch: NystromSketch, strength: Float[Array, ""]
) -> Complexity:
    """γ, its standard error and log det (I + K/τ) from random probes; leverages that add up to it.

    Args:
        system: the linearised problem, at n·k numbers of output.
        root: R, R Rᵀ = H⁻¹.
        sketch: of Rᵀ WᵀW R.
        strength: τ.

    Returns:
        The complexity. Of a row's leverage the sketch's part is its own; the rest of γ is spread in proportion to the
        curvature SᵀS, and what that takes to 1 is held below it.
    """
    size = system.gradient.size

    def matrix(v):
        return root.rmv(system.jacobian.rmv(system.jacobian.mv(root.mv(v)))) + strength * v

    def probe(key):
        signs = jax.random.rademacher(key, (size,), system.gradient.dtype)
        known = sketch.root(signs, strength, -0.5)
        end = _solve(matrix, sketch, strength, sketch.root(signs, strength, 0.5))
        return jnp.vdot(end.carried - known, known), size * _log_quadrature(end)

    inverse, logarithm = jax.lax.map(probe, jax.random.split(jax.random.key(1), _PROBES))
    known = jnp.sum(1 / (sketch.values + strength)) + (size - len(sketch.values)) / (sketch.values[-1] + strength)
    estimates = size - strength * (known + inverse)
    numbers = system.residual.size
    gamma = jnp.clip(jnp.mean(estimates), 0.0, min(size, numbers))
    determinant = sketch.log_determinant(size, strength) + jnp.mean(logarithm) - size * jnp.log(strength)
    error = jnp.std(estimates, ddof=1) / _PROBES**0.5
    return Complexity(_leverage(system, root, sketch, strength, gamma), determinant, gamma, error)


def _solve(matrix, sketch: NystromSketch, strength, target) -> CGState:
    """Conjugate gradients that carry the solution and keep their coefficients."""

    def measure(state: CGState):
        sizes, ratios, first = state.measured
        # What the start writes, the first iteration writes anew.
        index = jnp.maximum(state.iterations - 1, 0)
        first = jnp.where(state.iterations > 0, first, state.slope)
        kept = _Coefficients(sizes.at[index].set(state.size), ratios.at[index].set(state.ratio), first)
        return state.slope <= _TOLERANCE**2 * first, kept

    # What is never reached stands for a 1 on the diagonal of the tridiagonal matrix: log 1 = 0.
    ones = jnp.ones(_ITERATIONS, target.dtype)
    return conjugate_gradients(
        lambda v: (matrix(v), v),
        lambda v: sketch.precondition(v, strength),
        jnp.zeros_like(target),
        target,
        measure,
        _ITERATIONS,
        measured=_Coefficients(ones, 0 * ones, jnp.zeros((), target.dtype)),
    )


def _log_quadrature(end: CGState) -> Float[Array, ""]:
    """e₁ᵀ log(T) e₁ of Lanczos's matrix T, from the step sizes a and ratios b: 1/a_j + b_{j−1}/a_{j−1} and √b_j/a_j."""
    sizes, ratios, _ = end.measured
    reached = jnp.arange(_ITERATIONS) < end.iterations
    before = jnp.where(reached[1:], ratios[:-1] / sizes[:-1], 0.0)
    diagonal = 1 / sizes + jnp.concatenate([jnp.zeros(1, before.dtype), before])
    beside = jnp.where(reached[1:], jnp.sqrt(ratios[:-1]) / sizes[:-1], 0.0)
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    tiny = jnp.finfo(values.dtype).tiny
    return jnp.sum(vectors[0] ** 2 * jnp.log(jnp.maximum(values, tiny)))


def _leverage(system: System, root, sketch: NystromSketch, strength, gamma) -> Float[Array, "n k k"]:
    def add(total, vector):
        direction, value = vector
        image = system.jacobian.mv(root.mv(direction))
        return total + image[:, :, None] * image[:, None, :] / (value + strength), None

    none = jnp.zeros_like(system.curvature)
    known = jax.lax.scan(add, none, (sketch.basis, sketch.values))[0]
    trace, curvature = jnp.einsum("naa->", known), jnp.einsum("naa->", system.curvature)
    spread = known + jnp.maximum(gamma - trace, 0.0) / curvature * system.curvature
    leverage = spread * jnp.minimum(gamma / trace, 1.0)
    if leverage.shape[1] == 1:
        return jnp.minimum(leverage, _LARGEST_LEVERAGE)
    values, vectors = jnp.linalg.eigh(leverage)
    return jnp.einsum("nij,nj,nkj->nik", vectors, jnp.clip(values, 0.0, _LARGEST_LEVERAGE), vectors)
