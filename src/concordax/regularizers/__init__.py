"""Generalised self-concordant regularizers."""

from .base import AbstractRegularizer as AbstractRegularizer
from .base import Sum as Sum
from .base import as_arguments as as_arguments
from .box import SmoothBox as SmoothBox
from .custom import CustomRegularizer as CustomRegularizer
from .group import GroupPseudoHuber as GroupPseudoHuber
from .l2 import L2 as L2
from .per_parameter import PerParameter as PerParameter
from .pseudo_huber import PseudoHuber as PseudoHuber
from .separable import Elastic as Elastic
from .separable import HyperbolicEntropy as HyperbolicEntropy
from .separable import LogCosh as LogCosh
from .separable import OstrovskiiBach as OstrovskiiBach
