"""The objective, and the linearised problem at one point as data. The only place where 1/n, weights and τ enter.

F(θ) = (1/Σw) Σ_k w_k ℓ(f(θ; x_k), y_k) + τ g(θ). For a batch of m of the rows, m times the mean weight of all rows
stands for Σw: divided by its own Σw, a batch whose one row hardly counts would count like any other.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ._types import Batch
from .jacobians import AbstractJacobian, linearize, second_derivative
from .linalg import weighted_sum
from .losses import AbstractLoss
from .metrics import AbstractMetric
from .regularizers import AbstractRegularizer


class Problem(eqx.Module):
    """Model, loss and regularizer over flat parameters [p]."""

    model: Callable
    loss: AbstractLoss
    regularizer: AbstractRegularizer
    unravel: Callable = eqx.field(static=True)

    def outputs(self, flat: Float[Array, " p"], inputs) -> Float[Array, "n c"]:
        """f(θ; x) for every row."""
        return self.model(self.unravel(flat), inputs)

    def objective(
        self, flat: Float[Array, " p"], batch: Batch, strength: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """F(θ), and the loss in it."""
        loss = data_loss(self.loss, self.outputs(flat, batch.inputs), batch)
        return loss + strength * self.regularizer.value(flat), loss

    def bend(
        self, flat: Float[Array, " p"], batch: Batch, direction: Float[Array, " p"], *, single: bool = False
    ) -> Float[Array, "n k"]:
        """Sᵀ d²f(θ + sδ)/ds² at s = 0, scaled and whitened as the rows of W are.

        `single`: in float32, as precise as what follows it to second order has to be; half a float64 pass, or less.
        """
        lowered = _in_single if single else lambda tree: tree
        # Tied to the direction: what depends on θ alone XLA would take out of a loop over directions, array by array.
        flat, direction = jax.lax.optimization_barrier((flat, direction))
        outputs, second = second_derivative(
            lambda at, rows: self.model(lowered(self.unravel(at)), rows), flat, lowered(batch.inputs), direction
        )
        outputs, second = outputs.astype(flat.dtype), second.astype(flat.dtype)
        return _whitening(self.loss, outputs, batch, row_scale(batch))(second)


    def missed(
        self, system: "System", batch: Batch, displacement: Float[Array, " p"], outputs: Float[Array, "n c"]
    ) -> Float[Array, "n k"]:
        """Sᵀ(f(θ+δ) − f(θ) − Jδ), scaled and whitened as the rows of W are; `outputs` are f(θ+δ)."""
        rowwise = _whitening(self.loss, system.outputs, batch, row_scale(batch))
        return rowwise(outputs - system.outputs) - system.jacobian.mv(displacement)


def _in_single(tree: PyTree) -> PyTree:
    """A pytree with its float64 leaves in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, tree)


def total_weight(batch: Batch) -> Float[Array, ""]:
    """What the weights of a batch are divided by."""
    return jnp.sum(batch.weights) if batch.total is None else batch.total


def data_loss(loss: AbstractLoss, outputs: Float[Array, "n c"], batch: Batch) -> Float[Array, ""]:
    """Weighted mean of the loss; rows of weight zero count as absent, whatever they hold."""
    return weighted_sum(loss.value(outputs, batch.targets), batch.weights) / total_weight(batch)


