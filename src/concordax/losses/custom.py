"""A convex loss given as a function of one row; its derivatives, S and r are derived."""

import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..curvature import DenseFactor, DiagonalFactor
from .base import AbstractLoss, as_columns

# Rows, and outputs for each, at which a function is examined before a run; the outputs' sizes, 0 among them.
_ROWS, _SIZES = 16, (0.0, 0.1, 1.0, 3.0)
# What counts as no curvature beside 1: rounding of the eigenvalues of a matrix with a diagonal of ones.
_ROUNDING = 10.0


class CustomLoss(AbstractLoss):
    """A loss ℓ(o, y) of your own, convex in the outputs o [c] of a row: S and r come from its Hessian H.

    With D the diagonal of H and C = D^{−½} H D^{−½}: S = D^½ C^½, r = C^{−½} D^{−½} ∂ℓ on the range of C, by an
    eigendecomposition a row, O(c³); for one output a division. The scaling by D keeps outputs apart whose curvatures
    differ by more than the digits of a number. The symmetric root, unlike Q √λ, is one matrix also where eigenvalues
    coincide. What is derived costs more than what is written down, and has the digits of `jax.hessian`.

    `train` examines the function at some of its targets and a few outputs: it must be finite and convex there, with a
    gradient in the range of its Hessian. A straight line, such as a hinge or the tail of Huber's loss, has no r.
    ℓ counts as a negative log density.

    Args:
        function: (outputs [c], targets [c]) -> scalar, of JAX operations; a function of a module, not a new `lambda` a
            run, as equal functions share compiled programs.
        constant: M with |D³ℓ(o)[s, u, u]| ≤ M ‖s‖₂ D²ℓ(o)[u, u], for step rules that ask for it. `cx.tightest` finds
            it for one output.

    Raises:
        ValueError: for a constant below 0 or not finite.
        TypeError: for a function that cannot be called.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = CustomLoss(lambda o, y: jnp.sum(jnp.cosh(o - y)), constant=1.0)
        >>> residual = loss.whitened_residual(jnp.array([[1.0]]), jnp.array([[0.0]]))
        >>> bool(jnp.allclose(residual, jnp.sinh(1.0) / jnp.sqrt(jnp.cosh(1.0))))
        True
    """

    name: ClassVar[str] = "custom"
    function: Callable = eqx.field(static=True)
    constant: float | None = eqx.field(static=True)

    def __init__(self, function: Callable, *, constant: float | None = None):
        if not callable(function):
            raise TypeError(
                f"`CustomLoss({function!r})`: needs a function (outputs [c], targets [c]) -> scalar of one row."
            )
        if constant is not None and not (math.isfinite(constant) and constant >= 0):
            raise ValueError(f"`CustomLoss(constant={constant!r})`: must be None or a finite number from 0 up.")
        self.function, self.constant = function, None if constant is None else float(constant)

    def encode(self, targets: Array, outputs: int) -> Array:
        """Targets [n] or [n, outputs] of real numbers."""
        return as_columns(targets, outputs, "CustomLoss")

    def check(self, targets, outputs):
        """The function at up to 16 of the targets: finite, convex, its gradient in the range of its Hessian."""
        targets = targets.reshape(len(targets), outputs)
        chosen = targets[np.linspace(0, len(targets) - 1, min(len(targets), _ROWS)).astype(int)]
        draws = np.random.default_rng(0).normal(size=(len(_SIZES), *chosen.shape))
        points = (np.array(_SIZES)[:, None, None] * draws).reshape(-1, outputs)
        with jax.enable_x64(True):
            o, y = jnp.asarray(points), jnp.asarray(np.tile(chosen, (len(_SIZES), 1)), float)
            shape = jax.eval_shape(self.function, o[0], y[0]).shape
            if shape != ():
                raise ValueError(
                    f"`CustomLoss({_name_of(self.function)})`: of one row's outputs [{outputs}] and targets "
                    f"[{outputs}] the function must return a scalar; it returns shape {shape}. Sum over the outputs."
                )
            examined = jax.jit(lambda o, y: (self.value(o, y), self.gradient(o, y), self._hessian(o, y)))(o, y)
            parts = [np.asarray(part) for part in examined]
        for where, (value, gradient, hessian) in enumerate(zip(*parts, strict=True)):
            complaint = _complaint(value, gradient, hessian)
            if complaint:
                raise ValueError(
                    f"`CustomLoss({_name_of(self.function)})` at outputs {points[where]} and targets "
                    f"{np.asarray(y[where])}: {complaint}"
                )

    def value(self, outputs, targets):
        """The function, row by row."""
        return jax.vmap(self.function)(outputs, targets)

    def gradient(self, outputs, targets):
        """Its gradient, row by row."""
        return jax.vmap(jax.grad(self.function))(outputs, targets)

    def hessian_factor(self, outputs, targets):
        """D^½ C^½, or the root of the one number."""
        hessian = self._hessian(outputs, targets)
        return DiagonalFactor(_root_of_diagonal(hessian)) if outputs.shape[1] == 1 else _symmetric_factor(hessian)

    def whitened_residual(self, outputs, targets):
        """C^{−½} D^{−½} ∂ℓ, or the quotient of two numbers."""
        hessian, gradient = self._hessian(outputs, targets), self.gradient(outputs, targets)
        if outputs.shape[1] == 1:
            return gradient / _root_of_diagonal(hessian)
        return jnp.einsum("nck,nc->nk", _symmetric_factor(hessian).dual, gradient)

    def concordance(self, slopes):
        """M times the largest norm of a row's slopes."""
        if self.constant is None:
            raise ValueError(
                f"`CustomLoss({_name_of(self.function)})` has no constant, so no step rule can bound its third "
                "derivative: pass constant=M with |D³ℓ(o)[s, u, u]| ≤ M ‖s‖₂ D²ℓ(o)[u, u] (cx.tightest(function, 2) "
                "finds it for one output), or use cx.TrustRegion(), which needs none."
            )
        return self.constant * jnp.max(jnp.linalg.norm(slopes, axis=1))

    def _hessian(self, outputs: Float[Array, "n c"], targets: Float[Array, "n c"]) -> Float[Array, "n c c"]:
        return jax.vmap(jax.hessian(self.function))(outputs, targets)


