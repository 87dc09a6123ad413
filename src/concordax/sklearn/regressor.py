"""A network for a table of numbers, with error bars."""

from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_sample_weight, validate_data

from ..losses import PseudoHuberLoss, SquaredError
from . import defaults
from .base import GGNEstimator
from .predictions import FittedRegression
from .scaling import TableScaler
from .targets import SCALES, TargetScaler
from .weights import check_some_weight
from .wide import WideNetwork

# Of the pseudo-Huber loss, in standard deviations of the targets' bulk: what a network that explains three quarters of
# the variance leaves is half a deviation.
_OUTLIER_SCALE = 0.5


class GGNRegressor(RegressorMixin, FittedRegression, GGNEstimator):
    """A network for a table of numbers, with nothing to tune and with error bars.

    Inputs and targets are scaled inside; a tanh network in NTK scaling is trained by trust-region Gauss-Newton steps,
    its strength τ chosen by the Laplace evidence. Minimises (1/Σw) Σ w ℓ(f(x), y) + τ g(θ). On tables that are not
    large a few networks of different starts, the first of which chooses for all, predict as their mixture: their mean,
    with the mean of their variances and the variance of their means.

    Args:
        hidden_widths: units of each hidden layer, or "auto": one layer with a unit for 50 rows, between 100 and 300.
        n_networks: how many networks predict together, or "auto": five up to 500 numbers of output (rows × targets),
            then fewer, two from 834 on; but one from 5,000 to 10,000 and beyond 30,000 rows, where each takes its time.
        infinite_width: whether a network of infinite width, which is regression with its tangent kernel, predicts along
            with half the weight; or "auto": up to 3,000 rows, if `hidden_widths` and the strength are left to the
            data, where it errs no more than the networks on training rows that are left out. Needs squared error.
        target_scale: "linear"; "log", which learns the logarithms of positive targets and predicts medians, with error
            bars in proportion to them; or "auto", a column at a time: logarithms of positive targets where a linear
            regression explains them clearly better than the targets, by its evidence.
        loss: "squared_error", or "pseudo_huber" for targets with outliers.
        activation: tanh, silu, relu, gelu, erf, linear, or a function on arrays.
        regularizer: "pseudo_huber" with μ = √width, or "l2".
        strength: "evidence"; "loo" or "gcv" (leave-one-out or generalized cross-validation of the linearised network);
            "held_out": a tenth of the rows choose it along a path, and when to stop; "auto", the evidence up to 10,000
            numbers of output and "held_out" beyond; or a positive number.
        max_steps: steps at most.
        tolerance: relative decrease below which, three steps in a row, the fit has converged.
        batch_size: rows a step, of which there are then `max_steps`; None for all. Needs a number as strength.
        random_state: seed of the initial weights.
        dtype: "float64", "float32", or "auto": float64 up to 20,000 numbers of output.
        warm_start: whether a second `fit` goes on from what the first one left.
        verbose: draw a progress bar.
        callback: called as callback(step, record) after each step of each network, whose number from 1 is
            record["network"]; returning True ends the fit with the networks that are there. Or an `Observer`, as
            `ntk.Monitor()`, which sees the first network; or a list of both.

    Attributes:
        networks_: a list of networks, each a list of layers (weight [d_out, d_in], bias [d_out]), on scaled inputs.
        infinite_width_: whether a network of infinite width predicts along.
        strengths_: the strength that each network ended with, [k].
        noise_: standard deviation of the noise, in target units, or of the logarithm where that is learnt; an array
            for several targets.
        target_is_log_: whether logarithms are learnt; an array for several targets.
        loo_residuals_: target minus its prediction by the linearised networks without the row, [n] or [n, c].
        degrees_of_freedom_: of Student's t, which new observations follow; an array for several targets.
        seconds_: of the whole fit.
        strength_: of the first network, like all that follows.
        effective_parameters_: γ, of `n_parameters_`.
        log_evidence_: of Laplace's approximation, in nats.
        n_steps_, status_, history_: its run.
        best_step_: steps taken when the parameters that were kept were reached.

    Raises:
        ValueError: for data or parameters out of range.

    Source: arXiv 2404.14875 (the steps); MacKay, Neural Computation 4(3), 1992 (strength and error bars).

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-3, 3, 60)[:, None]
        >>> model = GGNRegressor(hidden_widths=(20,)).fit(x, np.sin(x[:, 0]))
        >>> mean, std = model.predict([[0.5], [9.0]], return_std=True)
        >>> bool(abs(mean[0] - np.sin(0.5)) < 0.05 and std[1] > std[0])
        True
    """

    _parameter_constraints: ClassVar[dict] = {
        **GGNEstimator._parameter_constraints,
        "infinite_width": [StrOptions({"auto"}), "boolean"],
        "target_scale": [StrOptions(set(SCALES))],
        "loss": [StrOptions({"squared_error", "pseudo_huber"})],
    }

    def __init__(
        self,
        hidden_widths: Any = "auto",
        *,
        n_networks="auto",
        infinite_width="auto",
        target_scale="auto",
        loss="squared_error",
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
        super().__init__(
            hidden_widths,
            n_networks=n_networks,
            activation=activation,
            regularizer=regularizer,
            strength=strength,
            max_steps=max_steps,
            tolerance=tolerance,
            batch_size=batch_size,
            random_state=random_state,
            dtype=dtype,
            warm_start=warm_start,
            verbose=verbose,
            callback=callback,
        )
        self.infinite_width = infinite_width
        self.target_scale = target_scale
        self.loss = loss

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> "GGNRegressor":
        """Fits to X [n, d] and y [n] or [n, c]; a row of weight 2 counts twice, one of weight 0 not at all."""
        X, targets, weights = self._checked(X, y, sample_weight, reset=True)
        go_on = self.warm_start and self.__sklearn_is_fitted__() and self._fits_on(X, targets[weights > 0])
        if not go_on:
            self._scaler = TableScaler().fit(X, sample_weight=weights)
        x = self._scaler.transform(X)
        if not go_on:
            self._target_scaler = self._scale_of(targets, weights, x, self.target_scale)
        self._reservoir = None
        self._train(x, self._target_scaler.transform(targets), weights, go_on=go_on)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None) -> "GGNRegressor":
        """Takes more rows of a stream, and goes on training from where the last call, of `fit` too, ended.

        Trains on all rows seen so far up to 5000, beyond that on a uniform sample of 5000 of them. Scales are those of
        the first call, whose rows should therefore be typical. `target_scale="auto"` is "linear" here: that the first
        rows are positive does not say that all will be.

        Raises:
            ValueError: also for targets that are not positive where logarithms are learnt.
        """
        first = not self.__sklearn_is_fitted__()
        X, targets, weights = self._checked(X, y, sample_weight, reset=first)
        if first:
            self._scaler = TableScaler().fit(X, sample_weight=weights)
        x = self._scaler.transform(X)
        if first:
            scale = "linear" if self.target_scale == "auto" else self.target_scale
            self._target_scaler = self._scale_of(targets, weights, x, scale)
        elif not self._target_scaler.fits(targets[weights > 0]):
            raise ValueError(
                f"`y` holds {targets[weights > 0].min():.6g}, and the fit that this goes on from learnt logarithms, "
                'which need positive numbers: begin again with `target_scale="linear"`.'
            )
        self._train_on_stream(x, self._target_scaler.transform(targets), weights)
        return self

    def _checked(self, X, y, sample_weight, *, reset: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.infinite_width is True and self.loss != "squared_error":
            raise ValueError(
                f"`infinite_width=True` with `loss={self.loss!r}`: in infinite width only squared error is solved; use "
                'infinite_width="auto" or False.'
            )
        options = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2 if reset else 1}
        X, y = validate_data(self, X, y, dtype=np.float64, reset=reset, **options)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True, dtype=np.float64)
        check_some_weight(weights, type(self).__name__)
        if reset:
            self._single = y.ndim == 1
        return X, y.reshape(len(y), -1).astype(np.float64), weights

    def _fits_on(self, X: np.ndarray, targets: np.ndarray) -> bool:
        same = self.target_scale in ("auto", self._target_scaler.scale)
        return same and len(self._scaler.scale_) == X.shape[1] and self._target_scaler.fits(targets)

    def _scale_of(self, targets: np.ndarray, weights: np.ndarray, x: np.ndarray, scale: str) -> TargetScaler:
        return TargetScaler(scale, robust=self.loss == "pseudo_huber").fit(targets, weights, x)

    def _after_training(self, way: str | float) -> None:
        """Has a network of infinite width predict along if it is wanted, or where it errs no more on rows left out.

        The trained networks have learnt their features with the row, and are flattered: what errs no more is as good.
        """
        self._wide = None
        count = int(np.count_nonzero(self._sample_weight))
        rows, targets, weights = (part[:count] for part in (self._rows, self._targets, self._sample_weight))
        wanted = defaults.tries_infinite_width(
            self.infinite_width, self.hidden_widths, way, float(max(weights.sum(), count))
        )
        if not wanted or self.loss != "squared_error" or not self.status_.succeeded:
            return
        with self._computation():
            wide = WideNetwork(rows, targets, weights)
            mine, theirs = (weights @ (targets - found[:count]) ** 2
                            for found in (wide.left_out()[0], self._left_out()[0]))  # fmt: skip
        if self.infinite_width is True or mine.sum() <= theirs.sum():
            self._wide = wide

    def _make_loss(self):
        return SquaredError() if self.loss == "squared_error" else PseudoHuberLoss(_OUTLIER_SCALE)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
