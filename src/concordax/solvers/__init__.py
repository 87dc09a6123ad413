"""Solvers of the linearised system; one solver a file."""

from .auto import Auto as Auto
from .auto import Plan as Plan
from .base import AbstractFactorable as AbstractFactorable
from .base import AbstractPrepared as AbstractPrepared
from .base import AbstractShifted as AbstractShifted
from .base import AbstractSolver as AbstractSolver
from .base import Complexity as Complexity
from .base import Solution as Solution
from .base import SolveStats as SolveStats
from .costs import Cost as Cost
from .costs import SystemShape as SystemShape
from .costs import groups_of as groups_of
from .dual import Dual as Dual
from .nystrom_cg import NystromCG as NystromCG
from .primal import Primal as Primal
from .structured_cg import StructuredCG as StructuredCG
