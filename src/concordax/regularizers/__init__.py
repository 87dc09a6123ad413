"""Generalised self-concordant regularizers."""

from .base import AbstractRegularizer as AbstractRegularizer
from .box import SmoothBox as SmoothBox
from .composite import PerParameter as PerParameter
from .composite import Sum as Sum
from .group import GroupPseudoHuber as GroupPseudoHuber
from .l2 import L2 as L2
from .pseudo_huber import PseudoHuber as PseudoHuber
from .separable import Elastic as Elastic
from .separable import HyperbolicEntropy as HyperbolicEntropy
from .separable import LogCosh as LogCosh
from .separable import OstrovskiiBach as OstrovskiiBach
