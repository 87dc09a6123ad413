"""A network as a function of its displacement and its problem, in NumPy, for tests of certificates."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree

import concordax as cx
import helpers
from concordax import ntk

ROWS, WIDTH, STRENGTH = 6, 40, 0.1
MU = 2.0
PENALTIES = {"L2": cx.L2(), "pseudo-Huber": MU * cx.PseudoHuber(MU)}
ROUNDING = 1 + 1e-9


def penalty_parts(name, d):
    """Value, gradient and diagonal of the Hessian."""
    if name == "L2":
        return 0.5 * d @ d, d, np.ones_like(d)
    root = np.sqrt(1 + (d / MU) ** 2)
    return MU**2 * np.sum(root - 1), d / root, root**-3


class Dense:
    """A network as a function of its displacement, with its problem, in NumPy."""

    def __init__(self, name="L2", scale=0.03, away=0.003, weights=None):
        rng = np.random.default_rng(3)
        self.name = name
        self.model = cx.MLP(3, (WIDTH,), 1)
        self.params = self.model.init(jax.random.key(2))
        self.change, zero = ntk.centered(self.model, self.params)
        self.inputs = rng.normal(size=(ROWS, 3))
        self.targets = scale * rng.normal(size=(ROWS, 1))
        self.weights = np.ones(ROWS) if weights is None else weights
        self.center = helpers.flatten(self.params)
        # Not at zero, so that the penalty pulls from the first step on.
        self.flat = away * rng.normal(size=self.center.size)
        self.start = ravel_pytree(zero)[1](jnp.asarray(self.flat))
        self.first, _ = self.network(self.center)

    def network(self, flat):
        layers, begin = [], 0
        for weight, bias in helpers.as_layers(self.params):
            middle, end = begin + weight.size, begin + weight.size + bias.size
            layers.append((flat[begin:middle].reshape(weight.shape), flat[middle:end]))
            begin = end
        outputs, jacobian = helpers.network(layers, self.inputs, helpers.scales_of(self.model), "tanh")
        return outputs, jacobian.reshape(ROWS, -1)

    def residual(self, d):
        """√(w/Σw)(f − y), and its Jacobian."""
        outputs, jacobian = self.network(self.center + d)
        root = np.sqrt(self.weights / self.weights.sum())
        return root * (outputs - self.first - self.targets)[:, 0], root[:, None] * jacobian

    def objective(self, d):
        """F and its gradient."""
        (r, jacobian), (value, gradient, _) = self.residual(d), penalty_parts(self.name, d)
        return 0.5 * r @ r + STRENGTH * value, jacobian.T @ r + STRENGTH * gradient

    def step(self, d, damping=0.0):
        """The Gauss-Newton step from d."""
        (r, jacobian), (_, gradient, hessian) = self.residual(d), penalty_parts(self.name, d)
        system = jacobian.T @ jacobian + (STRENGTH + damping) * np.diag(hessian)
        return np.linalg.solve(system, -(jacobian.T @ r + STRENGTH * gradient))

    def norm(self, d):
        """‖d‖_H."""
        return np.sqrt(np.sum(penalty_parts(self.name, self.flat)[2] * d**2))

    def minimum(self, begin):
        """Where L-BFGS ends."""
        options = {"maxiter": 5000, "gtol": 1e-12, "ftol": 1e-18, "maxcor": 50}
        return scipy.optimize.minimize(self.objective, begin, jac=True, method="L-BFGS-B", options=options).x

    def within(self, radius, rng):
        """Points of the ball around the start: spread over all parameters, on one unit alone, on its surface."""
        d = rng.normal(size=self.flat.size)
        if rng.uniform() < 0.5:
            d *= rng.uniform(size=d.size) < 0.03
        d *= rng.uniform(0.5, 1.0) * radius / max(self.norm(d), 1e-300)
        return self.flat + d

    def certify(self, **options):
        """Its certificate, with the proved bound."""
        data = (self.inputs, self.targets)
        options = {"lipschitz": ntk.BoundedLipschitz(), "weights": self.weights, "strength": STRENGTH} | options
        return ntk.certify(self.change, cx.SquaredError(), PENALTIES[self.name], self.start, data, **options)


def linear(params, inputs):
    return inputs @ params[:, None]