class System(eqx.Module):
    """Everything a solver may look at: the quadratic model of F at θ for any strength τ and damping λ.

    (Wᵀ W + (τ + λ) H) δ = −(Wᵀ r + τ g), with W = Sᵀ J and r scaled by √(w/Σw) a row; `curvature` is SᵀS so scaled.
    `jacobian` is W and `model_jacobian` J itself, which costs nothing unless `slopes` are asked for; None where a
    system is kept.
    """

    outputs: Float[Array, "n c"]
    jacobian: AbstractJacobian
    model_jacobian: AbstractJacobian | None
    residual: Float[Array, "n k"]
    curvature: Float[Array, "n k k"]
    gradient: Float[Array, " p"]
    metric: AbstractMetric
    loss: Float[Array, ""]
    penalty: Float[Array, ""]
    numbers: Float[Array, ""]
    present: Bool[Array, " n"]

    def objective_gradient(self, strength: Float[Array, ""]) -> Float[Array, " p"]:
        """Wᵀ r + τ g: ∇F."""
        return self.jacobian.rmv(self.residual) + strength * self.gradient

    def slopes(self, direction: Float[Array, " p"]) -> Float[Array, "n c"]:
        """J δ: how the outputs of each row move, 0 for rows of weight 0."""
        assert self.model_jacobian is not None, "kept systems have no J"
        return jnp.where(self.present[:, None], self.model_jacobian.mv(direction), 0.0)


def build_system(problem: Problem, flat: Float[Array, " p"], batch: Batch, *, matrix_free: bool = False) -> System:
    """Linearises the model and collects loss and regularizer at `flat`."""
    outputs, jacobian = linearize(problem.model, problem.unravel, flat, batch.inputs, matrix_free=matrix_free)
    scale = row_scale(batch)
    rowwise = _whitening(problem.loss, outputs, batch, scale)
    residual = problem.loss.whitened_residual(outputs, batch.targets)
    identity = jnp.broadcast_to(jnp.eye(outputs.shape[1], dtype=flat.dtype), (*outputs.shape, outputs.shape[1]))
    whitening = rowwise(identity)
    return System(
        outputs=outputs,
        jacobian=jacobian.transform(rowwise),
        model_jacobian=jacobian,
        residual=jnp.where(scale[:, None] > 0, scale[:, None] * residual, 0.0),
        curvature=jnp.einsum("nac,nbc->nab", whitening, whitening),
        gradient=problem.regularizer.gradient(flat),
        metric=problem.regularizer.metric(flat),
        loss=data_loss(problem.loss, outputs, batch),
        penalty=problem.regularizer.value(flat),
        numbers=total_weight(batch) * residual.shape[1],
        present=scale > 0,
    )


def row_scale(batch: Batch) -> Float[Array, " n"]:
    """√(w/Σw), what whitened rows are scaled by."""
    return jnp.sqrt(batch.weights / total_weight(batch))


def _whitening(
    loss: AbstractLoss, outputs: Float[Array, "n c"], batch: Batch, scale: Float[Array, " n"]
) -> Callable[[Array], Array]:
    """x [n, c, *d] to s Sᵀ x a row with s = √(w/Σw), 0 where the weight is."""
    factor = loss.hessian_factor(outputs, batch.targets)

    def rowwise(x: Array) -> Array:
        rows = scale.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(rows > 0, rows * factor.transpose_mv(x), 0.0)

    return rowwise


def make_batch(loss: AbstractLoss, inputs, targets, weights, outputs: int, dtype) -> Batch:
    """Encodes targets, fills in unit weights; raises ValueError on shapes that do not fit."""
    rows = jax.tree.leaves(inputs)[0].shape[0]
    encoded = loss.encode(jnp.asarray(targets), outputs).astype(dtype)
    if encoded.shape[0] != rows or rows == 0:
        raise ValueError(
            f"inputs have {rows} rows and targets {encoded.shape[0]}; they must have the same number, at least one."
        )
    if weights is None:
        return Batch(inputs, encoded, jnp.ones(rows, dtype))
    weights = jnp.asarray(weights, dtype)
    if weights.shape != (rows,):
        raise ValueError(f"weights must have shape [{rows}], one number a row; got {weights.shape}.")
    # A row of weight 0 is absent whatever it holds: 0 · NaN would be NaN in every product with its layer inputs.
    present = jax.tree.map(lambda leaf: jnp.where(weights.reshape(-1, *(1,) * (leaf.ndim - 1)) > 0, leaf, 0), inputs)
    return Batch(present, encoded, weights)
