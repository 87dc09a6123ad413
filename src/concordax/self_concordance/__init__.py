"""Generalised self-concordance: the calculus of (M, ν), and constants found and checked by numbers."""

from .calculus import SelfConcordance as SelfConcordance
from .scalar import Supremum as Supremum
from .scalar import Verdict as Verdict
from .scalar import tightest as tightest
from .scalar import verify as verify
