"""`eqx.filter_jit` with what a backend's compiler is told, which is known only when a program is first called.

A compiled step is made of some hundred small kernels beside the library's products and factors; nearly all of the time
to compile it goes to them.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

# On a processor, XLA's former emitters of kernels: a step is compiled in two thirds to half the time of the new ones
# (jaxlib 0.10.2), and takes as long within the noise; with several outputs and no Gram a tenth to a fifth longer.
# Less optimization is felt more: a level of 1 made a step of 784 inputs half as long again.
_FORMER_EMITTERS = {"xla_cpu_use_fusion_emitters": False}
# For a program that runs a few times, and whose time is that of library products either way: there in 0.3 s for 2.2 s.
UNOPTIMIZED = {**_FORMER_EMITTERS, "xla_backend_optimization_level": 0}


class Jitted:
    """A function that is compiled for each structure and shape of its arguments, as `eqx.filter_jit` does; a decorator.

    Args:
        function: of arrays and of what else `eqx.filter_jit` takes.
        few: whether it runs a few times only, so that its compilation matters more than its run.
    """

    def __init__(self, function: Callable, *, few: bool = False):
        functools.update_wrapper(self, function)
        self._function, self._few = function, few
        self._compiled: dict[str, Any] = {}

    def __call__(self, *args: Any) -> Any:
        """The function's value."""
        return self._on(jax.default_backend())(*args)

    def _on(self, backend: str) -> Callable:
        if backend not in self._compiled:
            # Asked here and not where the function is defined: to ask for the backend is to start it.
            wanted = UNOPTIMIZED if self._few else _FORMER_EMITTERS
            self._compiled[backend] = eqx.filter_jit(self._function, **_understood(backend, tuple(wanted.items())))
        return self._compiled[backend]


@functools.cache
def _understood(backend: str, options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """What `jax.jit` takes: nothing but on a processor, where alone they are known to hurt nothing."""
    if backend != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        # An XLA that does not know one of them.
        return {}
    return {"compiler_options": dict(options)}
