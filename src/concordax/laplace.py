"""Error bars: the Laplace approximation of the linearised model.

Cov f(x) = (σ²/n) J(x) (Wᵀ W + τH)⁻¹ J(x)ᵀ, from the factor at shift τ; on the dual side
(σ²/(nτ)) (k(x,x) − k(x,X)(K + τI)⁻¹ k(X,x)).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._types import Batch
from .evidence import log_evidence, noise_variance
from .jacobians import linearize
from .leave_one_out import at_minimum, left_out_outputs
from .linalg import SPDFactor
from .losses import AbstractLoss, BinaryCrossEntropy, SoftmaxCrossEntropy
from .optimizer import make_algorithm
from .regularizers import AbstractRegularizer
from .solvers import AbstractFactorable, AbstractSolver, Auto
from .solvers.base import complexity_of, log_determinant
from .trust_region import TrustRegion

# Rows of test inputs a product: their cross-Gram with N training numbers is one block.
_ROWS = 256


class Posterior(eqx.Module):
    """A trained network with the covariance of its outputs; build it with `posterior`.

    Attributes:
        params: the trained parameters.
        strength: τ.
        noise_variance: σ², 1 for likelihood losses.
        effective_parameters: γ.
    """

    model: Callable
    loss: AbstractLoss
    params: PyTree
    strength: Float[Array, ""]
    noise_variance: Float[Array, ""]
    effective_parameters: Float[Array, ""]
    examples: Float[Array, ""]
    prepared: AbstractFactorable
    factor: SPDFactor
    batch: Batch

    def predict(self, inputs: Array) -> tuple[Float[Array, "m c"], Float[Array, "m c c"]]:
        """Outputs and, a row, the covariance of the outputs that the parameters' uncertainty gives.

        Args:
            inputs: m rows.

        Returns:
            The outputs [m, c] and their covariance [m, c, c], symmetric with a non-negative diagonal; add σ² on the
            diagonal for a new observation.
        """
        inputs = jnp.asarray(inputs, ravel_pytree(self.params)[0].dtype)
        rows = inputs.shape[0]
        blocks = max(1, -(-rows // _ROWS))
        size = -(-rows // blocks)
        # Rows are filled up to whole blocks by repeating the first: one program serves every block.
        index = jnp.where(jnp.arange(blocks * size) < rows, jnp.arange(blocks * size), 0).reshape(blocks, size)
        parts = [_predict(self, inputs[i]) for i in index]
        outputs, covariance = (jnp.concatenate(part)[:rows] for part in zip(*parts, strict=True))
        return outputs, covariance

    def joint(self, inputs: Array) -> tuple[Float[Array, "m c"], Float[Array, "m c m c"]]:
        """Outputs and their covariance over all rows together, for draws of whole functions.

        Args:
            inputs: m rows; the result holds (m c)² numbers.

        Returns:
            The outputs [m, c] and their covariance [m, c, m, c], symmetric.
        """
        return _joint(self, jnp.asarray(inputs, ravel_pytree(self.params)[0].dtype))

    def log_evidence(self) -> Float[Array, ""]:
        """Log p(y) of Laplace's approximation at the parameters, in nats."""
        return _log_evidence(self)

    def left_out(self) -> tuple[Float[Array, "n c"], Float[Array, "n c c"]]:
        """`predict` at the training rows, of the linearised model at its minimum without the row: without refits.

        A row of weight w > 1 is there once less. Of rows of weight 0 the numbers mean nothing.
        """
        return _left_out(self)

    def determination(self) -> PyTree:
        """How far the data determine each parameter: 1 − posterior over prior variance, in [0, 1] and of sum γ."""
        return ravel_pytree(self.params)[1](_determination(self))

    def eigenvalues(self) -> Float[Array, " m"]:
        """Eigenvalues of the whitened kernel K, largest first."""
        return jnp.maximum(jnp.linalg.eigvalsh(self.prepared.matrix, UPLO="U", symmetrize_input=False)[::-1], 0.0)


def _covariance(posterior: Posterior, inputs: Array) -> tuple[Float[Array, "m c"], Float[Array, "m c m c"]]:
    with jax.default_matmul_precision("highest"):
        flat, unravel = ravel_pytree(posterior.params)
        outputs, jacobian = linearize(posterior.model, unravel, flat, inputs)
        scale = posterior.noise_variance / posterior.examples
        full = scale * posterior.prepared.covariance(jacobian, posterior.strength, posterior.factor)
    return outputs, full.reshape(*outputs.shape, *outputs.shape)


@eqx.filter_jit
def _joint(posterior: Posterior, inputs: Array):
    outputs, full = _covariance(posterior, inputs)
    return outputs, 0.5 * (full + jnp.transpose(full, (2, 3, 0, 1)))


@eqx.filter_jit
def _log_evidence(posterior: Posterior):
    leverage = posterior.prepared.leverage(posterior.factor)
    complexity = complexity_of(leverage, log_determinant(posterior.factor))
    parts = (posterior.prepared.system, posterior.batch, complexity, posterior.strength, posterior.noise_variance)
    return log_evidence(posterior.loss, *parts)


@eqx.filter_jit
def _determination(posterior: Posterior):
    with jax.default_matmul_precision("highest"):
        return posterior.prepared.determination(posterior.factor)


