"""Armijo's rule: the full step, halved until it gains enough."""

import equinox as eqx
import jax.numpy as jnp

from .base import AbstractStep
from .line_search import backtrack, check_trials, outcome, solve


class Backtracking(AbstractStep):
    """α = 1, ½, ¼, ... until F(θ + αδ) ≤ F(θ) − 1e-4 α (−∇Fᵀδ), where −∇Fᵀδ = decrement². F never rises.

    One solve a step; a trial costs a forward pass. δ descends, so that a short enough step gains on any smooth model.
    A trial that is not finite is a refused one.

    Args:
        max_trials: trials a step before it is given up and the parameters stay.

    Raises:
        ValueError: if `max_trials` is not a whole number from 1 up.

    Source: Armijo, Pacific J. Math. 16, 1966.

    Example:
        >>> import concordax as cx, jax
        >>> x = jax.numpy.linspace(-1, 1, 20)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(8,))
        >>> start = model.init(jax.random.key(0))
        >>> args = (model, cx.SquaredError(), cx.L2(), start, (x, x**2))
        >>> history = cx.train(*args, strength=1e-4, step=Backtracking(), max_steps=5).history
        >>> bool((history["objective"][1:] <= history["objective"][:-1]).all())
        True
    """

    max_trials: int = eqx.field(static=True)

    def __init__(self, max_trials: int = 30):
        check_trials("Backtracking", "max_trials", max_trials)
        self.max_trials = max_trials

    def init(self, like):
        """No state."""
        del like
        return ()

    def take(self, local, state):
        """One solve, trials from the full step down."""
        solution = solve(local)
        first = jnp.ones((), local.flat.dtype)
        search = backtrack(local, solution, first, reference=local.objective, max_trials=self.max_trials)
        return outcome(local, solution, search), state
