"""Regularized Gauss-Newton training without a learning rate, a strength that the data choose, and error bars."""

from typing import TYPE_CHECKING

from ._lazy import lazily
from ._version import __version__ as __version__

if TYPE_CHECKING:
    from ._status import RunStatus as RunStatus
    from ._status import StepStatus as StepStatus
    from .batches import Stream as Stream
    from .compaction import Compacted as Compacted
    from .compaction import compact as compact
    from .cross_validation import GeneralizedCrossValidation as GeneralizedCrossValidation
    from .cross_validation import LeaveOneOut as LeaveOneOut
    from .damping_rules import GainRatio as GainRatio
    from .damping_rules import MissedShare as MissedShare
    from .damping_rules import Nielsen as Nielsen
    from .diagnosis import Diagnosis as Diagnosis
    from .diagnosis import Finding as Finding
    from .diagnosis import explain as explain
    from .evaluate import direction as direction
    from .evaluate import kkt_residual as kkt_residual
    from .evaluate import objective as objective
    from .evidence import Evidence as Evidence
    from .groups import Groups as Groups
    from .history import TrainResult as TrainResult
    from .laplace import Posterior as Posterior
    from .laplace import class_probabilities as class_probabilities
    from .laplace import posterior as posterior
    from .losses import BinaryCrossEntropy as BinaryCrossEntropy
    from .losses import CustomLoss as CustomLoss
    from .losses import PerOutput as PerOutput
    from .losses import PoissonDeviance as PoissonDeviance
    from .losses import PseudoHuberLoss as PseudoHuberLoss
    from .losses import QuantileLoss as QuantileLoss
    from .losses import SoftmaxCrossEntropy as SoftmaxCrossEntropy
    from .losses import SquaredError as SquaredError
    from .models import MLP as MLP
    from .models import DenseLayer as DenseLayer
    from .models import LayeredModel as LayeredModel
    from .models import TwoLayer as TwoLayer
    from .observers import Observer as Observer
    from .observers import RunView as RunView
    from .optimizer import ggn_score as ggn_score
    from .path import StrengthPath as StrengthPath
    from .path import strength_path as strength_path
    from .penalties import L1 as L1
    from .penalties import Box as Box
    from .penalties import GroupLasso as GroupLasso
    from .proximal import ProximalStep as ProximalStep
    from .regularizers import L2 as L2
    from .regularizers import CustomRegularizer as CustomRegularizer
    from .regularizers import Elastic as Elastic
    from .regularizers import GroupPseudoHuber as GroupPseudoHuber
    from .regularizers import HyperbolicEntropy as HyperbolicEntropy
    from .regularizers import LogCosh as LogCosh
    from .regularizers import OstrovskiiBach as OstrovskiiBach
    from .regularizers import PerParameter as PerParameter
    from .regularizers import PseudoHuber as PseudoHuber
    from .regularizers import SmoothBox as SmoothBox
    from .regularizers import Sum as Sum
    from .relaxation import RelaxedPath as RelaxedPath
    from .relaxation import relax as relax
    from .scheduled_strength import AnnealedStrength as AnnealedStrength
    from .scheduled_strength import ScheduledStrength as ScheduledStrength
    from .self_concordance import SelfConcordance as SelfConcordance
    from .self_concordance import tightest as tightest
    from .self_concordance import verify as verify
    from .solvers import Auto as Auto
    from .solvers import Dual as Dual
    from .solvers import NystromCG as NystromCG
    from .solvers import Primal as Primal
    from .solvers import Solution as Solution
    from .solvers import StructuredCG as StructuredCG
    from .sparse import Sparsity as Sparsity
    from .sparse import sparsity as sparsity
    from .steps import Backtracking as Backtracking
    from .steps import BarzilaiBorwein as BarzilaiBorwein
    from .steps import FixedStep as FixedStep
    from .steps import PublishedStep as PublishedStep
    from .steps import SelfConcordantStep as SelfConcordantStep
    from .stochastic_trust_region import StochasticTrustRegion as StochasticTrustRegion
    from .strength import FixedStrength as FixedStrength
    from .training import train as train
    from .trust_region import TrustRegion as TrustRegion

# The same names for the interpreter, which imports a module at the first use of one of its names: JAX takes half a
# second, for which `concordax --help` and a file that only names the package need not wait.
_NAMES = {
    "_status": ("RunStatus", "StepStatus"),
    "batches": ("Stream",),
    "compaction": ("Compacted", "compact"),
    "cross_validation": ("GeneralizedCrossValidation", "LeaveOneOut"),
    "damping_rules": ("GainRatio", "MissedShare", "Nielsen"),
    "diagnosis": ("Diagnosis", "Finding", "explain"),
    "evaluate": ("direction", "kkt_residual", "objective"),
    "evidence": ("Evidence",),
    "groups": ("Groups",),
    "history": ("TrainResult",),
    "laplace": ("Posterior", "class_probabilities", "posterior"),
    "losses": (
        "BinaryCrossEntropy",
        "CustomLoss",
        "PerOutput",
        "PoissonDeviance",
        "PseudoHuberLoss",
        "QuantileLoss",
        "SoftmaxCrossEntropy",
        "SquaredError",
    ),
    "models": ("MLP", "DenseLayer", "LayeredModel", "TwoLayer"),
    "ntk": (),
    "observers": ("Observer", "RunView"),
    "optimizer": ("ggn_score",),
    "path": ("StrengthPath", "strength_path"),
    "penalties": ("L1", "Box", "GroupLasso"),
    "proximal": ("ProximalStep",),
    "regularizers": (
        "L2",
        "CustomRegularizer",
        "Elastic",
        "GroupPseudoHuber",
        "HyperbolicEntropy",
        "LogCosh",
        "OstrovskiiBach",
        "PerParameter",
        "PseudoHuber",
        "SmoothBox",
        "Sum",
    ),
    "relaxation": ("RelaxedPath", "relax"),
    "scheduled_strength": ("AnnealedStrength", "ScheduledStrength"),
    "self_concordance": ("SelfConcordance", "tightest", "verify"),
    "solvers": ("Auto", "Dual", "NystromCG", "Primal", "Solution", "StructuredCG"),
    "sparse": ("Sparsity", "sparsity"),
    "steps": ("Backtracking", "BarzilaiBorwein", "FixedStep", "PublishedStep", "SelfConcordantStep"),
    "stochastic_trust_region": ("StochasticTrustRegion",),
    "strength": ("FixedStrength",),
    "training": ("train",),
    "trust_region": ("TrustRegion",),
}
__getattr__, __dir__, __all__ = lazily(__name__, _NAMES)  # pyright: ignore[reportUnsupportedDunderAll]
