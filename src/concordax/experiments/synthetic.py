"""The synthetic problem of arXiv 2404.14875: a network learns what a small network of the same kind computes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class TeacherStudent(NamedTuple):
    """Training rows and test rows, with the teacher's outputs as targets, without noise."""

    inputs: Float[Array, "n d"]
    targets: Float[Array, "n 1"]
    test_inputs: Float[Array, "t d"]
    test_targets: Float[Array, "t 1"]


def sphere(key: PRNGKeyArray, rows: int, dimension: int) -> Float[Array, "{rows} {dimension}"]:
    """Rows uniform on the unit sphere.

    Args:
        key: the random key.
        rows: how many.
        dimension: of the space around the sphere.

    Returns:
        [rows, dimension], every row of length 1.
    """
    draws = jax.random.normal(key, (rows, dimension))
    return draws / jnp.linalg.norm(draws, axis=1, keepdims=True)


def teacher_student(
    key: PRNGKeyArray, *, train_rows: int, test_rows: int, inputs: int, teacher_width: int
) -> TeacherStudent:
    """y = Σ_j s_j silu(w_j·x) with ‖w_j‖ = 1, s_j = ±1, and x uniform on the unit sphere.

    Args:
        key: the random key for teacher and rows.
        train_rows: training rows.
        test_rows: test rows.
        inputs: input features.
        teacher_width: the teacher's hidden units.

    Returns:
        The rows and their targets.
    """
    train_key, test_key, weight_key, sign_key = jax.random.split(key, 4)
    weights = sphere(weight_key, teacher_width, inputs)
    signs = jax.random.rademacher(sign_key, (teacher_width, 1), weights.dtype)
    train, test = sphere(train_key, train_rows, inputs), sphere(test_key, test_rows, inputs)
    targets, test_targets = (jax.nn.silu(rows @ weights.T) @ signs for rows in (train, test))
    return TeacherStudent(train, targets, test, test_targets)
