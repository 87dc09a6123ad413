"""Which program takes a step: the cheapest first, those behind it where its solver misses its tolerance."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from .first_order import FirstOrder
from .optimizer import Algorithm, GGNState
from .solvers import AbstractSolver

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
        self._solvers: list[AbstractSolver] = []
        self.first = algorithm
        if isinstance(algorithm, Algorithm):
            self._solvers = [algorithm.solver.alone]
            behind = algorithm.solver.backup
            while behind != self._solvers[-1]:
                self._solvers.append(behind)
                behind = behind.backup
            self.first = replace(algorithm, solver=self._solvers[0])
        self._ladder = [self.first.parametrized()]
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
            if len(self._solvers) < 2 or new.info.solver_converged:
                self._misses = 0
                return moved, new
            spent = new.info.solver_iterations
            self._miss()
            moved, new = step(self._at(1), state, params, batch)
        else:
            moved, new = step(self._at(self._rung), state, params, batch)
            if new.info.handed_over:
                self._miss()
            else:
                self._misses = 0
        info = new.info._replace(
            handed_over=jnp.ones_like(new.info.handed_over), solver_iterations=new.info.solver_iterations + spent
        )
        return moved, new._replace(info=info)

    def _at(self, rung: int) -> Algorithm | FirstOrder:
        """The algorithm on a rung, made when it is first needed: three took a millisecond of every run."""
        for solver in self._solvers[len(self._ladder) : rung + 1]:
            self._ladder.append(replace(self._ladder[0], solver=solver))
        return self._ladder[rung]

    def _miss(self) -> None:
        self._misses += 1
        if self._misses == _PATIENCE and self._rung + 1 < len(self._solvers):
            self._rung, self._misses = self._rung + 1, 0
            solver = self._solvers[self._rung]
            _LOG.info("conjugate gradients missed their tolerance %d times in a row: %r from here", _PATIENCE, solver)
