"""What a diagnosis looks at: the history, and the network and its linearised system where the run ended."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._status import RunStatus
from .._types import Batch
from ..history import RunSetup
from ..models import MLP, TwoLayer, activation_function
from ..solvers import Auto

# Rows that outputs and slopes are looked at, evenly spread: shares of them need no more.
_ROWS = 2000
# Size of the smaller of Gram and normal matrix up to which the system is factorized: seconds, not minutes.
_SYSTEM = 3000
# γ is compared with that at a strength so much smaller.
FAR_SMALLER = 1e-4


class SystemFacts(NamedTuple):
    """The linearised system without damping: its trace, the shift a factorization took, what a step would gain, γ."""

    trace: float
    shift: float
    promise: float
    gamma: float
    gamma_far_smaller: float


class LayerSlopes(NamedTuple):
    """Of one hidden layer, shares of |φ'(z)| < 0.01: of all rows and units, and of units where no row has more."""

    entries: float
    units: float


class Facts(NamedTuple):
    """Everything a signature may look at."""

    history: Mapping[str, np.ndarray]
    status: RunStatus
    setup: RunSetup
    strength: float
    flat: Float[np.ndarray, " p"]
    outputs: Float[np.ndarray, "n c"]
    targets: Float[np.ndarray, "n c"]
    inputs: Float[np.ndarray, "n d"] | None
    numbers: int
    slopes: tuple[LayerSlopes, ...]
    system: SystemFacts | None
    eps: float

    @property
    def comparable(self) -> bool:
        """Whether objectives of different steps can be compared."""
        return self.setup.full and not self.setup.algorithm.strength.is_adaptive

    @property
    def codes(self) -> np.ndarray:
        """The status of each step."""
        return self.history["status"].astype(int)


def gather(params: Any, strength: float, status: RunStatus, history: Mapping[str, Any], setup: RunSetup) -> Facts:
    """Looks at the parameters of a run; what would take too long, the system of many rows, is left out."""
    algorithm, batch = setup.algorithm, setup.batch
    flat = ravel_pytree(params)[0]
    present = np.flatnonzero(np.asarray(batch.weights) > 0)
    seen = present if len(present) <= _ROWS else present[np.linspace(0, len(present) - 1, _ROWS).round().astype(int)]
    inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[seen], batch.inputs)
    outputs = np.asarray(_outputs(algorithm.model, params, inputs), np.float64)
    table = isinstance(batch.inputs, jax.Array | np.ndarray) and batch.inputs.ndim == 2
    healthy = bool(np.isfinite(outputs).all() and np.isfinite(np.asarray(flat)).all())
    layered = isinstance(algorithm.model, TwoLayer | MLP)
    return Facts(
        history={name: np.asarray(values, float) for name, values in history.items()},
        status=status,
        setup=setup,
        strength=strength,
        flat=np.asarray(flat, np.float64),
        outputs=outputs,
        targets=np.asarray(batch.targets, np.float64)[seen],
        inputs=np.asarray(inputs, np.float64) if table else None,
        numbers=len(present) * outputs.shape[1],
        slopes=tuple(LayerSlopes(*map(float, each)) for each in _slopes(algorithm.model, params, inputs))
        if layered and healthy
        else (),
        system=_system_facts(setup, params, strength) if healthy else None,
        eps=float(jnp.finfo(flat.dtype).eps),
    )


@eqx.filter_jit
def _outputs(model, params, inputs) -> Float[Array, "n c"]:
    return model(params, inputs)


@eqx.filter_jit
def _slopes(model: TwoLayer | MLP, params, inputs) -> list[tuple[Array, Array]]:
    _, seen = model.tapped(params, inputs, None)
    slope = lambda z: jax.jvp(activation_function(model.activation), (z,), (jnp.ones_like(z),))[1]
    found = []
    for layer, features in zip(params[:-1], seen, strict=False):
        z = features[:, : layer.weight.shape[1]] @ layer.weight.T
        # A hundredth of the steepest slope of every activation here: steps hardly reach what lies behind.
        flat = jnp.abs(slope(z if layer.bias is None else z + layer.bias)) < 0.01
        found.append((jnp.mean(flat), jnp.mean(jnp.all(flat, axis=0))))
    return found


def _system_facts(setup: RunSetup, params: Any, strength: float) -> SystemFacts | None:
    algorithm, batch = setup.algorithm, setup.batch
    shape = algorithm.shape(params, batch)
    if not setup.full or min(shape.rows * shape.outputs, shape.parameters) > _SYSTEM:
        return None
    # A direct solver, whichever the run had: leverages are then exact, and the shift is that of a factorization.
    algorithm = eqx.tree_at(lambda a: a.solver, algorithm, Auto(direct_only=True))
    try:
        found = jax.device_get(_system(algorithm, params, batch, jnp.asarray(strength, batch.targets.dtype)))
    except MemoryError:
        return None
    return SystemFacts(*map(float, found))


@eqx.filter_jit
def _system(algorithm, params, batch: Batch, strength: Float[Array, ""]):
    with jax.default_matmul_precision("highest"):
        _, _, prepared = algorithm.prepare(params, batch)
        solution = prepared.solve(strength, jnp.zeros_like(strength))
        gamma = lambda tau: prepared.effective_parameters(prepared.factor(tau))
        return (
            prepared.trace(),
            solution.stats.shift,
            solution.predicted_decrease(strength),
            gamma(strength),
            gamma(FAR_SMALLER * strength),
        )
