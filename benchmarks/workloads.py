"""The problems of the benchmarks: model, loss, regularizer, strength, data and starting point, built by functions.

A  teacher and student, n = 1000, 20 -> 500 -> 1, silu: the synthetic problem of arXiv 2404.14875
B  the same with n = 500, 5 -> 500 -> 1
C  one mini-batch of 16 rows, 784 -> 512 -> 10, relu, squared error: the published MNIST setting
C-softmax  the same with cross-entropy
D  handwritten digits, full batch, 64 -> 256 -> 10, softmax: 1437 rows, 14,370 numbers of output
E  teacher and student, n = 1000, 784 -> 512 -> 1, silu
F  kin8nm, full batch, 8 -> 200 -> 1

C and F read `mnist10k.npz` and `kin8nm.npz` from a folder; without one, made-up data of the same shape
take their place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

import concordax as cx
from concordax.experiments.synthetic import teacher_student
from concordax.losses import AbstractLoss
from concordax.regularizers import AbstractRegularizer


@dataclass(frozen=True)
class Workload:
    """One problem: minimise mean ℓ(f(θ; x), y) + strength · g(θ) from `start`.

    Args:
        name: its letter.
        title: one line on what it is.
        model: the network.
        loss: ℓ.
        regularizer: g.
        strength: τ.
        inputs: [n, d].
        targets: [n, c], labels as one-hot rows.
        start: the parameters to start from.
        levels: training losses (the data term alone) to be reached.
    """

    name: str
    title: str
    model: cx.TwoLayer | cx.MLP
    loss: AbstractLoss
    regularizer: AbstractRegularizer
    strength: float
    inputs: Float[Array, "n d"]
    targets: Float[Array, "n c"]
    start: Any
    levels: tuple[float, ...] = (1e-4, 1e-6, 1e-8)

    def data_loss(self, params: Any) -> Float[Array, ""]:
        """The training loss: the data term of the objective."""
        return jnp.mean(self.loss.value(self.model(params, self.inputs), self.targets))

    def objective(self, params: Any) -> Float[Array, ""]:
        """What is minimised."""
        flat = ravel_pytree(params)[0]
        return self.data_loss(params) + self.strength * self.regularizer.value(flat)

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.start))

    @property
    def is_classification(self) -> bool:
        """Whether the loss is the softmax cross-entropy; otherwise it is half the squared error."""
        return isinstance(self.loss, cx.SoftmaxCrossEntropy)


def _typed(dtype: str, *trees: Any) -> list[Any]:
    if jnp.dtype(dtype) != jax.dtypes.canonicalize_dtype(dtype):
        raise ValueError(f"dtype={dtype!r}: turn on `jax_enable_x64` before a workload is built.")
    return [jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree) for tree in trees]


def synthetic(name: str, *, rows: int, inputs: int, width: int, dtype: str = "float64") -> Workload:
    """Teacher and student as published, with a strength so small that a loss of 1e-8 can be reached."""
    data_key, start_key = jax.random.split(jax.random.key(0))
    data = teacher_student(data_key, train_rows=rows, test_rows=1, inputs=inputs, teacher_width=5)
    model = cx.TwoLayer(inputs, width, 1, activation="silu")
    x, y, start = _typed(dtype, data.inputs, data.targets, model.init(start_key))
    title = f"teacher and student, n = {rows}, {inputs} -> {width} -> 1, silu"
    return Workload(name, title, model, cx.SquaredError(), cx.PseudoHuber(math.sqrt(width)), 1e-9, x, y, start)


def mini_batch(
    name: str, *, softmax: bool, rows: int = 16, data_dir: Path | None = None, dtype: str = "float64"
) -> Workload:
    """The first rows of the MNIST digits, or uniform pixels with random labels."""
    if data_dir is not None:
        with np.load(data_dir / "mnist10k.npz") as data:
            x, labels = data["X_train"][:rows].reshape(rows, -1), data["y_train"][:rows].astype(int).ravel()
        x = x / (255.0 if x.max() > 1 else 1.0)
    else:
        rng = np.random.default_rng(0)
        x, labels = rng.uniform(size=(rows, 784)), rng.integers(0, 10, rows)
    model = cx.TwoLayer(784, 512, 10, activation="relu")
    x, y, start = _typed(dtype, x, np.eye(10)[labels], model.init(jax.random.key(0)))
    loss = cx.SoftmaxCrossEntropy() if softmax else cx.SquaredError()
    title = f"mini-batch of {rows} rows, 784 -> 512 -> 10, relu, {loss.name}"
    return Workload(name, title, model, loss, cx.PseudoHuber(math.sqrt(512)), 1e-9, x, y, start)


def digits(name: str, *, width: int = 256, dtype: str = "float64") -> Workload:
    """The first 1437 of scikit-learn's bundled digits, four fifths of them, pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    model = cx.MLP(64, (width,), 10, activation="tanh")
    x, y, start = _typed(dtype, pixels[:1437] / 16, np.eye(10)[labels[:1437]], model.init(jax.random.key(0)))
    title = f"digits, n = 1437, 64 -> {width} -> 10, tanh, softmax cross-entropy"
    return Workload(name, title, model, cx.SoftmaxCrossEntropy(), cx.L2(), 1e-6, x, y, start, (1e-1, 1e-2, 1e-3))


