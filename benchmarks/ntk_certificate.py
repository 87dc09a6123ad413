"""Certificates beside trained networks, and the flag "linearisation broke" beside kernel regression.

    python benchmarks/ntk_certificate.py --output benchmarks/records/ntk_certificate.json

Three parts, all in float64 on networks of one hidden layer in NTK scaling, as functions of the displacement from their
start (`ntk.centered`). 20 rows of 3 inputs, targets sin(a·x) of root mean square s, an a for each output.

1. Kept: random settings until 50 are certified. Each is trained by undamped full steps and by the trust region; the
   distance of the trained network from its start against the radius.
2. Reach: the largest s that is certified, by width and strength, with the measured L and the proved bound.
3. Flag: 60 runs of the trust region. A run's label is "broke" if its outputs on 200 fresh rows differ from those of
   exact kernel ridge regression with the kernel of the start (NumPy, by the closed form of the Jacobian) by more than a
   tenth, in root mean square. The flag is `linearization(...).broke` on 200 other fresh rows, with its default
   tolerance; it sees neither targets nor that solution. Beside it, the flag by the linearisation's error alone. Label,
   flag and settings were fixed before any of the 60 ran, on runs of other widths and seeds.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from results import write

import concordax as cx
from concordax import ntk

ROWS, INPUTS, FRESH = 20, 3, 200
CERTIFIED, MOST_DRAWS = 50, 400
WIDTHS, SCALES, STRENGTHS = (64, 512, 4096), (0.03, 0.1, 0.3, 1.0), (1e-3, 1e-2, 1e-1)
REACH_WIDTHS = (16, 64, 256, 1024, 4096)
# The 60: widths × scales of the targets × activations × outputs.
FLAG_WIDTHS, FLAG_SCALES, FLAG_STRENGTH = (8, 32, 128, 1024, 4096), (0.1, 1.0, 5.0), 1e-4
ACTIVATIONS = ("silu", "tanh")
BROKE = 0.1
FIXED, TRUST = "full steps", "trust region"


class Draw(NamedTuple):
    """A network at its start and the data for it."""

    change: Any
    start: Any
    inputs: np.ndarray
    targets: np.ndarray
    frequencies: np.ndarray


def draw(seed: int, width: int, scale: float, activation: str, outputs: int = 1) -> Draw:
    """Rows, targets of root mean square `scale`, a network."""
    rng = np.random.default_rng(seed)
    inputs, frequencies = rng.normal(size=(ROWS, INPUTS)), rng.normal(size=(INPUTS, outputs))
    targets = np.sin(inputs @ frequencies)
    model = cx.MLP(INPUTS, (width,), outputs, activation=activation)
    change, start = ntk.centered(model, model.init(jax.random.key(seed)))
    return Draw(change, start, inputs, scale * targets / np.sqrt(np.mean(targets**2)), frequencies)


def regularizers(name: str) -> Any:
    """L2, or pseudo-Huber with a smoothing far above how far single weights move."""
    return cx.L2() if name == "L2" else 3.0 * cx.PseudoHuber(3.0)


def certificate(problem: Draw, strength: float, penalty: str = "L2", **options) -> Any:
    """The certificate of undamped full steps."""
    data = (problem.inputs, problem.targets)
    return ntk.certify(
        problem.change, cx.SquaredError(), regularizers(penalty), problem.start, data, strength=strength, **options
    )


def trained(problem: Draw, strength: float, step, penalty: str = "L2", max_steps: int = 300) -> Any:
    """The network trained until nothing moves."""
    return cx.train(
        problem.change, cx.SquaredError(), regularizers(penalty), problem.start, (problem.inputs, problem.targets),
        strength=strength, step=step, max_steps=max_steps, tolerance=1e-13,
    )  # fmt: skip


def kept() -> dict[str, Any]:
    """Part 1: runs of the settings that are certified."""
    rng, rows, draws = np.random.default_rng(0), [], 0
    while len(rows) < CERTIFIED and draws < MOST_DRAWS:
        width, scale, strength = (rng.choice(choices) for choices in (WIDTHS, SCALES, STRENGTHS))
        activation, penalty = str(rng.choice(ACTIVATIONS)), str(rng.choice(("L2", "pseudo-Huber")))
        problem = draw(1000 + draws, int(width), float(scale), activation)
        draws += 1
        found = certificate(problem, float(strength), penalty)
        if not found.exists:
            continue
        row = {"width": int(width), "scale": float(scale), "strength": float(strength), "activation": activation,
               "penalty": penalty, "radius": found.radius, "first step": found.first_step}  # fmt: skip
        for name, step in ((FIXED, cx.FixedStep(1.0)), (TRUST, cx.TrustRegion())):
            result = trained(problem, float(strength), step, penalty)
            checked = found.check(result)
            row[name] = {"distance": checked.distance, "within": checked.within, "losses": checked.losses}
        last = float(result.history["loss"][-1])
        # The bound of the loss tends to ½V², V that of the residual at the minimiser.
        row |= {"loss": last, "bound of it": found.loss_after(100), "steps to twice it": found.steps_to(2 * last)}
        row["contraction"] = found.contraction
        rows.append(row)
        print(len(rows), draws, row, flush=True)
    certified = {f"width {width}": sum(row["width"] == width for row in rows) for width in WIDTHS}
    looser = float(np.median([row["bound of it"] / row["loss"] for row in rows]))
    steps = sum(row["steps to twice it"] is not None for row in rows)
    counts = {
        "draws": draws,
        "certified": certified,
        "loss bound, median ratio": looser,
        "steps to twice the loss": steps,
    }
    return {"runs": rows} | counts | {name: _judged(rows, name) for name in (FIXED, TRUST)}


def _judged(rows: list[dict], name: str) -> dict[str, Any]:
    ratios = np.array([row["radius"] / row[name]["distance"] for row in rows])
    return {
        "exceeded": sum(not row[name]["within"] for row in rows),
        "losses exceeded": sum(row[name]["losses"] is False for row in rows),
        "ratio": dict(zip(("least", "median", "largest"), np.quantile(ratios, [0, 0.5, 1]).tolist(), strict=True)),
    }


def reach() -> list[dict[str, Any]]:
    """Part 2: the largest scale of the targets that is certified, to a factor of 1.1, tanh."""
    found = []
    for width, strength in itertools.product(REACH_WIDTHS, STRENGTHS):
        row: dict[str, Any] = {"width": width, "strength": strength}
        for name, lipschitz in (("measured", ntk.MeasuredLipschitz()), ("proved", ntk.BoundedLipschitz())):
            low, high = 1e-4, 100.0
            while high > 1.1 * low:
                middle = float(np.sqrt(low * high))
                exists = certificate(draw(0, width, middle, "tanh"), strength, lipschitz=lipschitz).exists
                low, high = (middle, high) if exists else (low, middle)
            row[name] = low
        found.append(row)
        print(row, flush=True)
    return found


_SLOPES = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "silu": (lambda z: z / (1 + np.exp(-z)), lambda z: (1 + z / (1 + np.exp(z))) / (1 + np.exp(-z))),
}


def features(problem: Draw, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of the start in closed form, up to the output: that of the outer weights and, an output pair, the inner.

    J of output c of MLP(3, (m,)) with a = φ(Vx/√3 + b): (a/√m, 1) by the outer weights and bias of c, and
    v_cj φ'(z_j)/√m (x/√3, 1) by the weights and bias of unit j.
    """
    (weight, bias), (outer, _) = problem.change.start
    weight, bias, outer = (np.asarray(part) for part in (weight, bias, outer))
    phi, slope = _SLOPES[problem.change.model.activation]
    seen = np.concatenate([inputs / np.sqrt(INPUTS), np.ones((len(inputs), 1))], axis=1)
    z = seen @ np.concatenate([weight, bias[:, None]], axis=1).T
    last = np.concatenate([phi(z) / np.sqrt(len(weight)), np.ones((len(z), 1))], axis=1)
    first = slope(z)[:, None, :] * outer[None] / np.sqrt(len(weight))
    inner = np.einsum("ncj,nd->ncjd", first, seen).reshape(len(z), len(outer), -1)
    return last, inner