@eqx.filter_jit
def _left_out(posterior: Posterior):
    loss, batch, prepared = posterior.loss, posterior.batch, posterior.prepared
    with jax.default_matmul_precision("highest"):
        least = at_minimum(prepared.system, prepared, loss, batch, posterior.strength)
        root = loss.hessian_factor(prepared.system.outputs, batch.targets)
        outputs, covariance = left_out_outputs(root, *least, batch, prepared.leverage(posterior.factor))
    return outputs, posterior.noise_variance * covariance


@eqx.filter_jit
def _predict(posterior: Posterior, inputs: Array):
    outputs, full = _covariance(posterior, inputs)
    columns = outputs.shape[1]
    blocks = jnp.einsum("iaib->iab", full)
    blocks = 0.5 * (blocks + jnp.swapaxes(blocks, 1, 2))
    # The dual side subtracts: what rounding makes negative is an uncertainty below what can be told from zero.
    least = jnp.clip(jnp.einsum("iaa->ia", blocks), 0.0)
    return outputs, jnp.where(jnp.eye(columns, dtype=bool), least[:, :, None], blocks)


@eqx.filter_jit
def _prepare(algorithm, params, batch, strength):
    with jax.default_matmul_precision("highest"):
        _, _, prepared = algorithm.prepare(params, batch)
        if not isinstance(prepared, AbstractFactorable):
            raise TypeError(
                f"`posterior(solver={algorithm.solver!r})`: error bars need the factor of a matrix; use cx.Auto(), "
                "cx.Dual() or cx.Primal()."
            )
        system = prepared.system
        factor = prepared.factor(strength)
        gamma = prepared.effective_parameters(factor)
        examples = jnp.sum(batch.weights)
        variance = noise_variance(algorithm.loss, system.outputs, batch, gamma)
    return eqx.tree_at(lambda p: p.system.model_jacobian, prepared, None), factor, gamma, variance, examples


def posterior(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    params: PyTree,
    data: tuple[Array, Array],
    *,
    strength: float | Float[Array, ""],
    solver: AbstractSolver = Auto(),
    weights=None,
) -> Posterior:
    """The linearised Laplace posterior of a trained network.

    Args:
        model: a callable (params, inputs) -> outputs [n, c].
        loss: the loss it was trained with.
        regularizer: the regularizer it was trained with.
        params: the trained parameters.
        data: (inputs, targets) it was trained on.
        strength: the τ it was trained with.
        solver: on which side the factor is built; of an iterative solver, the direct one behind it.
        weights: [n] as in training.

    Returns:
        A `Posterior`: `predict(inputs)` gives outputs and covariances.

    Source: MacKay, Neural Computation 4(3), 1992; Immer et al., AISTATS 2021 (linearised Laplace).

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.numpy.linspace(-1, 1, 30)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(10,))
        >>> parts = (model, cx.SquaredError(), cx.L2())
        >>> result = cx.train(*parts, model.init(jax.random.key(0)), (x, x), strength=1e-3, max_steps=20)
        >>> fitted = cx.posterior(*parts, result.params, (x, x), strength=1e-3)
        >>> near, far = fitted.predict(jax.numpy.array([[0.0], [5.0]]))[1].ravel()
        >>> bool(far > near > 0)
        True
    """
    parts = {"strength": 1.0, "solver": solver.direct, "step": TrustRegion(), "damping": 0.0}
    algorithm = make_algorithm(model, loss, regularizer, **parts)
    batch = algorithm.batch(params, *data, weights)
    tau = jnp.asarray(strength, ravel_pytree(params)[0].dtype)
    prepared, factor, gamma, variance, examples = _prepare(algorithm, params, batch, tau)
    return Posterior(model, loss, params, tau, variance, gamma, examples, prepared, factor, batch)


def class_probabilities(
    loss: AbstractLoss, outputs: Float[Array, "m c"], covariance: Float[Array, "m c c"]
) -> Float[Array, "m classes"]:
    """Probit-corrected class probabilities: each logit divided by √(1 + (π/8) var) (MacKay 1992).

    Softmax does not see a common shift of the logits, and no data can fix one: its variance is taken out first, by
    centring outputs and covariance over the classes. For one binary output both columns are returned.

    Args:
        loss: `BinaryCrossEntropy` (one output) or `SoftmaxCrossEntropy`.
        outputs: logits [m, c].
        covariance: their covariance [m, c, c]; zeros give the plain probabilities.

    Returns:
        Probabilities [m, classes], rows summing to 1.

    Raises:
        TypeError: for a loss that gives no probabilities.
    """
    if isinstance(loss, BinaryCrossEntropy):
        logit = outputs[:, 0] / jnp.sqrt(1 + jnp.pi / 8 * covariance[:, 0, 0])
        return jnp.stack([jax.nn.sigmoid(-logit), jax.nn.sigmoid(logit)], axis=1)
    if not isinstance(loss, SoftmaxCrossEntropy):
        raise TypeError(f"`class_probabilities({loss!r})`: needs BinaryCrossEntropy() or SoftmaxCrossEntropy().")
    classes = outputs.shape[1]
    centre = jnp.eye(classes, dtype=outputs.dtype) - 1 / classes
    variance = jnp.einsum("ab,mbc,ac->ma", centre, covariance, centre)
    return jax.nn.softmax((outputs @ centre) / jnp.sqrt(1 + jnp.pi / 8 * jnp.maximum(variance, 0)), axis=1)
