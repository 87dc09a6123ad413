"""Regularized Gauss-Newton training without a learning rate, a strength that the data choose, and error bars."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from ._status import RunStatus as RunStatus
    from ._status import StepStatus as StepStatus
    from .batches import Stream as Stream
    from .cross_validation import GeneralizedCrossValidation as GeneralizedCrossValidation
    from .cross_validation import LeaveOneOut as LeaveOneOut
    from .evidence import Evidence as Evidence
    from .history import TrainResult as TrainResult
    from .laplace import Posterior as Posterior
    from .laplace import class_probabilities as class_probabilities
    from .laplace import posterior as posterior
    from .losses import BinaryCrossEntropy as BinaryCrossEntropy
    from .losses import PseudoHuberLoss as PseudoHuberLoss
    from .losses import SoftmaxCrossEntropy as SoftmaxCrossEntropy
    from .losses import SquaredError as SquaredError
    from .models import MLP as MLP
    from .models import DenseLayer as DenseLayer
    from .models import LayeredModel as LayeredModel
    from .models import TwoLayer as TwoLayer
    from .optimizer import direction as direction
    from .optimizer import ggn_score as ggn_score
    from .optimizer import objective as objective
    from .regularizers import L2 as L2
    from .regularizers import PseudoHuber as PseudoHuber
    from .self_concordance import SelfConcordance as SelfConcordance
    from .solvers import Auto as Auto
    from .solvers import Dual as Dual
    from .solvers import NystromCG as NystromCG
    from .solvers import Primal as Primal
    from .solvers import Solution as Solution
    from .solvers import StructuredCG as StructuredCG
    from .steps import FixedStep as FixedStep
    from .steps import PublishedStep as PublishedStep
    from .stochastic_trust_region import StochasticTrustRegion as StochasticTrustRegion
    from .strength import AnnealedStrength as AnnealedStrength
    from .strength import FixedStrength as FixedStrength
    from .training import train as train
    from .trust_region import TrustRegion as TrustRegion

# The same names for the interpreter, which imports a module at the first use of one of its names: JAX takes half a
# second, for which `concordax --help` and a file that only names the package need not wait.
_NAMES = {
    "_status": ("RunStatus", "StepStatus"),
    "batches": ("Stream",),
    "cross_validation": ("GeneralizedCrossValidation", "LeaveOneOut"),
    "evidence": ("Evidence",),
    "history": ("TrainResult",),
    "laplace": ("Posterior", "class_probabilities", "posterior"),
    "losses": ("BinaryCrossEntropy", "PseudoHuberLoss", "SoftmaxCrossEntropy", "SquaredError"),
    "models": ("MLP", "DenseLayer", "LayeredModel", "TwoLayer"),
    "optimizer": ("direction", "ggn_score", "objective"),
    "regularizers": ("L2", "PseudoHuber"),
    "self_concordance": ("SelfConcordance",),
    "solvers": ("Auto", "Dual", "NystromCG", "Primal", "Solution", "StructuredCG"),
    "steps": ("FixedStep", "PublishedStep"),
    "stochastic_trust_region": ("StochasticTrustRegion",),
    "strength": ("AnnealedStrength", "FixedStrength"),
    "training": ("train",),
    "trust_region": ("TrustRegion",),
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
