"""Leave-one-out predictions of the linearised model, from the leverages: no refits.

At a minimum of the quadratic model, leaving out row i moves its outputs by d with Sᵀd = h (I − h)⁻¹ r, where
h = W_i (Wᵀ W + τH)⁻¹ W_iᵀ is the row's leverage and r its whitened residual. For least squares on a linear model this
is exact (Allen's PRESS); in general it is one Newton step of the fit without the row (Rahnama Rad & Maleki, JRSS B 82,
2020). Features that learnt the row while it was there stay learnt: the score is optimistic for a network.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Batch
from .curvature import AbstractHessianFactor
from .linalg import weighted_sum
from .losses import AbstractLoss
from .solvers import AbstractPrepared
from .system import System


def leave_one_out(
    loss: AbstractLoss,
    outputs: Float[Array, "n c"],
    batch: Batch,
    leverage: Float[Array, "n k k"],
    noise_variance: Float[Array, ""],
) -> Float[Array, ""]:
    """Mean log predictive density of each row by the model without it, in nats a row.

    Args:
        loss: the loss.
        outputs: f [n, c] of `at_minimum`: elsewhere r and h do not belong together. Where training had ended early,
            r/(1 − h) was five times the error of rows held out.
        batch: targets and weights. Of a row of weight w > 1, one of w equal rows is left out; of one below 1, all.
        leverage: W (Wᵀ W + τH)⁻¹ Wᵀ, the diagonal block of each row.
        noise_variance: σ²; 1 for a likelihood loss.

    Returns:
        Σ w log p(y_i | the other rows) / Σ w.
    """
    leverage, rest = _parts(batch, leverage)
    residual = loss.whitened_residual(outputs, batch.targets)
    left_out = _solve(rest, residual)
    if loss.is_quadratic:
        # N(y; f₋ᵢ, σ² (I − h)⁻¹): the quadratic form is r (I − h)⁻¹ r / σ².
        quadratic = jnp.sum(residual * left_out, axis=1) / noise_variance
        spread = residual.shape[1] * jnp.log(2 * jnp.pi * noise_variance) - _log_determinant(rest)
        density = -0.5 * (quadratic + spread)
    else:
        moved = _moved(loss.hessian_factor(outputs, batch.targets), outputs, leverage, left_out)
        density = -loss.value(moved, batch.targets)
        if loss.estimates_noise:
            # As everywhere where noise is judged, by the forces: see `evidence.force_energy`.
            forces = jnp.sum(loss.gradient(moved, batch.targets) ** 2, axis=1)
            density = -0.5 * (forces / noise_variance + outputs.shape[1] * jnp.log(2 * jnp.pi * noise_variance))
    return weighted_sum(density, batch.weights) / jnp.sum(batch.weights)


def at_minimum(
    system: System, prepared: AbstractPrepared, loss: AbstractLoss, batch: Batch, tau: Float[Array, ""]
) -> tuple[Float[Array, "n c"], Float[Array, "n k"]]:
    """Outputs and whitened residuals, a row, where the linearised model with strength τ is least."""
    solution = prepared.solve(tau, jnp.zeros_like(tau))
    share = jnp.sqrt(batch.weights / jnp.sum(batch.weights))[:, None]
    present = share > 0
    moved = jnp.where(present, solution.image / jnp.where(present, share, 1.0), 0.0)
    outputs = system.outputs + loss.hessian_factor(system.outputs, batch.targets).transpose_solve(moved)
    return outputs, loss.whitened_residual(system.outputs, batch.targets) + moved


def left_out_outputs(
    root: AbstractHessianFactor,
    outputs: Float[Array, "n c"],
    residual: Float[Array, "n k"],
    batch: Batch,
    leverage: Float[Array, "n k k"],
) -> tuple[Float[Array, "n c"], Float[Array, "n c c"]]:
    """What the model without it predicts for each row, after a Newton step of the rest, and how surely.

    Args:
        root: S of the loss at θ.
        outputs: f [n, c] of `at_minimum`, at the strength of the leverages.
        residual: whitened, of the same.
        batch: targets and weights, which count as in `leave_one_out`.
        leverage: W (Wᵀ W + τH)⁻¹ Wᵀ, the diagonal block of each row.

    Returns:
        Outputs [n, c], and their covariance S⁻ᵀ h (I − h)⁻¹ S⁻¹ [n, c, c] in units of the noise variance; of
        softmax both up to a common shift of the outputs, which it does not see.
    """
    leverage, rest = _parts(batch, leverage)
    moved = _moved(root, outputs, leverage, _solve(rest, residual))
    # Of a row that counts less than one, h and the information that it brings are as much smaller.
    share = jnp.where(batch.weights > 0, jnp.minimum(batch.weights, 1.0), 1.0)
    uncertainty = jax.vmap(_solve, in_axes=(None, 2), out_axes=2)(rest, leverage) / share[:, None, None]
    unwhiten = jax.vmap(root.transpose_solve, in_axes=2, out_axes=2)
    return moved, unwhiten(jnp.swapaxes(unwhiten(uncertainty), 1, 2))


def _moved(root, outputs, leverage, left_out):
    return outputs + root.transpose_solve(jnp.einsum("nab,nb->na", leverage, left_out))


def left_out_residual(
    residual: Float[Array, "n k"], batch: Batch, leverage: Float[Array, "n k k"]
) -> Float[Array, "n k"]:
    """(I − h)⁻¹ r: the whitened residual of each row by the model without it."""
    return _solve(_parts(batch, leverage)[1], residual)


def _parts(batch: Batch, leverage: Float[Array, "n k k"]) -> tuple[Float[Array, "n k k"], Float[Array, "n k k"]]:
    """The leverage h of what is left out of each row, and I − h."""
    weights = batch.weights
    leverage = jnp.where(weights > 1, 1 / jnp.maximum(weights, 1.0), 1.0)[:, None, None] * leverage
    identity = jnp.eye(leverage.shape[1], dtype=leverage.dtype)
    # A row that alone determines a direction has leverage 1: its left-out prediction is anything, its density nothing.
    return leverage, identity * (1 + jnp.finfo(leverage.dtype).eps) - leverage


def _solve(matrix: Float[Array, "n k k"], rhs: Float[Array, "n k"]) -> Float[Array, "n k"]:
    # One output, the common case: a division, where a batched LU of 1×1 matrices takes as long as a small Cholesky.
    return rhs / matrix[:, :, 0] if matrix.shape[1] == 1 else jnp.linalg.solve(matrix, rhs[:, :, None])[:, :, 0]


def _log_determinant(matrix: Float[Array, "n k k"]) -> Float[Array, " n"]:
    return jnp.log(matrix[:, 0, 0]) if matrix.shape[1] == 1 else jnp.linalg.slogdet(matrix)[1]
