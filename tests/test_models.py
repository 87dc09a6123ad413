"""Models by themselves: outputs alone, and beside the features of the layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import concordax as cx
from concordax.models import ACTIVATIONS


def _running_sum(hidden):
    """What is no function of each number by itself, and must not be read backwards."""
    return jnp.cumsum(hidden, axis=1)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, _running_sum])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_alone_are_those_beside_the_features(activation, bias):
    """To the bit: a trust region compares F at a trial point with F at the start of the step after it."""
    model = cx.TwoLayer(inputs=3, width=7, outputs=2, activation=activation, bias=bias)
    params, inputs = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 3))
    taps = tuple(jnp.zeros((5, width)) for width in (7, 2))
    np.testing.assert_array_equal(model(params, inputs), model.tapped(params, inputs, taps)[0])
