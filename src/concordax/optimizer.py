"""The optax transformation; the only place with optax, signs and pytrees ↔ vectors."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._status import StepStatus
from ._types import Batch
from .adaptive_strength import AbstractAdaptiveStrength
from .damping_rules import GainRatio
from .losses import AbstractLoss
from .metrics import ScalarMetric
from .models import LayeredModel, layer_shapes
from .regularizers import AbstractRegularizer, as_arguments
from .remembered import Structure, remembered, structure
from .solvers import AbstractPrepared, AbstractSolver, Auto, SystemShape, groups_of
from .steps import AbstractStep, LocalProblem, Trial
from .strength import AbstractStrength, StrengthState, as_strength
from .system import Problem, System, build_system, data_loss, make_batch
from .trust_region import TrustRegion


class StepInfo(NamedTuple):
    """What the last step reports; nothing of it is needed to go on.

    `loss` and `objective` are those before the step, `new_loss` and `new_objective` those after it; `kkt_residual` is
    that before it, NaN but for a proximal step. `log_evidence` and
    `leave_one_out` judge the parameters before the step at the strength they had; NaN where not computed.
    """

    loss: Float[Array, ""]
    objective: Float[Array, ""]
    new_loss: Float[Array, ""]
    new_objective: Float[Array, ""]
    step_size: Float[Array, ""]
    damping: Float[Array, ""]
    decrement: Float[Array, ""]
    strength: Float[Array, ""]
    noise: Float[Array, ""]
    effective_parameters: Float[Array, ""]
    effective_parameters_error: Float[Array, ""]
    log_evidence: Float[Array, ""]
    leave_one_out: Float[Array, ""]
    kkt_residual: Float[Array, ""]
    attempts: Int[Array, ""]
    solver_iterations: Int[Array, ""]
    solver_converged: Bool[Array, ""]
    handed_over: Bool[Array, ""]
    accepted: Bool[Array, ""]
    status: Int[Array, ""]


class GGNState(NamedTuple):
    """The optimizer's state: what the rules carry, and what the last step reports."""

    step: Int[Array, ""]
    rule: Any
    strength_rule: StrengthState
    info: StepInfo

    def under(self, strength: AbstractStrength) -> "GGNState":
        """This state to go on from with a strength of one's own."""
        rule = strength.resume(self.strength_rule)
        return self._replace(strength_rule=rule, info=self.info._replace(strength=rule.strength))


def local_problem(
    problem: Problem,
    flat: Float[Array, " p"],
    batch: Batch,
    prepared: AbstractPrepared,
    strength: Float[Array, ""],
    damping: float | Float[Array, ""],
    *,
    step: AbstractStep,
    prepare: Callable[[System], AbstractPrepared],
) -> LocalProblem:
    """What a step rule sees of a problem at a point, with what the rule itself adds to the objective."""
    system = prepared.system

    def trial_at(point):
        outputs = problem.outputs(point, batch.inputs)
        loss = data_loss(problem.loss, outputs, batch)
        # Summed as F at the start is, not by `Problem.objective`: near the end the two differ by rounding alone.
        return Trial(loss + strength * (problem.regularizer.value(point) + step.penalty_value(point)), loss, outputs)

    return LocalProblem(
        flat=flat,
        system=system,
        prepared=prepared,
        loss_function=problem.loss,
        regularizer=problem.regularizer,
        strength=strength,
        damping=damping,
        loss=system.loss,
        objective=system.loss + strength * (system.penalty + step.penalty_value(flat)),
        trial_at=trial_at,
        prepare=prepare,
        bend_along=lambda direction: problem.bend(flat, batch, direction, single=True),
        bend_to=lambda displacement, outputs: problem.missed(system, batch, displacement, outputs),
    )


def initial_info(dtype, strength: Float[Array, ""]) -> StepInfo:
    """What there is to report before the first step: the strength."""
    nan = jnp.full((), jnp.nan, dtype)
    floats = dict.fromkeys(StepInfo._fields, nan) | {"strength": strength}
    counts = dict.fromkeys(("attempts", "solver_iterations", "status"), jnp.zeros((), int))
    no = jnp.zeros((), bool)
    flags = {"solver_converged": ~no, "handed_over": no, "accepted": no}
    return StepInfo(**floats | counts | flags)


