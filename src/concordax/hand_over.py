"""Which program takes a step: the cheapest first, those behind it where its solver misses its tolerance."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from .first_order import FirstOrder
from .optimizer import Algorithm, GGNState

_LOG = logging.getLogger("concordax")
# Steps in a row that a solver may miss before the run goes on without it.
_PATIENCE = 3

Step = Callable[[Any, GGNState, Any, Any], tuple[Any, GGNState]]


class Programs:
    """A run's algorithm with its solver alone, and with each that stands behind it: those hand over to an exact solve.

    A step that the first one misses is taken again by the next, compiled when it is needed. After three misses in a row
    the run goes on without the first; after three steps in a row that the next one in turn had to hand over, with the
    one behind that: iterations up to the budget that lead nowhere cost several times the direct solve.

    Numbers are arguments of the programs, not constants in them: runs with another smoothing compile nothing.
    """

    def __init__(self, algorithm: Algorithm | FirstOrder):
        ladder: list[Algorithm | FirstOrder] = [algorithm]
        if isinstance(algorithm, Algorithm):
            solvers = [algorithm.solver.alone]
            behind = algorithm.solver.backup
            while behind != solvers[-1]:
                solvers.append(behind)
                behind = behind.backup
            ladder = [replace(algorithm, solver=solver) for solver in solvers]
        self.first = ladder[0]
        self._ladder = [each.parametrized() for each in ladder]
        self._rung = self._misses = 0

    def advance(self, step: Step, params: Any, state: GGNState, batch: Any) -> tuple[Any, GGNState]:
        """One step; one that was not the first program's says so, with the iterations that both took.

        Args:
            step: (algorithm, state, params, batch) -> (params, state).
            params: before the step.
            state: before the step.
            batch: its rows.

        Returns:
            Parameters and state after it.
        """
        spent = 0
        if self._rung == 0:
            moved, new = step(self._ladder[0], state, params, batch)
            if len(self._ladder) == 1 or new.info.solver_converged:
                self._misses = 0
                return moved, new
            spent = new.info.solver_iterations
            self._miss()
            moved, new = step(self._ladder[1], state, params, batch)
        else:
            moved, new = step(self._ladder[self._rung], state, params, batch)
            if new.info.handed_over:
                self._miss()
            else:
                self._misses = 0
        info = new.info._replace(
            handed_over=jnp.ones_like(new.info.handed_over), solver_iterations=new.info.solver_iterations + spent
        )
        return moved, new._replace(info=info)

    def _miss(self) -> None:
        self._misses += 1
        if self._misses == _PATIENCE and self._rung + 1 < len(self._ladder):
            self._rung, self._misses = self._rung + 1, 0
            solver = getattr(self._ladder[self._rung], "solver", None)
            _LOG.info("conjugate gradients missed their tolerance %d times in a row: %r from here", _PATIENCE, solver)
