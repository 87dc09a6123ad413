"""Programs: equal values, options for the processor alone, and none that an XLA does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from concordax import compilation
from concordax.compilation import Jitted


def _scaled(x, name):
    return {"name": name, "value": jnp.tanh(x) * 2.0}


@pytest.fixture(autouse=True)
def _asked_anew():
    yield
    compilation._understood.cache_clear()


@pytest.mark.parametrize("few", [False, True])
def test_gives_the_value_and_what_is_no_array(few):
    result = Jitted(_scaled, few=few)(jnp.arange(3.0), "kept")
    assert result["name"] == "kept"
    np.testing.assert_allclose(result["value"], 2 * np.tanh(np.arange(3.0)), rtol=1e-6)


def test_compiles_once_a_shape():
    traced = []

    @Jitted
    def square(x):
        traced.append(x.shape)
        return x**2

    for size in (3, 4, 3, 4):
        square(jnp.zeros(size))
    assert traced == [(3,), (4,)]


def test_a_program_that_runs_a_few_times_is_not_optimized(monkeypatch):
    asked = []
    monkeypatch.setattr(compilation, "_understood", lambda _, options: asked.append(dict(options)) or {})
    Jitted(_scaled)(jnp.ones(2), "")
    Jitted(_scaled, few=True)(jnp.ones(2), "")
    assert asked == [compilation._FORMER_EMITTERS, compilation.UNOPTIMIZED]


def test_is_called_as_the_function_is():
    assert (Jitted(_scaled).__name__, Jitted(_scaled).__wrapped__) == ("_scaled", _scaled)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are those of processors")
@pytest.mark.parametrize("options", [compilation._FORMER_EMITTERS, compilation.UNOPTIMIZED])
def test_this_xla_knows_the_options(options):
    """Where it does not any more, a first step takes half as long again to compile, and nothing else says so."""
    assert compilation._understood("cpu", tuple(options.items())) == {"compiler_options": options}


def test_other_devices_are_told_nothing():
    assert compilation._understood("gpu", tuple(compilation._FORMER_EMITTERS.items())) == {}


def test_an_option_that_is_not_known_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "_FORMER_EMITTERS", {"xla_no_such_option": True})
    np.testing.assert_allclose(Jitted(_scaled)(jnp.ones(2), "")["value"], 2 * np.tanh(np.ones(2)), rtol=1e-6)