class Algorithm(eqx.Module):
    """A choice of parts, as a value: equal choices share one compiled program."""

    model: Callable
    loss: AbstractLoss
    regularizer: AbstractRegularizer
    strength: AbstractStrength
    solver: AbstractSolver
    step: AbstractStep
    damping: float | Float[Array, ""]

    def init(self, params: PyTree) -> GGNState:
        """The state before the first step."""
        flat = ravel_pytree(params)[0]
        dtype = flat.dtype
        strength = self.strength.init(dtype)
        info = initial_info(dtype, strength.strength)
        return GGNState(jnp.zeros((), int), self.step.init(flat), strength, info)

    def update(self, state: GGNState, params: PyTree, batch: Batch) -> tuple[PyTree, GGNState]:
        """One step: updates to add to `params`, and the new state."""
        with jax.default_matmul_precision("highest"):
            solver = self.solver.resolve(self.shape(params, batch))
            problem, flat, system = self._linearize(params, batch, matrix_free=solver.matrix_free)
            prepared = solver.prepare(system)
            strength = self.strength.update(state.strength_rule, system, prepared, self.loss, batch)
            tau = strength.strength
            local = local_problem(
                problem, flat, batch, prepared, tau, self.damping, step=self.step, prepare=solver.prepare
            )
            outcome, rule = self.step.take(local, state.rule)
        # `where` returns codes weakly typed; a state of another type than init gave would compile the second step anew.
        status = outcome.status.astype(state.info.status.dtype)
        accepted = status == StepStatus.ACCEPTED
        info = StepInfo(
            loss=system.loss,
            objective=local.objective,
            new_loss=outcome.loss,
            new_objective=outcome.objective,
            step_size=outcome.step_size,
            damping=outcome.damping,
            decrement=outcome.decrement,
            strength=tau,
            noise=jnp.sqrt(strength.noise_variance),
            effective_parameters=strength.gamma,
            effective_parameters_error=strength.gamma_error,
            log_evidence=strength.log_evidence,
            leave_one_out=strength.leave_one_out,
            kkt_residual=jnp.asarray(outcome.kkt_residual, flat.dtype),
            attempts=outcome.attempts,
            solver_iterations=outcome.solves.iterations,
            solver_converged=outcome.solves.converged,
            handed_over=outcome.solves.handed_over,
            accepted=accepted,
            status=status,
        )
        counted = self.strength.count(strength, accepted)
        return problem.unravel(outcome.displacement), GGNState(state.step + 1, rule, counted, info)

    def prepare(self, params: PyTree, batch: Batch) -> tuple[Problem, Float[Array, " p"], AbstractPrepared]:
        """The problem over flat parameters, these parameters, and the system linearised there and made ready."""
        solver = self.solver.resolve(self.shape(params, batch))
        problem, flat, system = self._linearize(params, batch, matrix_free=solver.matrix_free)
        return problem, flat, solver.prepare(system)

    def shape(self, params: PyTree, batch: Batch) -> SystemShape:
        """The sizes of the system at such a batch: those of `shape_of`, without tracing the model (9 ms)."""
        parts = self.model, self.loss, self.regularizer, self.step
        return _system_shape(*parts, structure(params), structure(batch.targets))

    def _linearize(self, params: PyTree, batch: Batch, *, matrix_free: bool = False):
        flat, unravel = ravel_pytree(params)
        problem = Problem(self.model, self.loss, self.regularizer, unravel)
        return problem, flat, build_system(problem, flat, batch, matrix_free=matrix_free)

    def parametrized(self) -> "Algorithm":
        """This one with λ and the numbers of its regularizer as arrays: arguments of a program that serves all."""
        return replace(self, regularizer=as_arguments(self.regularizer), damping=as_arguments(self.damping))

    def batch(self, params: PyTree, inputs, targets, weights=None) -> Batch:
        """Data in the form that `update` takes; raises ValueError on shapes that do not fit."""
        return as_batch(self.model, self.loss, params, inputs, targets, weights)


@remembered
def _system_shape(model, loss, regularizer, step, params: Structure, targets: Structure) -> SystemShape:
    at, encoded = params.tree, targets.tree
    flat = jax.eval_shape(lambda tree: ravel_pytree(tree)[0], at)
    residual = jax.eval_shape(loss.whitened_residual, encoded, encoded)
    layers = layer_shapes(at) if isinstance(model, LayeredModel) else ()
    metric = jax.eval_shape(lambda x: step.solved_metric(regularizer.metric(x), x), flat)
    rows, numbers = residual.shape
    scalar, itemsize = isinstance(metric, ScalarMetric), flat.dtype.itemsize
    return SystemShape(rows, numbers, flat.size, layers, scalar, itemsize, groups_of(metric))


@remembered
def _outputs_shape(model, params: Structure, inputs: Structure) -> tuple[int, ...]:
    return jax.eval_shape(model, params.tree, inputs.tree).shape


def as_batch(model, loss: AbstractLoss, params: PyTree, inputs, targets, weights) -> Batch:
    """Data in the form that steps take, for a model and parameters that fit them."""
    # What `ravel_pytree` makes of them, without the copy.
    dtype = jnp.result_type(*jax.tree.leaves(params))

    def as_array(leaf):
        leaf = jnp.asarray(leaf)
        # Real inputs take the parameters' dtype: float64 rows would silently turn a float32 network into float64.
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    inputs = jax.tree.map(as_array, inputs)
    shape = _outputs_shape(model, structure(params), structure(inputs))
    if len(shape) != 2:
        raise ValueError(f"the model must return outputs of shape [n, c]; it returns {shape}. Add an axis to them.")
    return make_batch(loss, inputs, targets, weights, shape[1], dtype)


