"""scikit-learn estimators: a network that fits itself to a table, with error bars and nothing to tune."""

from .classifier import GGNClassifier as GGNClassifier
from .regressor import GGNRegressor as GGNRegressor
from .scaling import TableScaler as TableScaler
