"""Losses that a user writes or puts together: derived against written down, and what is refused before a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
import helpers

ROWS = 6
MODEL = cx.MLP(inputs=2, widths=(4,), outputs=2)


def _outputs(seed=0, columns=2):
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=(ROWS, columns)), rng


def squared(o, y):
    return 0.5 * jnp.sum((o - y) ** 2)


def cross_entropy(o, y):
    return jax.nn.logsumexp(o) - y @ o


def cosh(o, y):
    return jnp.sum(jnp.cosh(o - y))


def huber(o, y):
    z = jnp.abs(o - y)
    return jnp.sum(jnp.where(z < 0.1, 0.5 * z**2, 0.1 * z - 0.005))


def double_well(o, y):
    return jnp.sum(((o - y) ** 2 - 1) ** 2)


def root(o, y):
    return jnp.sum(jnp.sqrt(y - o))


@jax.jit
def _derived(o, y):
    loss = cx.CustomLoss(cross_entropy)
    factor = loss.hessian_factor(o, y)
    identity = jnp.broadcast_to(jnp.eye(o.shape[1]), (*o.shape, o.shape[1]))
    r = loss.whitened_residual(o, y)
    return factor.transpose_mv(identity), r, factor.transpose_solve(r), loss.gradient(o, y)


def test_a_singular_hessian_stays_singular():
    """Softmax as a function of one's own: S has the kernel of the Hessian, and r no part in it."""
    o, rng = _outputs(columns=3)
    # Rows whose classes are all but certain: their curvatures differ by 1e-6 and more.
    o[0], o[1] = (12.0, 0.0, -12.0), (-12.0, 12.0, 0.0)
    y = helpers.draw_targets("softmax", rng, ROWS, 3)
    transposed, r, solved, gradient = (np.asarray(part) for part in _derived(o, y))
    factor = np.swapaxes(transposed, 1, 2)
    hessian = helpers.REFERENCE_LOSSES["softmax"].hessian(o, y)
    np.testing.assert_allclose(factor @ transposed, hessian, atol=1e-15)
    np.testing.assert_allclose(np.abs(factor.sum(axis=1)), 0.0, atol=1e-8)
    np.testing.assert_allclose(np.einsum("iak,ik->ia", factor, r), gradient, atol=1e-6)
    np.testing.assert_allclose(np.einsum("ika,ia->ik", transposed, solved)[2:], r[2:], rtol=1e-9, atol=1e-9)


def test_outputs_of_very_different_curvature_keep_their_digits():
    # Curvatures of e^−40 and e^40 in one Hessian, whose eigenvalues alone would lose the smaller to rounding.
    loss = cx.CustomLoss(lambda o, y: jnp.sum(jnp.exp(o)) - y @ o)
    o, y = jnp.array([[-40.0, 40.0], [3.0, -40.0]]), jnp.zeros((2, 2))
    np.testing.assert_allclose(loss.whitened_residual(o, y), np.exp(o / 2), rtol=1e-12)


def test_one_output_is_a_quotient():
    loss = cx.CustomLoss(cosh, constant=1.0)
    o, y = jnp.array([[0.3], [-2.0]]), jnp.zeros((2, 1))
    np.testing.assert_allclose(loss.whitened_residual(o, y), np.sinh(o) / np.sqrt(np.cosh(o)), rtol=1e-14)
    assert np.allclose(loss.hessian_factor(o, y).transpose_mv(o), np.sqrt(np.cosh(o)) * o)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (double_well, r"`CustomLoss\(double_well\)`.*eigenvalue -.*not convex"),
        (huber, r"`CustomLoss\(huber\)`.*gradient .* is not in the range of the Hessian.*Smooth its corners"),
        (root, r"`CustomLoss\(root\)`.*is not finite"),
        (lambda o, y: (o - y) ** 2, r"must return a scalar; it returns shape \(2,\). Sum over the outputs"),
    ],
)
def test_functions_that_cannot_be_used_stop_a_run(function, message):
    rng = np.random.default_rng(0)
    params = MODEL.init(jax.random.key(0))
    data = (jnp.asarray(rng.normal(size=(ROWS, 2))), rng.normal(size=(ROWS, 2)))
    with pytest.raises(ValueError, match=message):
        cx.train(MODEL, cx.CustomLoss(function), cx.L2(), params, data, strength=1.0)


@pytest.mark.parametrize("function", [squared, cosh, helpers.smooth_distance])
def test_convex_functions_pass(function):
    cx.CustomLoss(function).check(np.random.default_rng(0).normal(size=(40, 2)), 2)
    cx.CustomLoss(function).check(np.linspace(-1, 1, 7), 1)


def test_a_singular_but_consistent_function_passes():
    cx.CustomLoss(cross_entropy).check(np.eye(3), 3)
    with pytest.raises(ValueError, match="not in the range"):
        # Rows that do not sum to 1 pull along the kernel.
        cx.CustomLoss(cross_entropy).check(2 * np.eye(3), 3)


