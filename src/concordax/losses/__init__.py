"""Convex losses of a model's outputs, one family a file."""

from .base import AbstractLoss as AbstractLoss
from .cross_entropy import BinaryCrossEntropy as BinaryCrossEntropy
from .cross_entropy import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .pseudo_huber import PseudoHuberLoss as PseudoHuberLoss
from .squared_error import SquaredError as SquaredError
