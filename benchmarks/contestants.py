"""The models of the comparison of tables, each as a user without special knowledge would set it up.

All take standardised features, and standardised targets where they do not standardise them themselves. A contestant
is a function of the number of rows and the task that gives an unfitted estimator, or None where its cost, which grows
with the cube of the rows, is out of reach.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import loguniform
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from concordax.sklearn import GGNClassifier, GGNRegressor

# A search judges by three folds, from here on by one fifth of the rows alone.
_FOLDS_UP_TO = 5000
# Rows up to which a Gaussian process can be fitted in minutes; of classes, one process a class.
_GAUSSIAN_PROCESS_UP_TO = {True: 8000, False: 2000}
_POINTS = 30
_SPACE = {
    "hidden_layer_sizes": [(50,), (100,), (200,), (100, 100)],
    "activation": ["relu", "tanh"],
    "solver": ["adam", "lbfgs"],
    "alpha": loguniform(1e-6, 1),
    "learning_rate_init": loguniform(1e-4, 3e-2),
    "max_iter": [200, 500],
}


def concordax(rows: int, regression: bool) -> BaseEstimator:
    """The default estimators."""
    del rows
    return GGNRegressor() if regression else GGNClassifier()


def default_network(rows: int, regression: bool) -> BaseEstimator:
    """scikit-learn's network with default settings."""
    del rows
    network = MLPRegressor(random_state=0) if regression else MLPClassifier(random_state=0)
    return _standardised(network, regression)


def searched_network(rows: int, regression: bool) -> BaseEstimator:
    """scikit-learn's network, the best of thirty random settings."""
    from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

    if rows > _FOLDS_UP_TO:
        folds = (ShuffleSplit if regression else StratifiedShuffleSplit)(1, test_size=0.2, random_state=0)
    else:
        folds = (KFold if regression else StratifiedKFold)(3, shuffle=True, random_state=0)
    network = default_network(rows, regression)
    inside = "regressor__" if regression else ""
    step = "mlpregressor__" if regression else "mlpclassifier__"
    space = {inside + step + name: values for name, values in _SPACE.items()}
    scoring = "neg_mean_squared_error" if regression else "accuracy"
    return RandomizedSearchCV(network, space, n_iter=_POINTS, cv=folds, scoring=scoring, random_state=0)


def gaussian_process(rows: int, regression: bool) -> BaseEstimator | None:
    """RBF kernel and noise, tuned by the marginal likelihood."""
    if rows > _GAUSSIAN_PROCESS_UP_TO[regression]:
        return None
    kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(2.0, (1e-2, 1e3))
    if not regression:
        return make_pipeline(StandardScaler(), GaussianProcessClassifier(kernel, random_state=0))
    kernel += WhiteKernel(0.1, (1e-6, 1e2))
    return make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True, random_state=0))


def gradient_boosting(rows: int, regression: bool) -> BaseEstimator:
    """Histogram gradient boosting with default settings."""
    del rows
    return HistGradientBoostingRegressor(random_state=0) if regression else HistGradientBoostingClassifier(
        random_state=0
    )  # fmt: skip


def linear(rows: int, regression: bool) -> BaseEstimator:
    """Ridge or logistic regression, the strength cross-validated."""
    if regression:
        return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-4, 4, 33)))
    folds = 3 if rows > _FOLDS_UP_TO else 5
    return make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(Cs=10, cv=folds, l1_ratios=(0,), max_iter=1000, use_legacy_attributes=False),
    )


def _standardised(network: BaseEstimator, regression: bool) -> BaseEstimator:
    scaled = make_pipeline(StandardScaler(), network)
    return TransformedTargetRegressor(scaled, transformer=StandardScaler()) if regression else scaled


CONTESTANTS: dict[str, Callable[[int, bool], BaseEstimator | None]] = {
    "concordax": concordax,
    "default network": default_network,
    "searched network": searched_network,
    "Gaussian process": gaussian_process,
    "gradient boosting": gradient_boosting,
    "linear": linear,
}