def check_parts(model, *kinds: tuple[Any, type, str]) -> None:
    """Raises TypeError for parts (part, its kind, its name) of another kind, or a model that cannot be called."""
    for part, kind, name in kinds:
        if not isinstance(part, kind):
            hint = f" Did you mean `{part.__name__}()`?" if isinstance(part, type) else ""
            raise TypeError(f"`{name}={part!r}`: must be an instance of {kind.__name__[8:].lower()} class.{hint}")
    if not callable(model):
        raise TypeError(f"`model={model!r}`: must be a callable (params, inputs) -> outputs [n, c].")


def _default_step(strength: AbstractStrength) -> TrustRegion:
    """Quick at a strength that stays; for one that moves, what it comes out better under, and one Gram."""
    if not strength.is_adaptive:
        return TrustRegion()
    return TrustRegion(damping_rule=GainRatio(), corrections=0, damp_in_hessian=True)


def make_algorithm(model, loss, regularizer, *, strength, solver, step, damping) -> Algorithm:
    """Checks the parts and puts them together; without a step rule with that for all rows."""
    rule = as_strength(strength)
    step = _default_step(rule) if step is None else step
    kinds = ((loss, AbstractLoss, "loss"), (regularizer, AbstractRegularizer, "regularizer"),
             (solver, AbstractSolver, "solver"), (step, AbstractStep, "step"))  # fmt: skip
    check_parts(model, *kinds)
    if not (isinstance(damping, (int, float)) and math.isfinite(damping) and damping >= 0):
        raise ValueError(
            f"`damping={damping!r}`: must be a finite number from 0 up; the published mode is 1 - strength."
        )
    if isinstance(rule, AbstractAdaptiveStrength) and step.adds_penalty:
        raise ValueError(
            f"`strength={strength!r}` judges smooth penalties alone; with `{type(step).__name__}` use a number as "
            "strength, or a path of them with held-out rows (cx.AnnealedStrength)."
        )
    return Algorithm(model, loss, regularizer, rule, solver, step, float(damping))


def ggn_score(
    model: Callable,
    loss: AbstractLoss,
    regularizer: AbstractRegularizer,
    *,
    strength: float | AbstractStrength,
    solver: AbstractSolver = Auto(),
    step: AbstractStep | None = None,
    damping: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Regularized generalized Gauss-Newton as an optax transformation.

    Each update solves (Wᵀ W + (τ+λ) H) δ = −(Wᵀ r + τ∇g) at the parameters given and lets the step rule decide how
    much of δ to take. Incoming gradients are ignored: a gradient already summed cannot be whitened again.

    Args:
        model: a callable (params, inputs) -> outputs [n, c]; a `LayeredModel` gets the layers' price.
        loss: a convex loss of the outputs.
        regularizer: g, with Hessian H.
        strength: τ > 0, or `Evidence()`.
        solver: how the linear system is solved.
        step: how far to go; by default `TrustRegion()`, and where the strength moves
            `TrustRegion(damping_rule=GainRatio(), corrections=0, damp_in_hessian=True)`.
        damping: λ ≥ 0 added to every solve; `1 - strength` with `PublishedStep` is the published mode.

    Returns:
        A transformation whose `update(None, state, params, inputs=X, targets=y, weights=None)` returns the updates to
        add with `optax.apply_updates`. Unknown extra arguments are ignored.

    Raises:
        TypeError, ValueError: for parts of the wrong kind or numbers out of range, at construction.

    Source: arXiv 2404.14875, Algorithm 1; arXiv 2112.07344.

    Example:
        >>> import concordax as cx, jax, optax
        >>> model = cx.MLP(inputs=1, widths=(8,))
        >>> params = model.init(jax.random.key(0))
        >>> x = jax.numpy.linspace(-1, 1, 20)[:, None]
        >>> opt = cx.ggn_score(model, cx.SquaredError(), cx.L2(), strength=1e-4)
        >>> state = opt.init(params)
        >>> updates, state = opt.update(None, state, params, inputs=x, targets=x**2)
        >>> params = optax.apply_updates(params, updates)
        >>> bool(state.info.new_objective < state.info.objective)
        True
    """
    algorithm = make_algorithm(model, loss, regularizer, strength=strength, solver=solver, step=step, damping=damping)

    def update(updates, state, params=None, *, inputs=None, targets=None, weights=None, **extra):
        del updates, extra
        if params is None or inputs is None or targets is None:
            raise ValueError(
                "`ggn_score(...).update` needs the parameters and the data: "
                "update(None, state, params, inputs=X, targets=y, weights=None)."
            )
        return algorithm.update(state, params, algorithm.batch(params, inputs, targets, weights))

    return optax.GradientTransformationExtraArgs(algorithm.init, update)
