"""scikit-learn's MLP: L-BFGS, and Adam at a few rates, on a network of the same widths."""

import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from workloads import Workload

from .trace import Trace, runner

PACKAGES = ("scikit-learn", "numpy")
NOTE = (
    "its own network (biases, no scaling by the width, its own start; tanh for silu, which it lacks) and its own "
    "objective (mean of half squared error or cross-entropy, L2 of strength 0)"
)
_ACTIVATIONS = {"silu": "tanh", "relu": "relu", "tanh": "tanh"}


def settings(workload: Workload) -> list[dict]:
    """Its two methods."""
    del workload
    return [{"solver": "lbfgs", "rate": None}, *({"solver": "adam", "rate": rate} for rate in (1e-3, 1e-2))]


def prepare(workload: Workload, solver: str, rate: float | None):
    """See `peers`."""
    x, y = np.array(workload.inputs), np.array(workload.targets)
    labels = y.argmax(axis=1) if workload.is_classification else y.squeeze()
    kind = MLPClassifier if workload.is_classification else MLPRegressor
    shared = {
        "hidden_layer_sizes": tuple(len(layer.weight) for layer in workload.start[:-1]),
        "activation": _ACTIVATIONS[workload.model.activation], "alpha": 0.0, "random_state": 0,
    }  # fmt: skip

    def loss(model) -> float:
        if workload.is_classification:
            # A class without rows has no column.
            columns = np.searchsorted(model.classes_, labels)
            return -float(np.mean(np.log(np.maximum(model.predict_proba(x)[range(len(x)), columns], 1e-300))))
        return 0.5 * float(np.mean(np.sum((model.predict(x).reshape(y.shape) - y) ** 2, axis=1)))

    def adam():
        return kind(**shared, solver="adam", learning_rate_init=rate)

    def advance(model, count):
        classes = {"classes": np.unique(labels)} if workload.is_classification else {}
        for _ in range(count):
            model.partial_fit(x, labels, **classes)
        return model

    if solver == "adam":
        return runner(advance, lambda: advance(adam(), 1), loss, workload)

    def run(limit: float) -> Trace:
        # Its L-BFGS cannot be watched or resumed: each point is a run of its own, from the start, with a larger budget.
        trace, budget = Trace(), 1
        trace.add(0.0, _untrained(), 0)
        while not trace.ended(workload, limit):
            model = kind(**shared, solver="lbfgs", max_iter=budget, max_fun=10**9, tol=0.0)
            start = time.perf_counter()
            model.fit(x, labels)
            trace.add(time.perf_counter() - start, loss(model), model.n_iter_)
            if model.n_iter_ < budget:
                break
            budget = int(np.ceil(1.5 * budget))
        return trace

    def _untrained() -> float:
        return loss(advance(kind(**shared, solver="adam", learning_rate_init=1e-300), 1))

    warnings.simplefilter("ignore", ConvergenceWarning)
    return run
