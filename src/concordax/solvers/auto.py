"""The solver by shape: the smaller of the two sides."""

from ..system import System
from .base import AbstractPrepared, AbstractSolver
from .dual import Dual
from .primal import Primal


class Auto(AbstractSolver):
    """Dual when N = n·k < p, else Primal: the side with the smaller matrix, whose cube decides the cost.

    Example:
        >>> Auto().choose(rows=100, outputs=1, parameters=10_000)
        Dual()
        >>> Auto().choose(rows=10_000, outputs=1, parameters=100)
        Primal()
    """

    def choose(self, *, rows: int, outputs: int, parameters: int) -> AbstractSolver:
        """The solver for n rows, k outputs and p parameters."""
        return Dual() if rows * outputs < parameters else Primal()

    def prepare(self, system: System) -> AbstractPrepared:
        """Prepares the chosen solver."""
        rows, outputs, parameters = system.jacobian.shape
        return self.choose(rows=rows, outputs=outputs, parameters=parameters).prepare(system)
