"""Convex losses of a model's outputs, one family a file."""

from .base import AbstractLoss as AbstractLoss
from .cross_entropy import BinaryCrossEntropy as BinaryCrossEntropy
from .cross_entropy import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .custom import CustomLoss as CustomLoss
from .per_output import PerOutput as PerOutput
from .poisson import PoissonDeviance as PoissonDeviance
from .pseudo_huber import PseudoHuberLoss as PseudoHuberLoss
from .quantile import QuantileLoss as QuantileLoss
from .squared_error import SquaredError as SquaredError
