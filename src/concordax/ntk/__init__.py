"""Tangent kernels: J H⁻¹ Jᵀ of a network, its limit in width, regression and the path of training by it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import DualActivation as DualActivation
    from .activations import dual_activation as dual_activation
    from .finite_width import empirical as empirical
    from .finite_width import empirical_diagonal as empirical_diagonal
    from .finite_width import empirical_product as empirical_product
    from .function_space import TrainingPath as TrainingPath
    from .function_space import predict_training as predict_training
    from .hermite import QuadratureWarning as QuadratureWarning
    from .limit import InfiniteWidth as InfiniteWidth
    from .limit import Kernels as Kernels
    from .limit import infinite_width as infinite_width
    from .paths import GaussNewtonPath as GaussNewtonPath
    from .paths import GradientDescentPath as GradientDescentPath
    from .paths import GradientFlow as GradientFlow
    from .regression import KernelRegression as KernelRegression
    from .tangent import linearized as linearized

# Imported at the first use of a name, as those of the package itself.
_NAMES = {
    "activations": ("DualActivation", "dual_activation"),
    "finite_width": ("empirical", "empirical_diagonal", "empirical_product"),
    "function_space": ("TrainingPath", "predict_training"),
    "hermite": ("QuadratureWarning",),
    "limit": ("InfiniteWidth", "Kernels", "infinite_width"),
    "paths": ("GaussNewtonPath", "GradientDescentPath", "GradientFlow"),
    "regression": ("KernelRegression",),
    "tangent": ("linearized",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
