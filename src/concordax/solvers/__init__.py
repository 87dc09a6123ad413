"""Solvers of the linearised system; one solver a file."""

from .auto import Auto as Auto
from .base import AbstractPrepared as AbstractPrepared
from .base import AbstractSolver as AbstractSolver
from .base import Solution as Solution
from .base import SolveStats as SolveStats
from .dual import Dual as Dual
from .primal import Primal as Primal
