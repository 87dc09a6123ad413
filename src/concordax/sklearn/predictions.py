"""What a fitted regressor can be asked: predictions, their distribution, draws, noise, left-out residuals."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..laplace import Posterior
from ..solvers.memory import free_bytes
from .fitted import FittedNetworks
from .networks import mixture
from .tails import degrees_of_freedom, unit_scale
from .targets import TargetScaler
from .wide import WideNetwork

# Of the network of infinite width, where it predicts along.
_WIDE_SHARE = 0.5
# Where the degrees of freedom are kept, beside the posteriors that they come from.
_DEGREES = "degrees of freedom"


class FittedRegression(FittedNetworks):
    """Base of the regressor: the networks' mixture on the scales of the targets, and in their units."""

    _target_scaler: TargetScaler
    _single: bool
    _wide: WideNetwork | None

    @property
    def infinite_width_(self) -> bool:
        """Whether a network of infinite width predicts along, with half the weight."""
        check_is_fitted(self)
        return self._wide is not None

    def _log_units(self) -> float:
        return float(self._sample_weight @ self._target_scaler.log_slope(self._targets).sum(axis=1))

    @property
    def target_is_log_(self) -> bool | np.ndarray:
        """Whether the targets' logarithms are learnt; an array for several targets."""
        check_is_fitted(self)
        return bool(self._target_scaler.is_log_[0]) if self._single else self._target_scaler.is_log_.copy()

    @property
    def noise_(self) -> float | np.ndarray:
        """Standard deviation of the noise, in target units or of the logarithm; an array for several targets."""
        noise = np.sqrt(self._noise_variance()) * self._target_scaler.scale_
        return float(noise[0]) if self._single else noise

    @property
    def loo_residuals_(self) -> np.ndarray:
        """Targets of the training rows of positive weight minus what the linearised networks without them predict.

        No refits: from leverages, after a Newton step without the row. Features that learnt the row stay learnt, so
        these are smaller than the residuals of rows that were held out.
        """
        scaler, (left_out, _) = self._target_scaler, self._left_out()
        residuals = scaler.inverse(self._targets[: len(left_out)]) - scaler.inverse(left_out)
        return residuals[:, 0] if self._single else residuals

    @property
    def degrees_of_freedom_(self) -> float | np.ndarray:
        """Of Student's t, which new observations follow; an array for several targets.

        The likeliest for the training rows' deviations from what the linearised networks without them predict, over
        the standard deviations of that: few where some lie far out, tens where they look normal.
        """
        found = self._degrees_of_freedom()
        return float(found[0]) if self._single else found.copy()

    def _degrees_of_freedom(self) -> np.ndarray:
        """Those of each target [c]; found at the first need after a fit or a load."""
        check_is_fitted(self)
        cache = self.__dict__.setdefault("_cache", {})
        if _DEGREES not in cache:
            left_out, covariance = self._left_out()
            count = len(left_out)
            # Of targets without any noise the variance is zero, and so are the deviations.
            std = np.maximum(np.sqrt(np.einsum("iaa->ia", covariance)), np.finfo(float).tiny)
            deviations, weights = (self._targets[:count] - left_out) / std, self._sample_weight[:count]
            cache[_DEGREES] = np.array([degrees_of_freedom(z, weights) for z in deviations.T])
        return cache[_DEGREES]

    def _left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """What is predicted for the training rows of positive weight without the row, and its covariance with noise."""
        count = np.count_nonzero(self._sample_weight)
        return self._mixture(lambda member: tuple(part[:count] for part in member.left_out()), noise=True)

    def _noise_variance(self) -> float:
        """The mixture's, which is the members' mean."""
        with self._computation():
            return float(np.dot(self._shares(), [float(member.noise_variance) for member in self._members()]))

    def _shares(self) -> np.ndarray:
        """Of the members in the mixture: the networks', and that of the one of infinite width where there is one."""
        check_is_fitted(self)
        count, wide = len(self.networks_), 0.0 if self._wide is None else _WIDE_SHARE
        return np.array([(1 - wide) / count] * count + [wide] * (wide > 0))

    def _members(self) -> Iterator[Posterior | WideNetwork]:
        """Who predicts, one at a time; call it within `_computation`."""
        yield from self._posteriors()
        if self._wide is not None:
            yield self._wide

    def _mean(self, x: np.ndarray) -> np.ndarray:
        """The mixture's mean [m, c], scaled, without the posteriors."""
        outputs = self._outputs(x)
        if self._wide is not None:
            with self._computation():
                outputs = np.concatenate([outputs, self._wide.outputs(x)[None]])
        return np.tensordot(self._shares(), outputs, 1)

    def predict(self, X, return_std: bool = False, return_cov: bool = False, observation_noise: bool = True):
        """The mean [m] or [m, c], the median where logarithms are learnt, and how sure it is.

        Args:
            X: rows [m, d].
            return_std: also return the standard deviation of a new observation, in target units. Of a log-normal one,
                `predict_distribution` has the intervals.
            return_cov: also return the joint covariance over the rows, [m, m], or [m, m, c] for several targets.
            observation_noise: False leaves the noise out: the uncertainty of the network's output alone.

        Returns:
            The mean; (mean, standard deviation); or (mean, covariance).

        Raises:
            ValueError: if both `return_std` and `return_cov` are asked for.
        """
        if return_std and return_cov:
            raise ValueError("`predict(return_std=True, return_cov=True)`: one of the two; std is √diag of cov.")
        x, scaler = self._inputs(X), self._target_scaler
        if not (return_std or return_cov):
            return self._one(scaler.inverse(self._mean(x)))
        if return_std:
            outputs, variance = self._moments(x, noise=observation_noise)
            return self._one(scaler.inverse(outputs)), self._one(scaler.std(outputs, variance))
        outputs, joint = self._joint(x, noise=observation_noise)
        joint = np.einsum("iaja->ija", joint)
        return self._one(scaler.inverse(outputs)), self._one(scaler.covariance(outputs, joint))

    def predict_distribution(self, X, *, observation_noise: bool = True, parameter_uncertainty: bool = True):
        """The distribution of a new observation, row by row.

        Student's t with `degrees_of_freedom_`, the mean and the standard deviation of `predict`; of the logarithm where
        that is learnt. Without the noise, what the networks do not know: normal.

        Args:
            X: rows [m, d].
            observation_noise: False leaves the noise out.
            parameter_uncertainty: False leaves out what the networks do not know.

        Returns:
            A frozen distribution of SciPy over m rows, with `interval(0.95)`, `ppf`, `logpdf(y)` and more; a list of
            them for several targets.

        Raises:
            ValueError: if nothing would be left.

        Example:
            >>> from concordax.sklearn import GGNRegressor
            >>> x = np.linspace(0, 2, 40)[:, None]
            >>> model = GGNRegressor(hidden_widths=(10,), target_scale="log").fit(x, np.exp(x[:, 0]))
            >>> low, high = model.predict_distribution([[1.0]]).interval(0.95)
            >>> bool(0 < low[0] < np.e < high[0])
            True
        """
        if not (observation_noise or parameter_uncertainty):
            raise ValueError(
                "`predict_distribution(observation_noise=False, parameter_uncertainty=False)`: a point is no "
                "distribution; leave one of them, or call `predict`."
            )
        x = self._inputs(X)
        if parameter_uncertainty:
            outputs, variance = self._moments(x, noise=observation_noise)
        else:
            outputs = self._mean(x)
            variance = np.full(outputs.shape, self._noise_variance())
        std = np.sqrt(variance)
        shapes = self._degrees_of_freedom() if observation_noise else np.full(outputs.shape[1], np.inf)
        found = [self._target_scaler.distribution(column, outputs[:, column], std[:, column], shape)
                 for column, shape in enumerate(shapes)]  # fmt: skip
        return found[0] if self._single else found

    def _moments(self, x: np.ndarray, *, noise: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance [m, c] of the scaled outputs, or with the noise of new observations."""
        outputs, covariance = self._mixture(lambda member: member.predict(jnp.asarray(x)), noise=noise)
        return outputs, np.einsum("iaa->ia", covariance)

    def _mixture(self, moments: Callable[[Any], Any], *, noise: bool) -> tuple[np.ndarray, np.ndarray]:
        """The mixture of the members' moments, with the noise of each or without; each posterior is made once."""

        def each() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for member in self._members():
                mean, covariance = (np.asarray(moment, np.float64) for moment in moments(member))
                variance = float(member.noise_variance) if noise else 0.0
                yield mean, covariance + variance * np.eye(covariance.shape[-1])

        with self._computation():
            return mixture(each(), self._shares())

    def sample_y(self, X, n_samples: int = 1, random_state=0, observation_noise: bool = True) -> np.ndarray:
        """Draws from the predictive distribution, jointly over the rows: of functions, normal, plus noise, Student's t.

        Args:
            X: rows [m, d].
            n_samples: draws.
            random_state: seed.
            observation_noise: False draws functions, True (the default) new observations.

        Returns:
            [m, n_samples], or [m, c, n_samples] for several targets, in target units.
        """
        x = self._inputs(X)
        outputs, joint = self._joint(x, noise=False)
        rows, columns = outputs.shape
        values, vectors = np.linalg.eigh(joint.reshape(rows * columns, rows * columns))
        rng = check_random_state(random_state)
        normal = rng.standard_normal((rows * columns, n_samples))
        draws = (vectors * np.sqrt(np.maximum(values, 0.0))) @ normal
        draws = outputs[:, :, None] + draws.reshape(rows, columns, n_samples)
        if observation_noise:
            shape = self._degrees_of_freedom()[:, None]
            scale = np.sqrt(self._noise_variance()) * unit_scale(shape)
            draws += scale * rng.standard_t(shape, size=draws.shape)
        draws = np.swapaxes(self._target_scaler.inverse(np.swapaxes(draws, 1, 2)), 1, 2)
        return draws[:, 0] if self._single else draws

    def _joint(self, x: np.ndarray, *, noise: bool) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [m, c] and their covariance [m, c, m, c], or with the noise that of new observations.

        Raises:
            MemoryError: where that does not fit.
        """
        # The covariance, its symmetric half, and what eigenvalues and units take.
        needed, free = 32 * (len(x) * self._targets.shape[1]) ** 2, free_bytes()
        if needed > 0.5 * free:
            raise MemoryError(
                f"the joint covariance of {len(x)} rows takes {needed / 1e9:.3g} GB; {0.5 * free / 1e9:.3g} GB may be "
                "used. Ask for fewer rows, or for `return_std=True`, which takes a number a row."
            )
        shape = (len(x), self._targets.shape[1])

        def flat(member: Posterior | WideNetwork):
            outputs, joint = member.joint(jnp.asarray(x))
            return outputs.ravel(), joint.reshape(outputs.size, outputs.size)

        outputs, joint = self._mixture(flat, noise=noise)
        return outputs.reshape(shape), joint.reshape(*shape, *shape)

    def _one(self, values: np.ndarray) -> np.ndarray:
        """The only target's values, where there is one."""
        return values[..., 0] if self._single else values
