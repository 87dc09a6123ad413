"""`Monitor`: the kernel of a run while it trains, within a share of the run's time."""

import time
from typing import Any

import numpy as np

from .._types import Batch
from ..observers import Observer, RunView
from . import measures

FIELDS = (
    "step",
    "strength",
    "largest",
    "smallest",
    "condition",
    "shifted_condition",
    "effective_dimension",
    "alignment",
    "drift",
    "linearization_error",
    "invariance",
)


class Monitor(Observer):
    """Watches the kernel K = W H⁻¹ Wᵀ of the steps, H the regularizer's Hessian, while `train` runs.

    A kernel that stays is training by kernel regression; one that moves learns features. Measured are at the start
    (step 0), every so many steps, and at the end:

        largest, smallest       eigenvalues λ₁, λ_N of K
        condition               λ₁/λ_N, infinite where λ_N is within rounding of zero (always so for softmax, whose K
                                is singular)
        shifted_condition       (λ₁ + τ)/(λ_N + τ), that of the system at the run's strength τ
        effective_dimension     tr K (K + τI)⁻¹
        alignment               ⟨K, yyᵀ⟩/(‖K‖ ‖y‖²), y the encoded targets less their means; NaN if they are all equal
        drift                   ‖K − K₀‖/‖K₀‖ in Frobenius norms, K₀ the kernel at the start
        linearization_error     ‖f(θ + δ) − f(θ) − Jδ‖/‖Jδ‖ of the last step δ; NaN at the start and for a step that
                                was refused. In float32 it cannot fall below about 1e-7 ‖f‖/‖Jδ‖.
        invariance              the T-I measure: the share of hidden units times rows whose pre-activation has the sign
                                it had at the start. For relu it says how much of the network is still the same
                                linear map of each row; NaN for a model that shows no layers.

    All of that on a fixed subset, evenly spaced rows of the data, or of a stream's first batch, whose weight is not
    zero. K is that of the subset, its rows scaled by √(w/Σw) over the subset: its eigenvalues estimate those of the
    operator (K/n of all rows), the large ones well, while the smallest ones and the effective dimension are those of
    a problem with so many rows. The condition is too low by what the rows that are left out would add.

    The monitor keeps account of its own time, compilation included, and measures only when all its measurements, the
    next one included, are then within `share` of the time since the start; 1 never waits. The first measurement,
    without which there is no drift, and the one at the end, without which a short run would show nothing, do not wait,
    but their time counts: a run that lasts less than 1/share times the first measurement (0.3 to 1 s, nearly all of it
    compilation) has two of them and a larger share. A run that goes on from the state where the last one ended goes on
    in the history, on the same rows and against the same start; any other begins anew.

    Args:
        every: steps between two measurements at least.
        rows: numbers of output, rows times outputs, of the subset at most. One row is taken in any case.
        share: of the run's time, at most.

    Raises:
        ValueError: for numbers out of range.

    Source: alignment: Cristianini et al., "On kernel-target alignment", NIPS 2001. T-I measure: arXiv 2404.14875.

    Example:
        >>> import concordax as cx, jax
        >>> from concordax import ntk
        >>> x = jax.numpy.linspace(-1, 1, 20)[:, None]
        >>> model = cx.MLP(inputs=1, widths=(5,))
        >>> parts = model, cx.SquaredError(), cx.L2(), model.init(jax.random.key(0))
        >>> monitor = ntk.Monitor(every=2, share=1.0)
        >>> result = cx.train(*parts, (x, x**2), strength=1e-6, max_steps=5, callbacks=[monitor])
        >>> monitor.history["step"].tolist()
        [0, 2, 4, 5]
        >>> bool(monitor.history["drift"][0] == 0)
        True
    """

    def __init__(self, every: int = 10, *, rows: int = 256, share: float = 0.05):
        for name, value in (("every", every), ("rows", rows)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"`Monitor({name}={value!r})`: must be a whole number from 1 up.")
        if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share <= 1:
            raise ValueError(
                f"`Monitor(share={share!r})`: must be a number above 0 and up to 1, the part of the run's time that "
                "measurements may take."
            )
        self.every, self.rows, self.share = int(every), int(rows), float(share)
        self._forget()

    def _forget(self) -> None:
        self._records: list[dict[str, float]] = []
        self._batch: Batch | None = None
        self._kernel = np.zeros((0, 0))
        self._signs: tuple[np.ndarray, ...] = ()
        self._targets = np.zeros(0)
        self._steps = 0
        self._spent = self._elapsed = self._expected = 0.0
        self._last_state: Any = None

    @property
    def history(self) -> dict[str, np.ndarray]:
        """What was measured: 1-d arrays of the same length, "step" first; empty before a run."""
        return {
            name: np.array([record[name] for record in self._records], int if name == "step" else float)
            for name in FIELDS
        }

    @property
    def seconds(self) -> float:
        """The time that measurements took, compilation included."""
        return self._spent

    def begin(self, view: RunView) -> None:
        """Picks the rows and measures the start, or goes on from the state where the last run ended."""
        goes_on = self._last_state is not None and int(view.state.step) == int(self._last_state.step)
        now = time.perf_counter()
        if not goes_on:
            self._forget()
        # The pause between two runs is no time of a run.
        self._before, self._started = self._steps, now - self._elapsed
        if not goes_on:
            self._batch = measures.subset(view.sample, self.rows)
            self._targets = measures.centred_targets(self._batch)
            self._measure(view, now)
            # Nearly all of that was compilation: it says nothing of what the next one takes.
            self._expected = 0.0

    def observe(self, view: RunView) -> None:
        """Measures after a step, where one is due and the time allows it."""
        now = time.perf_counter()
        self._note(view, now)
        due = self._steps >= self._records[-1]["step"] + self.every
        # Time for this one, and for that of the last step.
        coming = 2 * self._expected
        if due and self._spent + coming <= self.share * (self._elapsed + coming):
            self._measure(view, now)

    def end(self, view: RunView) -> None:
        """Measures the last step, unless that has been done."""
        if self._records[-1]["step"] != self._steps:
            self._measure(view, time.perf_counter())

    def _note(self, view: RunView, now: float) -> None:
        self._steps, self._elapsed, self._last_state = self._before + view.step, now - self._started, view.state

    def _measure(self, view: RunView, begun: float) -> None:
        assert self._batch is not None, "begin has picked rows"
        parts = view.algorithm.model, view.algorithm.loss, view.algorithm.regularizer
        sighting = measures.sight(*parts, view.params, view.previous, self._batch)
        kernel = measures.symmetric(sighting.gram)
        if not self._records:
            self._kernel, self._signs = kernel, sighting.signs
        self._records.append(self._figures(kernel, sighting, float(view.state.info.strength)))
        self._expected = time.perf_counter() - begun
        self._spent += self._expected

    def _figures(self, kernel: np.ndarray, sighting: measures.Sighting, strength: float) -> dict[str, float]:
        found: dict[str, float] = dict.fromkeys(FIELDS, np.nan) | {"step": float(self._steps), "strength": strength}
        if not np.all(np.isfinite(kernel)):
            # LAPACK raises for them; a diagnosis must not end the run.
            return found
        found |= measures.spectrum(kernel, strength, float(np.finfo(sighting.gram.dtype).eps))
        found["alignment"] = measures.alignment(kernel, self._targets)
        found["drift"] = measures.drift(kernel, self._kernel)
        found["linearization_error"] = measures.linearization_error(sighting.moved, sighting.predicted)
        found["invariance"] = measures.invariance(sighting.signs, self._signs)
        return found
