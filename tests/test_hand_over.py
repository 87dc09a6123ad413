"""Which program takes a step, by a stub of a step that says which solvers miss."""

import jax.numpy as jnp
import optax

import concordax as cx
from concordax.first_order import make_first_order
from concordax.hand_over import Programs
from concordax.optimizer import make_algorithm

MODEL = cx.MLP(2, (3,))
ALONE = cx.StructuredCG(hand_over=False)
FULL = cx.StructuredCG(single=False)
PARAMS = {"w": jnp.zeros(2)}


def _run(misses):
    """The solvers asked at each step, the iterations and marks it reports; `misses[k]` are those that miss step k."""
    parts = {"strength": 1e-3, "solver": cx.StructuredCG(), "step": cx.TrustRegion(), "damping": 0.0}
    algorithm = make_algorithm(MODEL, cx.SquaredError(), cx.L2(), **parts)
    programs, state, asked, told = Programs(algorithm), algorithm.init(PARAMS), [], []

    def step(program, state, params, batch):
        del batch
        asked[-1].append(program.solver)
        missed = program.solver in misses[len(asked) - 1]
        info = state.info._replace(
            solver_converged=jnp.asarray(not (missed and program.solver == ALONE)),
            handed_over=jnp.asarray(missed and program.solver != ALONE), solver_iterations=jnp.asarray(10),
        )  # fmt: skip
        return params, state._replace(info=info)

    for _ in misses:
        asked.append([])
        _, new = programs.advance(step, PARAMS, state, None)
        told.append((int(new.info.solver_iterations), bool(new.info.handed_over)))
    return asked, told


def test_a_step_that_is_missed_is_taken_again_and_says_so():
    asked, told = _run([(), (ALONE,), ()])
    assert asked == [[ALONE], [ALONE, FULL], [ALONE]]
    assert told == [(10, False), (20, True), (10, False)]


def test_three_misses_in_a_row_are_enough_and_two_are_not():
    miss = (ALONE,)
    asked, told = _run([miss, miss, (), miss, miss, miss, (), ()])
    assert asked == [*[[ALONE, FULL]] * 2, [ALONE], *[[ALONE, FULL]] * 3, [FULL], [FULL]]
    assert told[-1] == (10, True)


def test_what_hands_over_three_times_in_a_row_gives_way_to_the_exact_solve():
    both = (ALONE, FULL)
    asked, _ = _run([both, both, both, both, both, (), both, both, both, both])
    assert asked == [*[[ALONE, FULL]] * 3, *[[FULL]] * 6, [cx.Dual()]]


def test_an_optimizer_of_optax_has_nothing_behind_it():
    refused = dict.fromkeys(("solver", "step", "damping"), False)
    algorithm = make_first_order(
        MODEL, cx.SquaredError(), cx.L2(), strength=1e-3, optimizer=optax.sgd(0.1), refused=refused
    )
    assert Programs(algorithm).first == algorithm
