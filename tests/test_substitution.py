"""The preconditioner's solves against NumPy, over sizes around those of its blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from concordax.linalg import SPDFactor, factorize
from concordax.substitution import substitution


def _matrix(size: int) -> np.ndarray:
    rows = np.random.default_rng(size).normal(size=(size, size + 5))
    return rows @ rows.T / size


# One block, whole blocks, a last one that is shorter, and more than four of the least size.
@pytest.mark.parametrize("size", [1, 127, 128, 129, 256, 300, 1023, 1100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_solves_as_numpy_does(size, dtype):
    matrix, rhs = _matrix(size), np.random.default_rng(1).normal(size=size)
    factor = factorize(jnp.asarray(matrix, dtype), jnp.asarray(0.1, dtype))
    solution = jax.jit(lambda factor, rhs: substitution(factor).solve(rhs))(factor, jnp.asarray(rhs, dtype))
    assert solution.dtype == dtype
    expected = np.linalg.solve(matrix + 0.1 * np.eye(size), rhs)
    np.testing.assert_allclose(solution, expected, atol=300 * np.finfo(dtype).eps * np.abs(expected).max())


@pytest.mark.parametrize(("size", "blocks"), [(128, 1), (129, 2), (512, 4), (513, 3), (3000, 4)])
def test_blocks_are_few(size, blocks):
    factor = SPDFactor(jnp.eye(size), jnp.asarray(0.0), jnp.asarray(True))
    assert len(substitution(factor).rows) == blocks


def test_of_several_matrices_at_once():
    matrices = np.stack([_matrix(140), 2 * _matrix(140)])
    rhs = np.random.default_rng(1).normal(size=(2, 140))
    solve = lambda matrix, rhs: substitution(factorize(matrix, jnp.asarray(0.1))).solve(rhs)
    solutions = jax.vmap(solve)(jnp.asarray(matrices), jnp.asarray(rhs))
    expected = [np.linalg.solve(m + 0.1 * np.eye(140), b) for m, b in zip(matrices, rhs, strict=True)]
    np.testing.assert_allclose(solutions, expected, rtol=1e-9)


def test_a_factor_that_failed_gives_no_finite_solution():
    failed = factorize(jnp.asarray(-np.eye(130)), jnp.asarray(0.1))
    assert not bool(failed.ok)
    assert not bool(jnp.any(jnp.isfinite(substitution(failed).solve(jnp.ones(130)))))
