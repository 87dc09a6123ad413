"""The solver by the model of `costs.py`: the cheapest that fits in memory."""

import math
from typing import NamedTuple

import equinox as eqx

from ..system import System
from . import costs
from .base import AbstractPrepared, AbstractSolver
from .costs import Cost, SystemShape
from .dual import Dual
from .memory import free_bytes
from .nystrom_cg import NystromCG
from .primal import Primal
from .structured_cg import StructuredCG

# A sketch of fewer columns is not worth its products.
_LEAST_RANK = 10


class Plan(NamedTuple):
    """A choice of solver, with what each that fits costs, the cheapest first."""

    solver: AbstractSolver
    costs: dict[str, Cost]

    @property
    def reason(self) -> str:
        """The choice as one sentence."""
        chosen, *others = (
            f"{name} ({cost.operations:.2g} operations a step, {cost.bytes / 1e6:.3g} MB)"
            for name, cost in self.costs.items()
        )
        return f"{chosen} is the cheapest" + (f"; {', '.join(others)}" if others else "")


class Auto(AbstractSolver):
    """The cheapest solver that fits in memory, by a model of operations and bytes.

    Args:
        memory: bytes that one step may take; half of what the device has free by default.
        direct_only: leave out the iterative ones: the small matrix itself is then formed, as error bars need it.
        hand_over: as in `StructuredCG`.
        nystrom: the `NystromCG` to choose from, with another tolerance or budget, say; its rank at most.

    Raises:
        ValueError: if `memory` is not a positive number.

    Example:
        >>> wide = ((500, 20), (1, 500))
        >>> Auto().plan(SystemShape(rows=1000, outputs=1, parameters=10_500, layers=wide)).solver
        StructuredCG(tolerance=1e-10, max_iterations=100, single=None, hand_over=True)
        >>> Auto().plan(SystemShape(rows=10_000, outputs=1, parameters=100)).solver
        Primal()
        >>> digits = ((256, 65), (10, 257))
        >>> Auto().plan(SystemShape(rows=1437, outputs=10, parameters=19_210, layers=digits)).solver
        NystromCG(rank=100, tolerance=1e-06, max_iterations=200)
    """

    memory: float | int | None = eqx.field(static=True)
    direct_only: bool = eqx.field(static=True)
    hand_over: bool = eqx.field(static=True)
    nystrom: NystromCG

    def __init__(
        self,
        memory: float | int | None = None,
        *,
        direct_only: bool = False,
        hand_over: bool = True,
        nystrom: NystromCG = NystromCG(),
    ):
        if memory is not None and not (math.isfinite(memory) and memory > 0):
            raise ValueError(f"`Auto(memory={memory!r})`: bytes, a positive number, or None for half of what is free.")
        self.memory, self.direct_only, self.hand_over = memory, bool(direct_only), bool(hand_over)
        self.nystrom = nystrom

    @property
    def direct(self):
        """The same choice among the direct solvers."""
        return Auto(self.memory, direct_only=True, nystrom=self.nystrom)

    @property
    def alone(self):
        """The same choice, `StructuredCG` without its hand-over."""
        return Auto(self.memory, direct_only=self.direct_only, hand_over=False, nystrom=self.nystrom)

    def plan(self, shape: SystemShape) -> Plan:
        """The solver for a system of this shape, and why.

        Raises:
            MemoryError: when no path fits.
        """
        budget = 0.5 * free_bytes() if self.memory is None else self.memory
        candidates: list[tuple[AbstractSolver, Cost]] = [(Dual(), costs.dual(shape)), (Primal(), costs.primal(shape))]
        if shape.layers and not shape.scalar and not self.direct_only:
            candidates.append((StructuredCG(hand_over=self.hand_over), costs.structured_cg(shape)))
        if not self.direct_only:
            rank = costs.largest_rank(shape, budget, _LEAST_RANK, self.nystrom.rank)
            solver = NystromCG(rank, self.nystrom.tolerance, self.nystrom.max_iterations)
            candidates.append((solver, costs.nystrom_cg(shape, rank)))
        fitting = [candidate for candidate in candidates if candidate[1].bytes <= budget]
        if not fitting:
            solver, cost = min(candidates, key=lambda candidate: candidate[1].bytes)
            raise MemoryError(
                f"a step on {shape.rows} rows of {shape.outputs} outputs with {shape.parameters} parameters takes "
                f"{cost.bytes / 1e9:.3g} GB at least, with {type(solver).__name__}; {budget / 1e9:.3g} GB may be used. "
                "Use fewer rows a step (`train(batch_size=...)`), float32, or a smaller network."
            )
        fitting.sort(key=lambda candidate: candidate[1].operations)
        return Plan(fitting[0][0], {type(solver).__name__: cost for solver, cost in fitting})

    def explain(self, shape: SystemShape) -> str:
        """The plan's reason."""
        return self.plan(shape).reason

    def resolve(self, shape: SystemShape) -> AbstractSolver:
        """The plan's solver."""
        return self.plan(shape).solver

    def choice(self, shape: SystemShape) -> tuple[AbstractSolver, str]:
        """Those of one plan."""
        plan = self.plan(shape)
        return plan.solver, plan.reason

    def prepare(self, system: System) -> AbstractPrepared:
        """Prepares the chosen solver."""
        return self.resolve(costs.shape_of(system)).prepare(system)
