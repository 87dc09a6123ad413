"""What a kernel says of training at one point: spectrum, alignment, drift, linearity of the step, signs that stayed.

Every figure is that of a subset of m rows: K = W H⁻¹ Wᵀ with rows of W scaled by √(w/Σw) over the subset.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from .. import linalg
from .._types import Batch
from ..compilation import Jitted
from ..jacobians import linearize
from ..losses import AbstractLoss
from ..models import LayeredModel
from ..regularizers import AbstractRegularizer
from ..system import Problem, build_system


class Sighting(NamedTuple):
    """What one measurement takes from the device.

    Attributes:
        gram: K, by its upper triangle.
        moved: f(θ) − f(θ'), the outputs after the step less those before it.
        predicted: J(θ') (θ − θ').
        signs: for each hidden layer, which pre-activations are positive; none where the model shows no layers.
    """

    gram: Float[np.ndarray, "mk mk"]
    moved: Float[np.ndarray, "m c"]
    predicted: Float[np.ndarray, "m c"]
    signs: tuple[Bool[np.ndarray, "m h"], ...]


def subset(sample: Batch, numbers: int) -> Batch:
    """Evenly spaced rows of weight > 0 with at most so many numbers of output together, and one row at least."""
    present = np.flatnonzero(np.asarray(sample.weights) > 0)
    count = min(len(present), max(1, numbers // sample.targets.shape[1]))
    index = present[np.linspace(0, len(present) - 1, count).round().astype(int)]
    # By NumPy: rows picked one array after the other by JAX compile a program each, 0.6 s together.
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), sample._replace(total=None))


def sight(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    params: PyTree,
    previous: PyTree,
    batch: Batch,
) -> Sighting:
    """Takes a measurement at `params`, to which a step led from `previous`."""
    seen = _sight(model, loss, regularizer, params, previous, batch)
    return Sighting(*jax.device_get(seen))


@partial(Jitted, few=True)
def _sight(model, loss, regularizer, params, previous, batch) -> tuple:
    with jax.default_matmul_precision("highest"):
        flat, unravel = ravel_pytree(params)
        start, _ = ravel_pytree(previous)
        system = build_system(Problem(model, loss, regularizer, unravel), flat, batch)
        before, jacobian = linearize(model, unravel, start, batch.inputs, matrix_free=True)
        gram = system.jacobian.gram(system.metric)
        return gram, system.outputs - before, jacobian.mv(flat - start), _signs(model, params, batch.inputs)


def _signs(model, params, inputs) -> tuple[Array, ...]:
    if not isinstance(model, LayeredModel):
        return ()
    taps = tuple(jnp.zeros((inputs.shape[0], layer.weight.shape[0]), layer.weight.dtype) for layer in params)
    _, features = model.tapped(params, inputs, taps)
    # The last layer's numbers are outputs, which no activation sees.
    return tuple(_pre_activations(*pair) > 0 for pair in list(zip(features, params, strict=True))[:-1])


def _pre_activations(features, layer) -> Array:
    weight, bias = layer
    return features @ (weight if bias is None else jnp.concatenate([weight, bias[:, None]], axis=1)).T


def symmetric(upper: np.ndarray) -> np.ndarray:
    """The matrix whose upper triangle is given, in float64."""
    return linalg.symmetric(np.asarray(upper, np.float64))


def spectrum(kernel: np.ndarray, strength: float, eps: float) -> dict[str, float]:
    """Largest and smallest eigenvalue of K, λ₁/λ_N, (λ₁ + τ)/(λ_N + τ) and tr K (K + τI)⁻¹.

    A smallest eigenvalue within rounding of zero, N·eps·λ₁ for a kernel formed with this eps, makes the condition
    infinite.
    """
    values = np.clip(np.linalg.eigvalsh(kernel), 0.0, None)
    largest, smallest = float(values[-1]), float(values[0])
    return {
        "largest": largest,
        "smallest": smallest,
        "condition": largest / smallest if smallest > len(values) * eps * largest else np.inf,
        "shifted_condition": (largest + strength) / (smallest + strength),
        "effective_dimension": float(np.sum(values / (values + strength))),
    }


def centred_targets(batch: Batch) -> np.ndarray:
    """Encoded targets less their weighted means, rows scaled as those of W are, as one vector [m·c]."""
    targets, weights = (np.asarray(part, np.float64) for part in (batch.targets, batch.weights))
    shares = weights[:, None] / weights.sum()
    # From the first row on: a column of equal numbers is then exactly zero.
    targets = targets - targets[0]
    return (np.sqrt(shares) * (targets - np.sum(shares * targets, axis=0))).reshape(-1)


def alignment(kernel: np.ndarray, targets: np.ndarray) -> float:
    """⟨K, yyᵀ⟩ / (‖K‖ ‖y‖²); NaN for targets that are all the same."""
    return _ratio(float(targets @ kernel @ targets), float(np.linalg.norm(kernel) * (targets @ targets)))


def drift(kernel: np.ndarray, start: np.ndarray) -> float:
    """‖K − K₀‖ / ‖K₀‖."""
    return _ratio(float(np.linalg.norm(kernel - start)), float(np.linalg.norm(start)))


def linearization_error(moved: np.ndarray, predicted: np.ndarray) -> float:
    """‖f(θ + δ) − f(θ) − Jδ‖ / ‖Jδ‖; NaN where nothing moved."""
    moved, predicted = (np.asarray(part, np.float64) for part in (moved, predicted))
    return _ratio(float(np.linalg.norm(moved - predicted)), float(np.linalg.norm(predicted)))


def invariance(signs: tuple[np.ndarray, ...], start: tuple[np.ndarray, ...]) -> float:
    """The share of hidden units times rows whose pre-activation has the sign it had; NaN without hidden layers."""
    same = [np.ravel(now == before) for now, before in zip(signs, start, strict=True)]
    return float(np.mean(np.concatenate(same))) if same else np.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.nan
