"""What regressor and classifier share: parameters, training, streams."""

import time
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from ..history import TrainResult
from ..models import ACTIVATIONS, MLP, DenseLayer
from ..observers import Observer
from . import defaults
from .fitted import FittedNetworks
from .held_out import Rows
from .networks import starts_and_keys, train_networks
from .reservoir import Reservoir

# Rows that a stream is remembered by.
RESERVOIR_ROWS = 5000


class GGNEstimator(FittedNetworks):
    """Base of the estimators; they say what they learn from, this trains."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_widths": [StrOptions({"auto"}), "array-like"],
        "n_networks": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "regularizer": [StrOptions(set(defaults.REGULARIZERS))],
        "strength": [StrOptions(set(defaults.STRENGTHS)), Interval(Real, 0, None, closed="neither")],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "tolerance": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "dtype": [StrOptions({"auto", "float32", "float64"})],
        "warm_start": ["boolean"],
        "verbose": ["boolean"],
        "callback": [callable, Observer, list, None],
    }

    def __init__(
        self,
        hidden_widths: Any = "auto",
        *,
        n_networks="auto",
        activation="tanh",
        regularizer="pseudo_huber",
        strength="auto",
        max_steps=70,
        tolerance=1e-4,
        batch_size=None,
        random_state=0,
        dtype="auto",
        warm_start=False,
        verbose=False,
        callback=None,
    ):
        self.hidden_widths = hidden_widths
        self.n_networks = n_networks
        self.activation = activation
        self.regularizer = regularizer
        self.strength = strength
        self.max_steps = max_steps
        self.tolerance = tolerance
        self.batch_size = batch_size
        self.random_state = random_state
        self.dtype = dtype
        self.warm_start = warm_start
        self.verbose = verbose
        self.callback = callback

    def _train(self, x: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, go_on: bool) -> None:
        """Trains on scaled inputs and encoded targets [n, c]; sets what a fit learns.

        With `go_on`, from the parameters and the strength that an earlier fit left.
        """
        start = time.perf_counter()
        if self.batch_size is not None and isinstance(self.strength, str):
            raise ValueError(
                f"`batch_size={self.batch_size!r}` with `strength={self.strength!r}`: the strength is chosen by all "
                "rows; pass a number as strength, or batch_size=None."
            )
        x, targets, weights = (part[weights > 0] for part in (x, targets, weights))
        # A row of weight 2 is two rows, for every choice by size too.
        rows, outputs = float(weights.sum()), targets.shape[1]
        count, go_on = self._set_up(x.shape[1], outputs, rows, go_on=go_on)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._rows, self._targets, self._sample_weight = defaults.padded(x, targets, weights)
        with self._computation():
            starts, keys = starts_and_keys(partial(_init, self._model), seed, count)
            if go_on:
                starts = [self._params(number) for number in range(count)]
            way = defaults.way_of(self.strength, rows * outputs)
            found = train_networks(
                (self._model, self._make_loss(), defaults.regularizer(self.regularizer, self._units)), starts, keys,
                Rows(x.astype(self._dtype), targets.astype(self._dtype), weights),
                strength=defaults.strength(way, self.strength_ if go_on else None, rows),
                step=defaults.step(), max_steps=self.max_steps,
                tolerance=self.tolerance, batch_size=self.batch_size, callbacks=self._callbacks(),
                progress=bool(self.verbose),
            )  # fmt: skip
            self.networks_ = [[(np.asarray(w), np.asarray(b)) for w, b in params] for params in found.params]
        self.strengths_ = np.array(found.strengths)
        self._learnt(found.first)
        self._after_training(way)
        self.seconds_ = time.perf_counter() - start

    def _set_up(self, inputs: int, outputs: int, rows: float, *, go_on: bool) -> tuple[int, bool]:
        """Sets model and type; returns the number of networks, and whether those of an earlier fit can go on.

        What was chosen by size stays as it was where a fit goes on.
        """
        units = self._units if go_on and isinstance(self.hidden_widths, str) else None
        count = len(self.networks_) if go_on and isinstance(self.n_networks, str) else None
        units = defaults.widths(self.hidden_widths, rows) if units is None else units
        count = defaults.networks(self.n_networks, rows, rows * outputs) if count is None else count
        model = MLP(inputs, units, outputs, activation=self.activation)
        go_on = go_on and self._model == model and len(self.networks_) == count
        self._model, self._units, self._dtype = model, units, defaults.precision(self.dtype, rows * outputs)
        return count, go_on

    def _learnt(self, run: TrainResult) -> None:
        """Sets what the first network's run says."""
        self.strength_ = run.best_strength
        self.n_parameters_ = int(sum(w.size + b.size for w, b in self.networks_[0]))
        self.n_steps_ = len(run.history["loss"])
        self.n_iter_ = self.n_steps_
        self.best_step_ = run.best_step
        self._status, self.history_ = int(run.status), run.history
        self._cache: dict[int | str, Any] = {}

    def _after_training(self, way: str | float) -> None:
        """What else a fit has to do; `way` is how the strength was found."""

    def _train_on_stream(self, x: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> None:
        """Adds scaled rows and encoded targets to what is remembered of a stream, and trains on that."""
        go_on, reservoir = self.__sklearn_is_fitted__(), getattr(self, "_reservoir", None)
        if reservoir is None:
            reservoir = Reservoir(RESERVOIR_ROWS, seed=0)
            if go_on:
                # A fit came before: its rows are the beginning of the stream.
                present = self._sample_weight > 0
                reservoir.add(self._rows[present], self._targets[present], self._sample_weight[present])
        reservoir.add(x, targets, weights)
        x, targets, weights = reservoir.rows
        self._train(x, targets, weights, go_on=go_on)
        self._reservoir = reservoir

    def _callbacks(self) -> list:
        if self.callback is None:
            return []
        return list(self.callback) if isinstance(self.callback, list) else [self.callback]

@eqx.filter_jit
def _init(model: MLP, key: PRNGKeyArray) -> tuple[DenseLayer, ...]:
    # One program: op by op, each layer's normals are compiled by themselves, for longer than all together.
    return model.init(key)
