"""The factorization against NumPy, and every rung of its ladder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from concordax.linalg import (
    factorize,
    inverse_lower,
    long_sum,
    product_transposed,
    transposed_product,
    upper_product,
    upper_triangle,
)

SIZE = 8
_factorize = jax.jit(factorize)


def _symmetric(eigenvalues, seed=0):
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    matrix = (vectors * np.asarray(eigenvalues)) @ vectors.T
    return 0.5 * (matrix + matrix.T)


SPREAD = np.logspace(-3, 1, SIZE)
EPS = np.finfo(float).eps
# One eigenvalue 100 eps·trace below zero: the second rung of the ladder makes it positive.
NEGATIVE = np.concatenate([[-100 * EPS * SPREAD[1:].sum()], SPREAD[1:]])


def test_every_method():
    matrix, shift = _symmetric(SPREAD), 1e-5
    factor = _factorize(jnp.asarray(matrix), jnp.asarray(shift))
    assert bool(factor.ok)
    assert float(factor.shift) == shift
    dense = matrix + shift * np.eye(SIZE)
    rhs = np.random.default_rng(1).normal(size=(SIZE, 3))
    expected = np.linalg.solve(dense, rhs)
    np.testing.assert_allclose(factor.solve(jnp.asarray(rhs)), expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(
        factor.solve(jnp.asarray(rhs[:, 0])), expected[:, 0], rtol=1e-7, atol=1e-9 * np.abs(expected).max()
    )
    half = np.asarray(factor.half_solve(jnp.asarray(rhs)))
    np.testing.assert_allclose(half.T @ half, rhs.T @ expected, rtol=1e-8)
    assert float(factor.inverse_trace()) == pytest.approx(np.trace(np.linalg.inv(dense)), rel=1e-8)
    assert float(factor.log_determinant()) == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-9)


def test_singular_matrix_with_a_shift():
    matrix = _symmetric([0, 0, 0, 0, 1, 2, 3, 4])
    factor = _factorize(jnp.asarray(matrix), jnp.asarray(1e-6))
    assert float(factor.shift) == 1e-6
    rhs = np.random.default_rng(1).normal(size=SIZE)
    np.testing.assert_allclose(
        factor.solve(jnp.asarray(rhs)), np.linalg.solve(matrix + 1e-6 * np.eye(SIZE), rhs), rtol=1e-6
    )


@pytest.mark.parametrize(("negative", "rung"), [(2.0, 4.0), (100.0, 400.0), (1e4, 4e4)])
def test_indefinite_by_rounding_takes_a_larger_shift(negative, rung):
    """Eigenvalues of a few (a hundred, ten thousand) eps·trace below zero: the shift that goes through is reported."""
    matrix = np.diag([1.0, 2.0, 3.0, -negative * 6 * EPS])
    factor = _factorize(jnp.asarray(matrix), jnp.asarray(1e-16))
    assert bool(factor.ok)
    assert float(factor.shift) == pytest.approx(1e-16 + rung * EPS * np.trace(matrix), rel=1e-12)
    np.testing.assert_allclose(factor.solve(jnp.ones(4))[:3], [1, 1 / 2, 1 / 3], rtol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_matrix_is_not_ok(bad):
    matrix = _symmetric(SPREAD)
    matrix[2, 3] = matrix[3, 2] = bad
    factor = _factorize(jnp.asarray(matrix), jnp.asarray(1e-3))
    assert not bool(factor.ok)


def test_negative_beyond_rounding_is_not_ok():
    factor = _factorize(jnp.asarray(np.diag([1.0, 2.0, -1e-3])), jnp.asarray(1e-6))
    assert not bool(factor.ok)


def test_float32():
    factor = _factorize(jnp.asarray(_symmetric(SPREAD), jnp.float32), jnp.asarray(1e-2, jnp.float32))
    assert factor.lower.dtype == factor.shift.dtype == factor.inverse_trace().dtype == jnp.float32
    assert float(factor.inverse_trace()) == pytest.approx((1 / (SPREAD + 1e-2)).sum(), rel=1e-4)


def test_under_vmap_each_member_takes_its_own_rung():
    broken = _symmetric(SPREAD)
    broken[0, 0] = np.nan
    matrices = jnp.asarray(np.stack([_symmetric(SPREAD), _symmetric(NEGATIVE), broken]))
    shift = jnp.asarray(1e-16)
    factors = jax.jit(jax.vmap(factorize, in_axes=(0, None)))(matrices, shift)
    unit = EPS * np.trace(matrices[1])
    np.testing.assert_allclose(factors.shift[:2], [1e-16, 1e-16 + 400 * unit], rtol=1e-12)
    np.testing.assert_array_equal(factors.ok, [True, True, False])
    rhs = jnp.ones(SIZE)
    solved = jax.jit(jax.vmap(lambda factor: factor.solve(rhs)))(factors)
    for index in range(2):
        alone = _factorize(matrices[index], shift).solve(rhs)
        np.testing.assert_allclose(solved[index], alone, rtol=1e-6)


@pytest.mark.parametrize("size", [5, 256, 257, 700])
def test_upper_product(size):
    """One block, exactly one, two that overlap, three."""
    rows = np.random.default_rng(0).normal(size=(size, 3))
    upper = np.asarray(jax.jit(upper_product)(jnp.asarray(rows)))
    np.testing.assert_allclose(np.triu(upper), np.triu(rows @ rows.T), atol=1e-13)


@pytest.mark.parametrize(("size", "unit"), [(90, 5), (3, 200), (1, 300)])
def test_upper_triangle_of_several_rows_an_example(size, unit):
    """Rows of an example stay together, even where one example alone fills a block."""
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(size, unit, 4)))

    def block(i, j, count):
        one, two = (jax.lax.dynamic_slice_in_dim(rows, start, count).reshape(-1, 4) for start in (i, j))
        return one @ two.T

    flat = np.asarray(rows).reshape(-1, 4)
    upper = upper_triangle(size, block, rows.dtype, unit=unit)
    np.testing.assert_allclose(np.triu(upper), np.triu(flat @ flat.T), atol=1e-13)


def test_below_the_diagonal_nothing_is_read():
    matrix = _symmetric(SPREAD)
    upper = np.triu(matrix) + np.tril(np.full_like(matrix, np.nan), -1)
    rhs = jnp.ones(SIZE)
    np.testing.assert_array_equal(
        _factorize(jnp.asarray(upper), jnp.asarray(1e-3)).solve(rhs),
        _factorize(jnp.asarray(matrix), jnp.asarray(1e-3)).solve(rhs),
    )


@pytest.mark.parametrize("size", [129, 300])
def test_inverse_trace_of_a_large_matrix(size):
    """Above the size where L⁻¹ is taken by halves, odd halves included."""
    eigenvalues = np.logspace(-2, 1, size)
    factor = _factorize(jnp.asarray(_symmetric(eigenvalues)), jnp.asarray(0.1))
    assert float(jax.jit(lambda f: f.inverse_trace())(factor)) == pytest.approx(
        (1 / (eigenvalues + 0.1)).sum(), rel=1e-10
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [(3, 5), (5, 3), (4, 4), (300, 2), (2, 300)])
def test_transposed_product(columns, dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(40, width)).astype(dtype) for width in columns)
    found = jax.jit(transposed_product)(jnp.asarray(x), jnp.asarray(y))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, x.astype(float).T @ y, atol=1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("sizes", [(1, 5, 3), (16, 1000, 70), (16, 7000, 10), (64, 1100, 65), (65, 1100, 80)])
def test_product_transposed(sizes):
    """Of few rows against many numbers, which is the turned one, and of others; with its derivatives."""
    n, d, m = sizes
    rng = np.random.default_rng(n)
    x, y, u = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(n, m))
    found, pullback = jax.vjp(jax.jit(product_transposed), jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found, x @ y.T, atol=1e-11)
    for gradient, expected in zip(pullback(jnp.asarray(u)), (u @ y, u.T @ x), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-12)
    tangent = jax.jvp(product_transposed, (jnp.asarray(x), jnp.asarray(y)), (jnp.asarray(x), jnp.asarray(2 * y)))[1]
    np.testing.assert_allclose(tangent, 3 * x @ y.T, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 255, 256, 1023, 1024, 1027, 2049, 10_007, 100_000])
def test_long_sum(size, dtype):
    """Also of sizes that fill no table, and as the sum of a function that XLA fuses with it."""
    values = np.random.default_rng(size).normal(size=size).astype(dtype)
    values[-1] = 100.0
    found = jax.jit(lambda x: long_sum(lambda x: jnp.sqrt(1 + x**2), x))(jnp.asarray(values))
    assert found.dtype == dtype
    expected = np.sum(np.sqrt(1 + values.astype(float) ** 2))
    assert float(found) == pytest.approx(expected, rel=10 * float(np.finfo(dtype).eps))
    assert not np.isfinite(long_sum(jnp.abs, jnp.asarray(values).at[-1].set(jnp.inf)))
    assert np.isnan(long_sum(jnp.abs, jnp.asarray(values).at[0].set(jnp.nan)))


# One block, two, halves that are not equal, and halves of halves.
@pytest.mark.parametrize("size", [1, 128, 129, 256, 300, 513, 700])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inverse_of_a_triangle(size, dtype):
    lower = np.tril(np.random.default_rng(size).normal(size=(size, size))) / size + np.eye(size)
    inverse = jax.jit(inverse_lower)(jnp.asarray(lower, dtype))
    assert (inverse.dtype, inverse.shape) == (jnp.dtype(dtype), (size, size))
    np.testing.assert_allclose(inverse, np.linalg.inv(lower), atol=50 * float(jnp.finfo(dtype).eps))
    np.testing.assert_array_equal(np.triu(inverse, 1), 0)
