"""torch-levenberg-marquardt: the Gauss-Newton step from the whole Jacobian, accepted if the loss falls."""

import numpy as np
import torch
from torch_levenberg_marquardt.damping import StandardDampingStrategy
from torch_levenberg_marquardt.loss import CrossEntropyLoss, MSELoss
from torch_levenberg_marquardt.training import LevenbergMarquardtModule
from workloads import Workload

from .trace import CannotRun, runner

PACKAGES = ("torch-levenberg-marquardt", "torch")
NOTE = "no regularizer; a cross-entropy as the square of its root"
_ACTIVATIONS = {"silu": torch.nn.functional.silu, "relu": torch.relu, "tanh": torch.tanh}
# J, its derivation and its products live at the same time.
_LARGEST_JACOBIAN = 4 * 2**30


def settings(workload: Workload) -> list[dict]:
    """First dampings."""
    residuals = workload.targets.shape[0] * (1 if workload.is_classification else workload.targets.shape[1])
    size = 8 * residuals * workload.parameters
    if size > _LARGEST_JACOBIAN:
        raise CannotRun(f"its Jacobian alone takes {size / 2**30:.0f} GiB")
    return [{"damping": damping} for damping in (1.0, 1e-2)]


def prepare(workload: Workload, damping: float):
    """See `peers`."""
    torch.set_num_threads(1)
    inputs = torch.from_numpy(np.array(workload.inputs))
    targets = torch.from_numpy(np.array(workload.targets))
    if workload.is_classification:
        targets, loss_fn = targets.argmax(dim=1), CrossEntropyLoss()
    else:
        loss_fn = MSELoss()

    def begin():
        strategy = StandardDampingStrategy(starting_value=damping, min_value=1e-14, conditional_stopping=False)
        return LevenbergMarquardtModule(
            _Network(workload), loss_fn, strategy, solve_method="cholesky", attempts_per_step=10
        )

    def advance(module, count):
        for _ in range(count):
            module.training_step(inputs, targets)
        return module

    def loss(module) -> float:
        with torch.no_grad():
            value = float(loss_fn(module.model(inputs), targets))
        # Its mean is over the outputs too, and has no half.
        return value if workload.is_classification else value * targets.shape[1] / 2

    return runner(advance, begin, loss, workload)


class _Network(torch.nn.Module):
    """The workload's network with the workload's start."""

    def __init__(self, workload: Workload):
        super().__init__()
        biases = [layer.bias for layer in workload.start if layer.bias is not None]
        self.weights = torch.nn.ParameterList([torch.from_numpy(np.array(layer.weight)) for layer in workload.start])
        self.biases = torch.nn.ParameterList([torch.from_numpy(np.array(bias)) for bias in biases])
        self.activation = _ACTIVATIONS[workload.model.activation]
        self.scale_inputs = hasattr(workload.model, "widths")

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for index, weight in enumerate(self.weights):
            scale = weight.shape[1] ** -0.5 if index or self.scale_inputs else 1.0
            hidden = (scale * (self.activation(hidden) if index else hidden)) @ weight.T
            hidden = hidden + self.biases[index] if len(self.biases) else hidden
        return hidden