def kernel(problem: Draw, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """J(rows) J(columns)ᵀ, [n c, m c], example first."""
    (last, inner), (last2, inner2) = features(problem, rows), features(problem, columns)
    outputs = inner.shape[1]
    block = np.einsum("nm,cd->ncmd", last @ last2.T, np.eye(outputs))
    block = block + np.einsum("ncp,mdp->ncmd", inner, inner2, optimize=True)
    return block.reshape(len(rows) * outputs, -1)


def kernel_regression(problem: Draw, fresh: np.ndarray) -> np.ndarray:
    """What the linear model trained to the end says of fresh rows: k(x, X)(K + nτ)⁻¹ y."""
    gram = kernel(problem, problem.inputs, problem.inputs)
    dual = np.linalg.solve(gram + ROWS * FLAG_STRENGTH * np.eye(len(gram)), problem.targets.ravel())
    return (kernel(problem, fresh, problem.inputs) @ dual).reshape(len(fresh), -1)


def flagged(seed: int, width: int, scale: float, activation: str, outputs: int) -> dict[str, Any]:
    """One run of part 3."""
    problem = draw(seed, width, scale, activation, outputs)
    result = trained(problem, FLAG_STRENGTH, cx.TrustRegion())
    test, probe = np.random.default_rng(10_000 + seed).normal(size=(2, FRESH, INPUTS))
    linear, network = kernel_regression(problem, test), np.asarray(problem.change(result.params, jnp.asarray(test)))
    difference = float(np.linalg.norm(network - linear) / np.linalg.norm(linear))
    seen = ntk.linearization(
        problem.change, problem.start, result.params, probe, trained_on=problem.inputs, strength=FLAG_STRENGTH
    )
    return {
        "width": width, "scale": scale, "activation": activation, "outputs": outputs, "difference": difference,
        "error": seen.error, "left": seen.left, "kernel drift": seen.kernel_drift, "label": difference > BROKE,
        "flag": seen.broke, "flag by error": seen.error > BROKE,
    }  # fmt: skip


def flags(settings=None, first_seed: int = 0) -> dict[str, Any]:
    """Part 3."""
    chosen = itertools.product(FLAG_WIDTHS, FLAG_SCALES, ACTIVATIONS, (1, 2)) if settings is None else settings
    rows = []
    for number, setting in enumerate(chosen):
        rows.append(flagged(first_seed + number, *setting))
        print(rows[-1], flush=True)
    return {"runs": rows} | {name: _confusion(rows, name) for name in ("flag", "flag by error")}


def _confusion(rows: list[dict], name: str) -> dict[str, int]:
    count = lambda label, flag: sum(row["label"] == label and row[name] == flag for row in rows)
    return {
        "right": sum(row["label"] == row[name] for row in rows),
        "broke and flagged": count(True, True),
        "broke, not flagged": count(True, False),
        "held, flagged": count(False, True),
        "held and not flagged": count(False, False),
    }


def _kept_text(kept: dict) -> str:
    runs, full = kept["runs"], kept["full steps"]
    ratio = full["ratio"]
    shown = sum(row["contraction"] < 1 for row in runs)
    between = lambda name, values: f"{name} from {min(values)} to {max(values)}"
    return " ".join([
        f"**Kept.** Settings drawn at random (width {', '.join(map(str, WIDTHS))}, {between('s', SCALES)},",
        f"{between('τ', STRENGTHS)}, silu or tanh, L2 or pseudo-Huber, measured L): {kept['draws']} drawn, the first",
        f"{len(runs)} that are certified trained. Runs that left the radius: {full['exceeded']} of full steps,",
        f"{kept['trust region']['exceeded']} of the trust region. It was {ratio['least']:.2f} to",
        f"{ratio['largest']:.2f}",
        f"times the distance of the trained network from its start, {ratio['median']:.2f} at the median. A contraction",
        f"was shown in {shown} of them; losses above their bound: {full['losses exceeded']}. That bound tends to",
        f"{kept['loss bound, median ratio']:.2f} times the loss reached, at the median;",
        f"{kept['steps to twice the loss']} certificates name a number of steps to twice it.",
    ])  # fmt: skip


def _reach_table(rows: list[dict]) -> list[str]:
    columns = sorted({row["strength"] for row in rows})
    lines = [f"| width | {' | '.join(f'τ = {each}' for each in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for width in sorted({row["width"] for row in rows}):
        mine = {row["strength"]: row for row in rows if row["width"] == width}
        cells = (f"{mine[each]['measured']:.2g} ({mine[each]['proved']:.2g})" for each in columns)
        lines.append(f"| {width} | {' | '.join(cells)} |")
    return lines


def markdown(record: dict) -> str:
    """The record as text and tables."""
    runs = record["flags"]["runs"]
    broke = sum(row["label"] for row in runs)
    kinds = ("broke and flagged", "broke, not flagged", "held, flagged", "held and not flagged", "right")
    lines = [
        _kept_text(record["kept"]), "",
        "**Reach.** The largest s that is certified with the measured L (in brackets, proved), tanh, one draw:",
        "", *_reach_table(record["reach"]), "",
        f"**Flag.** {len(runs)} runs of the trust region at τ = {FLAG_STRENGTH}. {broke} broke: the network differs by "
        f"more than a tenth from exact kernel regression with the kernel of its start, on {FRESH} fresh rows. The flag "
        "saw others.",
        "", f"| judged by | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|",
    ]  # fmt: skip
    for name, key in (("`left`", "flag"), ("`error` alone", "flag by error")):
        lines.append(f"| {name} | {' | '.join(str(record['flags'][key][kind]) for kind in kinds)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures all three and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    parts = {}
    for name, part in (("kept", kept), ("flags", flags), ("reach", reach)):
        began = time.perf_counter()
        parts[name] = part()
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    print(markdown(write(arguments.output, parts)))


if __name__ == "__main__":
    main()
