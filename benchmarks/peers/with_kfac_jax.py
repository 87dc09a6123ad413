"""kfac-jax: K-FAC with exact Gauss-Newton factors and its adaptive rate, momentum and damping.

kfac-jax 0.0.8 does not run on jax 0.9.2 and later; it was seen to run on 0.9.0. See `requirements-kfac-jax.txt`.
"""

import jax
import jax.numpy as jnp
import kfac_jax
from workloads import Workload

from .trace import python_loop, runner

PACKAGES = ("kfac-jax", "jax", "jaxlib")
NOTE = "no regularizer"
# Plain functions: the library's tracer does not know the custom derivatives of `jax.nn`.
_ACTIVATIONS = {
    "silu": lambda z: z * jax.lax.logistic(z),
    "relu": lambda z: jax.lax.max(z, 0 * z),
    "tanh": jax.lax.tanh,
}


def settings(workload: Workload) -> list[dict]:
    """First dampings."""
    del workload
    return [{"damping": damping} for damping in (1e-1, 1e-3, 1e-5)]


def prepare(workload: Workload, damping: float):
    """See `peers`."""

    def value(params, batch):
        inputs, targets = batch
        outputs = _forward(workload, params, inputs)
        if workload.is_classification:
            kfac_jax.register_softmax_cross_entropy_loss(outputs, targets)
        else:
            kfac_jax.register_squared_error_loss(outputs, targets, weight=0.5)
        return jnp.mean(workload.loss.value(outputs, targets))

    optimizer = kfac_jax.Optimizer(
        jax.value_and_grad(value),
        l2_reg=0.0,
        use_adaptive_learning_rate=True,
        use_adaptive_momentum=True,
        use_adaptive_damping=True,
        initial_damping=damping,
        min_damping=1e-14,
        num_burnin_steps=0,
        estimation_mode="ggn_exact",
        # Always the same rows: the factors of the latest point, and a look at the damping in each step, served best.
        curvature_ema=0.0,
        damping_adaptation_interval=1,
        inverse_update_period=1,
    )
    batch = (workload.inputs, workload.targets)
    # Weights as [d_in, d_out]: the form in which the library recognises a dense layer.
    params = tuple({"w": layer.weight.T, **_bias(layer)} for layer in workload.start)
    key = jax.random.key(0)

    def begin():
        # The optimizer gives the memory of what it is handed back to the system: it gets copies.
        copy = jax.tree.map(jnp.array, params)
        return copy, optimizer.init(copy, key, batch)

    def step(state):
        return optimizer.step(*state, key, batch=batch, global_step_int=None)[:2]

    loss = jax.jit(lambda state: jnp.mean(workload.loss.value(_forward(workload, state[0], batch[0]), batch[1])))
    return runner(python_loop(step), begin, loss, workload)


def _bias(layer) -> dict:
    return {} if layer.bias is None else {"b": layer.bias}


def _forward(workload: Workload, params, inputs):
    """The workload's network, written so that each layer is a plain product."""
    scale = (lambda d: d**-0.5) if hasattr(workload.model, "widths") else None
    act, hidden = _ACTIVATIONS[workload.model.activation], inputs
    for index, layer in enumerate(params):
        fan_in = layer["w"].shape[0]
        factor = scale(fan_in) if scale else (1.0 if index == 0 else fan_in**-0.5)
        hidden = (factor * (act(hidden) if index else hidden)) @ layer["w"]
        hidden = hidden + layer["b"] if "b" in layer else hidden
    return hidden
