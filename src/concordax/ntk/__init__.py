"""Tangent kernels: of a network and its limit in width, regression, the path of training, certificates, a monitor."""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .activations import DualActivation as DualActivation
    from .activations import dual_activation as dual_activation
    from .certificate import Certificate as Certificate
    from .certificate import Kept as Kept
    from .certifying import certify as certify
    from .finite_width import empirical as empirical
    from .finite_width import empirical_diagonal as empirical_diagonal
    from .finite_width import empirical_product as empirical_product
    from .function_space import TrainingPath as TrainingPath
    from .function_space import predict_training as predict_training
    from .hermite import QuadratureWarning as QuadratureWarning
    from .limit import InfiniteWidth as InfiniteWidth
    from .limit import Kernels as Kernels
    from .limit import infinite_width as infinite_width
    from .linearity import Linearization as Linearization
    from .linearity import linearization as linearization
    from .lipschitz import BoundedLipschitz as BoundedLipschitz
    from .lipschitz import MeasuredLipschitz as MeasuredLipschitz
    from .monitor import Monitor as Monitor
    from .paths import GaussNewtonPath as GaussNewtonPath
    from .paths import GradientDescentPath as GradientDescentPath
    from .paths import GradientFlow as GradientFlow
    from .recentering import Centered as Centered
    from .recentering import centered as centered
    from .regression import KernelRegression as KernelRegression
    from .tangent import linearized as linearized

# Imported at the first use of a name, as those of the package itself: regression needs scikit-learn, the rest does not.
_NAMES = {
    "activations": ("DualActivation", "dual_activation"),
    "certificate": ("Certificate", "Kept"),
    "certifying": ("certify",),
    "finite_width": ("empirical", "empirical_diagonal", "empirical_product"),
    "function_space": ("TrainingPath", "predict_training"),
    "hermite": ("QuadratureWarning",),
    "limit": ("InfiniteWidth", "Kernels", "infinite_width"),
    "linearity": ("Linearization", "linearization"),
    "lipschitz": ("BoundedLipschitz", "MeasuredLipschitz"),
    "monitor": ("Monitor",),
    "paths": ("GaussNewtonPath", "GradientDescentPath", "GradientFlow"),
    "recentering": ("Centered", "centered"),
    "regression": ("KernelRegression",),
    "tangent": ("linearized",),
}
__getattr__, __dir__, __all__ = lazily(__name__, _NAMES)  # pyright: ignore[reportUnsupportedDunderAll]
