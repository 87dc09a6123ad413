"""The published mode against a transcription of its formulas in NumPy, forward pass and Jacobian included."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers

STRENGTH, SMOOTHING, SCALE, STEPS = 1e-4, 2.0, 0.95, 20


def _published_run(model, layers, inputs, targets, loss):
    """(JᵀQJ/n + H) δ = −(Jᵀe/n + τg), α = min(1, scale/(1 + M η)); returns the parameters after each step."""
    n, theta, visited, sizes = len(inputs), helpers.flatten(layers), [], []
    shapes = [weight.shape for weight, _ in layers]
    p = len(theta)
    constant = 2.0 * p ** ((3 - 2.6) / 2) * SMOOTHING ** (2.6 / 2 - 2)
    for _ in range(STEPS):
        ends = np.cumsum([np.prod(s) for s in shapes])
        weights = [piece.reshape(s) for piece, s in zip(np.split(theta, ends[:-1]), shapes, strict=True)]
        outputs, jacobian = helpers.network([(w, None) for w in weights], inputs, helpers.scales_of(model), "silu")
        q = helpers.REFERENCE_LOSSES[loss].hessian(outputs, targets)
        e = helpers.REFERENCE_LOSSES[loss].gradient(outputs, targets)
        t = theta / SMOOTHING
        g, h = t / np.sqrt(1 + t**2), 1 / (SMOOTHING * (1 + t**2) ** 1.5)
        gradient = np.einsum("iap,ia->p", jacobian, e) / n + STRENGTH * g
        normal = np.einsum("iap,iab,ibq->pq", jacobian, q, jacobian, optimize=True) / n + np.diag(h)
        eta = np.sqrt(STRENGTH**2 * (g**2 / h).sum())
        alpha = min(1.0, SCALE / (1 + constant * eta))
        theta = theta - alpha * np.linalg.solve(normal, gradient)
        visited.append(theta)
        sizes.append(alpha)
    return np.array(visited), np.array(sizes)


@pytest.mark.parametrize("solver", [cx.Dual(), cx.Primal()], ids=["dual", "primal"])
@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_follows_the_published_formulas(loss, solver):
    rng = np.random.default_rng(2)
    model = cx.TwoLayer(inputs=4, width=15, outputs=2)
    params = helpers.draw_params(model, rng)
    inputs, targets = rng.normal(size=(12, 4)), helpers.draw_targets(loss, rng, 12, 2)
    expected, sizes = _published_run(model, helpers.as_layers(params), inputs, targets, loss)
    optimizer = cx.ggn_score(
        model,
        helpers.LOSSES[loss],
        cx.PseudoHuber(SMOOTHING),
        strength=STRENGTH,
        damping=1 - STRENGTH,
        step=cx.PublishedStep(SCALE),
        solver=solver,
    )

    @eqx.filter_jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(
                None, state, params, inputs=jnp.asarray(inputs), targets=jnp.asarray(targets)
            )
            params = optax.apply_updates(params, updates)
            return (params, state), (ravel_pytree(params)[0], state.info.step_size)

        return jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)[1]

    found, found_sizes = run(params)
    np.testing.assert_allclose(found_sizes, sizes, rtol=1e-6)
    for step in range(STEPS):
        assert helpers.relative_error(found[step], expected[step]) < 1e-6
    # The parameters move, and the step is not simply 1 or the scale.
    assert helpers.relative_error(expected[-1], helpers.flatten(params)) > 0.1
    assert len(np.unique(sizes.round(6))) > 10
    assert sizes.max() < SCALE
