"""The experiments by their names, without importing them: the command line's help needs no JAX."""

from typing import NamedTuple


class Entry(NamedTuple):
    """Where an experiment is, and what it asks, in a line."""

    module: str
    attribute: str
    question: str


ENTRIES = {
    "loss-curves": Entry("loss_curves", "EXPERIMENT", "Loss against steps and seconds, from a usual and a lazy start."),
    "strength-sweep": Entry("strength_sweep", "EXPERIMENT", "Test loss and zeros against the strength."),
    "smoothing-sweep": Entry("smoothing_sweep", "EXPERIMENT", "Test loss, zeros and speed against the smoothing."),
    "mnist": Entry("digits", "MNIST", "Digits: strength, smoothing, zeros, stability of activations."),
    "fashion-mnist": Entry("digits", "FASHION", "The same for pictures of clothes."),
    "mnist-teacher-student": Entry("imitation", "EXPERIMENT", "A student that learns a small teacher's probabilities."),
    "uci": Entry("uci", "EXPERIMENT", "Pendigits, letter and avila against gradient descent and Adam."),
    "widths": Entry("widths", "EXPERIMENT", "From one hidden unit through the interpolation threshold."),
    "regularizers": Entry("penalties", "EXPERIMENT", "Every regularizer at equal effective strength."),
    "architectures": Entry("architectures", "EXPERIMENT", "Depth 1 to 4 with relu, silu, tanh and erf."),
    "classification-losses": Entry("class_losses", "EXPERIMENT", "Softmax in the place of squared error."),
    "step-cost": Entry("step_cost", "EXPERIMENT", "Seconds a step as width, rows and outputs grow."),
    "ntk": Entry("ntk", "EXPERIMENT", "Where kernel regression foretells a trained network, and where not."),
}