def test_custom_settings():
    with pytest.raises(ValueError, match=r"CustomLoss.squared.` has no constant.*cx.tightest"):
        cx.CustomLoss(squared).concordance(jnp.ones((1, 2)))
    with pytest.raises(ValueError, match=r"`CustomLoss\(constant=-1.0\)`"):
        cx.CustomLoss(squared, constant=-1.0)
    with pytest.raises(TypeError, match="function"):
        cx.CustomLoss(cx.L2())  # pyright: ignore[reportArgumentType]


def test_per_output_takes_labels_or_probabilities():
    loss = cx.PerOutput((cx.SquaredError(), 1), (cx.SoftmaxCrossEntropy(), 3), (cx.PoissonDeviance(), 1))
    labels = np.array([[0.5, 2, 4.0], [-1.0, 0, 0.0]])
    whole = np.array([[0.5, 0, 0, 1, 4.0], [-1.0, 1, 0, 0, 0.0]])
    np.testing.assert_array_equal(loss.encode(jnp.asarray(labels), 5), whole)
    np.testing.assert_array_equal(loss.encode(jnp.asarray(whole), 5), whole)
    loss.check(labels, 5)
    loss.check(whole, 5)
    alone = cx.PerOutput((cx.SoftmaxCrossEntropy(), 3))
    np.testing.assert_array_equal(alone.encode(jnp.array([1, 0]), 3), np.eye(3)[[1, 0]])


@pytest.mark.parametrize(
    ("targets", "outputs", "message"),
    [
        (np.zeros((2, 4)), 5, r"needs targets \[n, 5\] or \[n, 3\], with one column of labels.*got shape \(2, 4\)"),
        (np.zeros((2, 5)), 6, r"1 \+ 3 \+ 1 = 5 columns and the model 6 outputs"),
        (np.array([[0.0, 3, 0]]), 5, r"labels 0..2 for a model with 3 outputs; the largest label is 3"),
        (np.array([[0.0, 1.5, 0]]), 5, r"must be whole numbers; 1.5 is among them"),
        (np.array([[0.0, 1, -1]]), 5, r"`PoissonDeviance` needs targets from 0 up"),
        (np.array([[0.0, 0.5, 0.1, 0.1, 0]]), 5, r"probabilities that sum to 1"),
    ],
)
def test_per_output_checks_each_slice(targets, outputs, message):
    loss = cx.PerOutput((cx.SquaredError(), 1), (cx.SoftmaxCrossEntropy(), 3), (cx.PoissonDeviance(), 1))
    with pytest.raises(ValueError, match=message):
        loss.check(targets, outputs)


def test_noise_of_a_composition():
    square, huber, counts = (cx.SquaredError(), 1), (cx.PseudoHuberLoss(1.0), 1), (cx.PoissonDeviance(), 1)
    kinds = {
        "squares": (cx.PerOutput(square, square), True, True),
        "robust": (cx.PerOutput(square, huber), True, False),
        "weighted": (cx.PerOutput((*square, 4.0), square), False, False),
        "mixed": (cx.PerOutput(square, counts), False, False),
    }
    for loss, noise, quadratic in kinds.values():
        assert (loss.estimates_noise, loss.is_quadratic) == (noise, quadratic)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ((), ValueError, "at least one part"),
        (((cx.SquaredError(), 0),), ValueError, "columns=0"),
        (((cx.SquaredError(), 1, -1.0),), ValueError, "weight=-1.0"),
        ((cx.SquaredError(),), TypeError, r"each part must be \(loss, columns\)"),
        (((cx.SquaredError, 1),), TypeError, r"each part must be \(loss, columns\)"),
    ],
)
def test_per_output_settings(parts, error, message):
    with pytest.raises(error, match=message):
        cx.PerOutput(*parts)


def test_a_network_learns_three_kinds_of_targets_at_once():
    rng = np.random.default_rng(3)
    inputs = rng.uniform(-1, 1, size=(60, 1))
    targets = np.hstack([np.sin(3 * inputs), inputs > 0, np.round(np.exp(1 + inputs))])
    loss = cx.PerOutput((cx.SquaredError(), 1, 25.0), (cx.SoftmaxCrossEntropy(), 2), (cx.PoissonDeviance(), 1))
    model = cx.MLP(inputs=1, widths=(8,), outputs=4)
    params = model.init(jax.random.key(0))
    result = cx.train(
        model, loss, cx.L2(), params, (jnp.asarray(inputs), targets), strength=1e-5, max_steps=40, solver=cx.Dual()
    )
    outputs = np.asarray(model(result.params, jnp.asarray(inputs)))
    assert np.all(np.diff(result.history["objective"]) <= 1e-12)
    assert np.abs(outputs[:, 0] - targets[:, 0]).max() < 0.15
    assert np.mean((outputs[:, 2] > outputs[:, 1]) == targets[:, 1]) > 0.95
    assert np.abs(np.exp(outputs[:, 3]) - targets[:, 2]).mean() < 0.5