def _root_of_diagonal(hessian: Float[Array, "n c c"]) -> Float[Array, "n c"]:
    # Kept above the fourth root of the smallest number, so that r = ∂ℓ/S and its square stay finite.
    floor = float(jnp.finfo(hessian.dtype).tiny) ** 0.5
    return jnp.sqrt(jnp.maximum(jnp.diagonal(hessian, axis1=1, axis2=2), floor))


def _symmetric_factor(hessian: Float[Array, "n c c"]) -> DenseFactor:
    scale = _root_of_diagonal(hessian)
    values, vectors = jnp.linalg.eigh(hessian / (scale[:, :, None] * scale[:, None, :]))
    seen = values > _ROUNDING * values.shape[1] * jnp.finfo(values.dtype).eps
    roots = jnp.sqrt(jnp.where(seen, values, 1.0))
    half, inverse = (
        jnp.einsum("nak,nk,nbk->nab", vectors, jnp.where(seen, power, 0.0), vectors) for power in (roots, 1 / roots)
    )
    return DenseFactor(scale[:, :, None] * half, inverse / scale[:, :, None])


def _complaint(value: float, gradient: np.ndarray, hessian: np.ndarray) -> str | None:
    """What makes the function unusable at a point, and what to do; None if nothing does."""
    if not (np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(hessian).all()):
        return (
            f"value {value}, gradient {gradient} or Hessian is not finite. Write it so that it cannot overflow "
            "(jnp.logaddexp, jnp.hypot, jnp.clip) nor divide by zero, for targets like these."
        )
    curvatures = np.linalg.eigvalsh(hessian)
    if curvatures[0] < -1e-8 * np.abs(curvatures).max():
        return (
            f"its Hessian has the eigenvalue {curvatures[0]:.3g}, so it is not convex in the outputs. A non-convex "
            "part belongs into the model; a robust loss that is convex is PseudoHuberLoss."
        )
    scale = np.sqrt(np.maximum(np.diag(hessian), np.finfo(float).tiny ** 0.5))
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    pull = np.abs(vectors.T @ (gradient / scale))
    if np.any((values <= _ROUNDING * len(values) * np.finfo(float).eps) & (pull > 1e-6 * np.linalg.norm(pull))):
        return (
            f"the gradient {gradient} is not in the range of the Hessian, whose eigenvalues are {curvatures}: a "
            "straight line has no r with S r = ∂ℓ. Smooth its corners, as PseudoHuberLoss and QuantileLoss do, or add "
            "a small multiple of the squared outputs."
        )
    return None


def _name_of(function: Callable) -> str:
    return getattr(function, "__name__", repr(function))