def kin8nm(name: str, *, width: int = 200, data_dir: Path | None = None, dtype: str = "float64") -> Workload:
    """The training rows of the first standard split of kin8nm, or a smooth function of as many; standardised."""
    if data_dir is not None:
        with np.load(data_dir / "kin8nm.npz") as data:
            rows = np.setdiff1d(np.arange(len(data["y"])), data["test_indices"][0].astype(int))
            x, y = data["X"][rows].astype(float), data["y"][rows].astype(float).reshape(-1, 1)
    else:
        rng = np.random.default_rng(0)
        x = rng.uniform(-1.5, 1.5, size=(7373, 8))
        # An arm of eight joints: the distance of its end from a point, what kin8nm is made of, and some noise.
        angles = np.cumsum(x, axis=1)
        y = np.hypot(np.cos(angles).mean(axis=1) - 0.1, np.sin(angles).mean(axis=1) - 0.1)[:, None]
        y = y + 0.01 * rng.normal(size=y.shape)
    model = cx.MLP(8, (width,), 1, activation="tanh")
    scaled = [(each - each.mean(axis=0)) / each.std(axis=0) for each in (x, y)]
    x, y, start = _typed(dtype, *scaled, model.init(jax.random.key(0)))
    title = f"kin8nm, n = {len(x)}, 8 -> {width} -> 1, tanh"
    return Workload(name, title, model, cx.SquaredError(), cx.L2(), 1e-6, x, y, start, (1e-1, 3e-2, 2e-2))


BUILDERS: dict[str, Callable[[Path | None, str], Workload]] = {
    "A": lambda _, dtype: synthetic("A", rows=1000, inputs=20, width=500, dtype=dtype),
    "B": lambda _, dtype: synthetic("B", rows=500, inputs=5, width=500, dtype=dtype),
    "C": lambda folder, dtype: mini_batch("C", softmax=False, data_dir=folder, dtype=dtype),
    "C-softmax": lambda folder, dtype: mini_batch("C-softmax", softmax=True, data_dir=folder, dtype=dtype),
    "D": lambda _, dtype: digits("D", dtype=dtype),
    "E": lambda _, dtype: synthetic("E", rows=1000, inputs=784, width=512, dtype=dtype),
    "F": lambda folder, dtype: kin8nm("F", data_dir=folder, dtype=dtype),
}


def build(name: str, data_dir: Path | None = None, dtype: str = "float64") -> Workload:
    """The workload of that name.

    Args:
        name: one of `BUILDERS`.
        data_dir: the folder of `mnist10k.npz` and `kin8nm.npz`, or None for made-up data.
        dtype: "float64", which needs `jax_enable_x64`, or "float32".

    Returns:
        The workload.
    """
    return BUILDERS[name](data_dir, dtype)
