"""The choice of solver: where each is the cheapest, what fits, and what is said when nothing does."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
from concordax.optimizer import make_algorithm
from concordax.solvers import SystemShape, costs


def _layered(rows, outputs, *sizes, scalar=False):
    layers = tuple((d_out, d_in + 1) for d_in, d_out in pairwise(sizes))
    return SystemShape(rows, outputs, sum(a * b for a, b in layers), layers, scalar)


@pytest.mark.parametrize(
    ("shape", "solver"),
    [
        (_layered(1000, 1, 20, 500, 1), cx.StructuredCG()),
        (_layered(1000, 1, 20, 500, 1, scalar=True), cx.Dual()),
        (_layered(8192, 1, 8, 200, 1), cx.Primal()),
        # Twice as fast as measured: a refused trial costs the side with the larger matrix more.
        (_layered(2000, 1, 8, 100, 1), cx.Primal()),
        (SystemShape(rows=100, outputs=1, parameters=10_000), cx.Dual()),
        (SystemShape(rows=10_000, outputs=1, parameters=100), cx.Primal()),
    ],
)
def test_the_cheapest_is_chosen(shape, solver):
    plan = cx.Auto(memory=1e12).plan(shape)
    assert plan.solver == solver
    assert next(iter(plan.costs)) == type(solver).__name__
    operations = [cost.operations for cost in plan.costs.values()]
    assert operations == sorted(operations)
    assert type(solver).__name__ in plan.reason


def test_direct_and_alone():
    shape = _layered(1000, 1, 20, 500, 1)
    assert cx.Auto().direct.plan(shape).solver == cx.Dual()
    assert cx.Auto().alone.plan(shape).solver == cx.StructuredCG(hand_over=False)


def test_what_does_not_fit_is_not_chosen():
    # 2000 numbers, 11,001 parameters: 73 MB with K̃, 53 MB and 28 MB with a sketch of 100 columns.
    shape = _layered(2000, 1, 20, 500, 1)
    assert isinstance(cx.Auto(memory=1e12).plan(shape).solver, cx.StructuredCG)
    small = cx.Auto(memory=5e7).plan(shape)
    assert isinstance(small.solver, cx.NystromCG)
    assert 10 < small.solver.rank < 100
    assert small.costs["NystromCG"].bytes <= 5e7
    with pytest.raises(MemoryError, match="GB at least"):
        cx.Auto(memory=5e7, direct_only=True).plan(shape)


def test_products_alone_where_matrices_cost_too_much():
    digits = _layered(1437, 10, 64, 256, 10, scalar=True)
    assert cx.Auto(memory=1e12).plan(digits).solver == cx.NystromCG()
    # A few thousand parameters are solved for directly, whatever the rows.
    assert cx.Auto(memory=1e12).plan(_layered(7373, 1, 8, 200, 1, scalar=True)).solver == cx.Primal()


def test_where_nothing_fits_the_error_says_what_would():
    x = np.zeros((3000, 2))
    model = cx.MLP(2, (900,))
    params = (cx.DenseLayer(jnp.zeros((900, 2)), jnp.zeros(900)), cx.DenseLayer(jnp.zeros((1, 900)), jnp.zeros(1)))
    with pytest.raises(
        MemoryError, match=r"3000 rows of 1 outputs with 3601 parameters takes .* GB at least.*batch_size"
    ):
        cx.train(
            model, cx.SquaredError(), cx.PseudoHuber(1.0), params, (x, x[:, :1]),
            strength=1e-3, solver=cx.Auto(memory=1e6), max_steps=1,
        )  # fmt: skip


def test_where_a_factor_in_float32_pays():
    assert costs.single_precision_pays(_layered(1000, 1, 20, 500, 1))
    # On a mini-batch the passes over the parameters are the price, not the small matrix.
    assert not costs.single_precision_pays(_layered(16, 10, 784, 512, 10))
    assert not costs.single_precision_pays(_layered(1000, 1, 20, 500, 1)._replace(itemsize=4))


def test_a_run_says_which_solver_and_why(caplog):
    x = np.linspace(-1, 1, 30)[:, None]
    model = cx.TwoLayer(1, 20)
    parts = (model, cx.SquaredError(), cx.PseudoHuber(4.0), model.init(jax.random.key(0)), (x, x**2))
    with caplog.at_level("INFO", logger="concordax"):
        result = cx.train(*parts, strength=1e-3, max_steps=1)
    assert result.solver.startswith("Dual (")
    assert "StructuredCG (" in result.solver
    assert result.solver in caplog.text
    # A mini-batch of 4 rows is judged by its own size.
    small = cx.train(*parts, strength=1e-3, max_steps=1, batch_size=4, key=jax.random.key(0))
    assert small.solver != result.solver
    assert cx.train(*parts, strength=1e-3, max_steps=1, solver=cx.Dual()).solver == "Dual, as asked"


def test_memory_is_checked():
    with pytest.raises(ValueError, match="memory=0"):
        cx.Auto(memory=0)


@pytest.mark.parametrize("regularizer", [cx.L2(), cx.PseudoHuber(1.0)])
@pytest.mark.parametrize(
    "model",
    [cx.MLP(3, (4,), 2), cx.MLP(3, ()), cx.TwoLayer(3, 5, 2, bias=True), lambda params, x: x @ params["w"]],
)
def test_sizes_foretold_are_those_of_the_system(model, regularizer):
    params = {"w": jnp.zeros((3, 2))} if not hasattr(model, "init") else model.init(jax.random.key(0))
    x = np.ones((6, 3))
    outputs = model(params, jnp.asarray(x)).shape[1]
    parts = {"strength": 1.0, "solver": cx.Dual(), "step": cx.TrustRegion(), "damping": 0.0}
    algorithm = make_algorithm(model, cx.SquaredError(), regularizer, **parts)
    batch = algorithm.batch(params, x, np.ones((6, outputs)))
    assert algorithm.shape(params, batch) == costs.shape_of(algorithm.prepare(params, batch)[2].system)
