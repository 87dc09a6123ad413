"""Where the theory of the neural tangent kernel holds: width, depth, activation, regularizer, rows.

Four questions, a picture each: how far a trained network is from kernel regression with the kernel of its start; how
far that kernel has moved; its smallest eigenvalue; how well the linearised model foretells the losses of a run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import concordax as cx
from concordax import ntk

from .experiment import Experiment
from .sweep import Cell

# What "no regularizer" is: of the change, so that its pull, which is all there is where the data say nothing, keeps the
# network where it started, as it is without one.
_NEGLIGIBLE = 1e-10
NONE, CHANGE, PARAMETERS = "none", "L2 of the change", "L2 of the parameters"
"""The regularizers."""
_NOTES = [
    "The networks are MLPs in NTK scaling; inputs are standard normal, targets a smooth function of them of variance "
    "one, without noise. All seeds draw rows and weights anew.",
    "distance: the RMS over test rows of trained network less kernel regression, as a share of that by which the "
    "latter has left the start; both are trained to the end. drift: ||K_T - K_0|| / ||K_0|| on the rows.",
    "L2 of the change: ½ * strength * ||theta - theta_0||^2, as kernel regression has it; none: the same at a strength "
    "of 1e-10. L2 of the parameters: ½ * strength * ||theta||^2, as in the paper. Kernel regression is the exact "
    "minimum of the linearised model under the same penalty.",
    "eigenvalue: the smallest of K_0 on the rows, beside that of the infinite width (`limit`).",
    "curve: Gauss-Newton steps of a fixed size; the error is the largest over the steps of |root of predicted over "
    "measured loss - 1|. scale: of the targets.",
]


@dataclass(frozen=True)
class Kernels:
    """The configuration; the defaults are the full experiment.

    Args:
        inputs: input features.
        rows: training rows.
        test_rows: test rows.
        depths: hidden layers.
        activations: names.
        widths: units of each hidden layer, for all depths up to `largest` of that depth.
        largest: the largest width at each depth: parameters grow with its square from depth 2 on.
        strength: that of L2.
        steps: of a run to the end, at most; it ends where three steps change the objective by less than 1e-6 of it.
        eigenvalue_rows: numbers of rows at which the smallest eigenvalue is taken.
        scales: of the targets, for the predicted curves.
        curve_steps: steps of such a curve.
        step_size: of its steps.
    """

    inputs: int = 8
    rows: int = 48
    test_rows: int = 100
    depths: tuple[int, ...] = (1, 2, 3, 4)
    activations: tuple[str, ...] = ("silu", "relu")
    widths: tuple[int, ...] = (16, 64, 256, 1024, 4096, 16384)
    largest: tuple[int, ...] = (16384, 4096, 1024, 1024)
    strength: float = 1e-3
    steps: int = 60
    eigenvalue_rows: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    scales: tuple[float, ...] = (0.1, 1.0, 10.0)
    curve_steps: int = 20
    step_size: float = 0.2


def _cells(config: Kernels, seeds: int) -> Iterator[Cell]:
    networks = [
        {"depth": depth, "activation": activation, "width": width}
        for depth, largest in zip(config.depths, config.largest, strict=True)
        for activation in config.activations
        for width in config.widths
        if width <= largest
    ]
    for seed in range(seeds):
        for network in networks:
            for regularizer in (NONE, CHANGE, PARAMETERS):
                yield {"question": "distance", **network, "regularizer": regularizer, "seed": seed}
            for rows in config.eigenvalue_rows:
                yield {"question": "eigenvalue", **network, "rows": rows, "seed": seed}
            for scale in config.scales:
                yield {"question": "curve", **network, "scale": scale, "seed": seed}


def _cost(config: Kernels, cell: Cell) -> float:
    """Seconds, roughly: compiling, and products with all weights."""
    weights = cell["width"] * (config.inputs + (cell["depth"] - 1) * cell["width"])
    return 2.0 + weights / 2e5 if cell["question"] == "distance" else 1.0 + weights / 1e6


def measure(config: Kernels, cell: Cell) -> dict[str, Any]:
    """The numbers of one cell."""
    return {"distance": _distance, "eigenvalue": _eigenvalue, "curve": _curve}[cell["question"]](config, cell)


class _Setting(NamedTuple):
    model: cx.MLP
    params: Any
    inputs: Float[Array, "n d"]
    targets: Float[Array, "n 1"]
    test_inputs: Float[Array, "m d"]


def _setting(config: Kernels, cell: Cell, rows: int) -> _Setting:
    """A network at its start, and rows of a smooth function; the same rows for every network of a seed."""
    # Rows by NumPy: JAX would compile a program for each of their shapes.
    rng = np.random.default_rng(cell["seed"])
    inputs = rng.normal(size=(rows + config.test_rows, config.inputs))
    ways = rng.normal(size=(config.inputs, 2)) / math.sqrt(config.inputs)
    clean = np.sin(2 * inputs @ ways[:, :1]) + (inputs @ ways[:, 1:]) ** 2
    targets = (clean - clean.mean()) / clean.std()
    model = cx.MLP(config.inputs, (cell["width"],) * cell["depth"], 1, activation=cell["activation"])
    params = jax.jit(model.init)(jax.random.key(cell["seed"]))
    parts = (inputs[:rows], targets[:rows], inputs[rows:])
    return _Setting(model, params, *(jnp.asarray(part) for part in parts))


def _distance(config: Kernels, cell: Cell) -> dict[str, Any]:
    model, start, inputs, targets, test = _setting(config, cell, config.rows)
    strength = _NEGLIGIBLE if cell["regularizer"] == NONE else config.strength
    if cell["regularizer"] != PARAMETERS:
        targets = targets - model(start, inputs)
        model, start = ntk.centered(model, start)
    result = cx.train(
        model, cx.SquaredError(), cx.L2(), start, (inputs, targets), strength=strength, max_steps=config.steps
    )
    path = ntk.predict_training(
        model, start, (inputs, targets), path=ntk.GaussNewtonPath(), steps=[math.inf], strength=strength,
        regularizer=cx.L2(), test_inputs=test,
    )  # fmt: skip
    assert path.test_outputs is not None
    expected = path.test_outputs[0]
    untrained, trained = (np.asarray(model(at, test)) for at in (start, result.params))
    before, after = (ntk.empirical(model, at, inputs) for at in (start, result.params))
    return {
        "distance": _rms(trained - expected) / _rms(expected - untrained),
        "drift": float(jnp.linalg.norm(after - before) / jnp.linalg.norm(before)),
        "loss": float(result.history["loss"][-1]),
        "linearised_loss": float(path.loss[0]),
        "steps": len(result.history["loss"]),
    }


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _eigenvalue(config: Kernels, cell: Cell) -> dict[str, Any]:
    model, params, inputs, _, _ = _setting(config, cell, cell["rows"])
    kernel, limit = ntk.empirical(model, params, inputs), ntk.infinite_width(model)(inputs).ntk
    return {
        "smallest": float(np.linalg.eigvalsh(kernel)[0]),
        "limit": float(np.linalg.eigvalsh(limit)[0]),
        "from_limit": float(jnp.linalg.norm(kernel - limit) / jnp.linalg.norm(limit)),
    }


def _curve(config: Kernels, cell: Cell) -> dict[str, Any]:
    model, params, inputs, targets, _ = _setting(config, cell, config.rows)
    data = (inputs, cell["scale"] * targets)
    run = cx.train(
        model, cx.SquaredError(), cx.L2(), params, data, strength=_NEGLIGIBLE, step=cx.FixedStep(config.step_size),
        damping=config.strength, max_steps=config.curve_steps, tolerance=0.0,
    )  # fmt: skip
    steps = range(1, config.curve_steps + 1)
    rule = ntk.GaussNewtonPath(step_size=config.step_size, damping=config.strength)
    path = ntk.predict_training(
        model, params, data, path=rule, steps=steps, strength=_NEGLIGIBLE, regularizer=cx.L2()
    )
    # A run that diverged is short of steps, or not finite: infinitely far.
    measured = np.full(config.curve_steps, np.inf)
    taken = run.history["loss"][: config.curve_steps]
    measured[: len(taken)] = np.where(np.isfinite(taken), taken, np.inf)
    with np.errstate(divide="ignore"):
        ratio = np.sqrt(path.loss / measured)
    return {"error": float(np.max(np.abs(ratio - 1))), "predicted": path.loss.tolist(), "measured": measured.tolist()}


def slopes(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Slopes of distance, drift and distance from the limit against width, in logarithms, with their standard errors.

    A least-squares line over all seeds and the widths from 64 up, for each depth, activation and regularizer.
    """
    found = []
    for question, quantity in (("distance", "distance"), ("distance", "drift"), ("eigenvalue", "from_limit")):
        rows = [c for c in cells if c["question"] == question and c["width"] >= 64 and (c[quantity] or 0) > 0]
        kinds = dict.fromkeys((c["depth"], c["activation"], c.get("regularizer", "")) for c in rows)
        for kind in kinds:
            mine = [c for c in rows if (c["depth"], c["activation"], c.get("regularizer", "")) == kind]
            x, y = (np.log([c[name] for c in mine]) for name in ("width", quantity))
            if len(set(x)) < 2 or len(x) < 3:
                continue
            (slope, level), covariance = np.polyfit(x, y, 1, cov=True)
            found.append({
                "quantity": quantity, "depth": kind[0], "activation": kind[1], "regularizer": kind[2],
                "slope": float(slope), "error": math.sqrt(covariance[0, 0]), "level": float(level),
            })  # fmt: skip
    return found


EXPERIMENT = Experiment(
    name="ntk",
    full=Kernels(),
    quick=Kernels(
        depths=(1, 2), activations=("silu",), widths=(16, 64, 256), largest=(256, 64), eigenvalue_rows=(8, 32),
        scales=(0.1, 1.0), steps=40,
    ),
    tiny=Kernels(
        inputs=3, rows=10, test_rows=12, depths=(1,), activations=("silu",), widths=(8, 64), largest=(64,), steps=60,
        eigenvalue_rows=(8,), scales=(1.0,), curve_steps=3,
    ),
    cells=_cells,
    measure=measure,
    cost=_cost,
    notes=_NOTES,
)  # fmt: skip
