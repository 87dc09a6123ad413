"""What looks at a run from within: an `Observer` sees parameters, rows and parts where a callback sees numbers."""

from typing import Any, NamedTuple

from jaxtyping import PyTree

from ._types import Batch


class RunView(NamedTuple):
    """A run after a step, or before the first.

    Attributes:
        step: steps taken in this run; 0 before the first.
        record: what a callback sees; empty before the first step.
        params: the parameters.
        previous: those before the step, the same ones where it was refused or none was taken.
        batch: the rows of the step; before the first those of `sample`.
        sample: rows that stay the same over the run: all of them, or the first batch of a stream.
        algorithm: the parts as attributes `model`, `loss`, `regularizer`, and more for Gauss-Newton steps.
        state: the optimizer's state; `state.info.strength` is τ.
        shown: the parameters to judge: `params`, or the mean of late iterates where the rule keeps one.
    """

    step: int
    record: dict[str, float]
    params: PyTree
    previous: PyTree
    batch: Batch
    sample: Batch
    algorithm: Any
    state: Any
    shown: PyTree


class Observer:
    """Base of what is called with views of a run; an instance goes among the `callbacks` of `train`.

    A subclass overrides what it needs. What it is shown must not be changed, and costs nothing: the arrays are those of
    the run.

    Example:
        >>> import concordax as cx, jax, jax.numpy as jnp
        >>> class Distance(cx.Observer):
        ...     def begin(self, view):
        ...         self.start, self.moved = view.params, []
        ...     def observe(self, view):
        ...         difference = jax.tree.map(jnp.subtract, view.params, self.start)
        ...         self.moved.append(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(difference)))
        >>> x = jnp.linspace(-1, 1, 20)[:, None]
        >>> model, watcher = cx.MLP(inputs=1, widths=(5,)), Distance()
        >>> parts = model, cx.SquaredError(), cx.L2(), model.init(jax.random.key(0))
        >>> result = cx.train(*parts, (x, x**2), strength=1e-6, max_steps=2, callbacks=[watcher])
        >>> len(watcher.moved), watcher.moved[1] > 0
        (2, True)
    """

    def begin(self, view: RunView) -> None:
        """Called before the first step."""

    def observe(self, view: RunView) -> bool | None:
        """Called after each step; True ends the run."""

    def end(self, view: RunView) -> None:
        """Called with the last view, unless Ctrl-C or an exception ended the run."""
