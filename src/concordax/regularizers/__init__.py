"""Generalised self-concordant regularizers."""

from .base import AbstractRegularizer as AbstractRegularizer
from .l2 import L2 as L2
from .pseudo_huber import PseudoHuber as PseudoHuber
