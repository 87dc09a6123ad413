"""What the estimators choose by the size of a table, and how they translate names to objects."""

import numpy as np

from ..cross_validation import GeneralizedCrossValidation, LeaveOneOut
from ..damping_rules import GainRatio
from ..evidence import Evidence
from ..regularizers import L2, AbstractRegularizer, PseudoHuber
from ..scheduled_strength import AnnealedStrength
from ..strength import AbstractStrength, FixedStrength
from ..trust_region import TrustRegion

_FEWEST_UNITS, _MOST_UNITS, _ROWS_A_UNIT = 100, 300, 50
# Numbers of output from which float32 serves: the matrices are then too large to factorize, and what iterates on them
# stops long before the digits run out.
_SINGLE_FROM = 20_000
# Numbers of output from which a tenth of the rows can be spared: on tables of some thousand numbers the evidence is
# better by up to a tenth of the log loss, on two of three with more held-out rows by a factor of two and more.
_HELD_OUT_FROM = 10_000
# Networks: as many as learn 2,500 numbers of output together, from two to five; one from 5,000 numbers up to where rows
# are held out, and beyond 30,000 rows.
_FEWEST_NETWORKS, _MOST_NETWORKS, _NUMBERS_OF_ALL, _ONE_FROM, _ROWS_OF_TWO = 2, 5, 2500, 5000, 30_000
# From 0.1 to 10 times the mean of diag K, errors on twelve tables differ by less than the splits do, but for two, where
# structure is nearly linear and 10 is worse.
_INITIAL_DAMPING = 1.0
_ADAPTIVE = {"evidence": Evidence, "loo": LeaveOneOut, "gcv": GeneralizedCrossValidation}
# Rows up to which a network of infinite width is tried: its eigendecomposition costs the cube, 5 s at 3,000.
_ROWS_OF_WIDE = 3000
HELD_OUT = "held_out"
STRENGTHS = frozenset({"auto", HELD_OUT, *_ADAPTIVE})
# Of the path of strengths, in units of 1/rows: 1 is about what weights of size one ask for, and the end lets them grow
# some ten times as large.
_PATH = (10.0, 0.01)
REGULARIZERS = frozenset({"pseudo_huber", "l2"})


def widths(hidden_widths, rows: float) -> tuple[int, ...]:
    """Units of the hidden layers; "auto" is one layer with a unit for 50 rows, between 100 and 300."""
    if isinstance(hidden_widths, str):
        return (int(np.clip(rows / _ROWS_A_UNIT, _FEWEST_UNITS, _MOST_UNITS)),)
    units = [int(width) for width in hidden_widths]
    if any(width < 1 or width != given for width, given in zip(units, hidden_widths, strict=True)):
        raise ValueError(
            f'`hidden_widths={hidden_widths!r}`: must be "auto" or whole numbers from 1 up, one for each hidden layer.'
        )
    return tuple(units)


def networks(choice, rows: float, numbers: float) -> int:
    """How many networks; "auto" is five up to 500 numbers of output, then fewer, two from 834 on.

    It is one from 5,000 to 10,000, where one takes half a minute by the evidence. By held-out rows, which are sooner
    through with 10,000 numbers, a second one is worth more: it has a tenth of its own. Beyond 30,000 rows, where one
    takes minutes, it is one again.
    """
    if not isinstance(choice, str):
        return int(choice)
    if _ONE_FROM < numbers <= _HELD_OUT_FROM or rows > _ROWS_OF_TWO:
        return 1
    return int(np.clip(_NUMBERS_OF_ALL // numbers, _FEWEST_NETWORKS, _MOST_NETWORKS))


def tries_infinite_width(choice, hidden_widths, way: str | float, rows: float) -> bool:
    """Whether a network of infinite width may predict along; "auto": up to 3,000 rows, whose strength the data choose.

    Who says how wide the networks are gets those alone.
    """
    if not isinstance(choice, str):
        return bool(choice)
    return isinstance(hidden_widths, str) and way in _ADAPTIVE and rows <= _ROWS_OF_WIDE


def precision(dtype: str, numbers: float) -> str:
    """The type of the computation; "auto" is float64 up to 20,000 numbers of output."""
    if dtype != "auto":
        return dtype
    return "float64" if numbers <= _SINGLE_FROM else "float32"


def way_of(strength: str | float, numbers: float) -> str | float:
    """How the strength is found: "auto" is the evidence up to 10,000 numbers of output, held-out rows beyond.

    Beyond, γ has to be estimated from random vectors at several times the price of a step; and with many classes, or
    some that interlock finely, the fixed point lowers τ so slowly that training at small τ is over many times sooner.
    """
    if strength != "auto":
        return strength
    return "evidence" if numbers <= _HELD_OUT_FROM else HELD_OUT


def strength(choice: str | float, initial: float | None, rows: float) -> AbstractStrength:
    """The strength object; `initial` is where an adaptive one starts."""
    if not isinstance(choice, str):
        return FixedStrength(float(choice))
    if choice == HELD_OUT:
        return AnnealedStrength(_PATH[0] / rows, _PATH[1] / rows)
    return _ADAPTIVE[choice]() if initial is None else _ADAPTIVE[choice](initial)


def step() -> TrustRegion:
    """The step rule.

    `MissedShare` takes a quarter fewer trials; but a run whose strength, or whose end, the data choose came out worse
    by it: on 100 collinear channels the evidence peaked early at 1.7 times the error, and classifiers that follow a
    path of strengths were overconfident.
    """
    # Weights stay below √units, the smoothing: H is nearly a multiple of I, and serves strength and step. Steps that
    # follow the model's bending end no sooner where the strength sets the pace: 63 to 70 on concrete, 61 to 70 without.
    return TrustRegion(
        initial_damping=_INITIAL_DAMPING, damping_rule=GainRatio(), corrections=0, damp_in_hessian=True
    )


def regularizer(choice: str, units: tuple[int, ...]) -> AbstractRegularizer:
    """The penalty. Pseudo-Huber has the paper's μ = √width: near zero it is L2, large weights it leaves alone."""
    return L2() if choice == "l2" else PseudoHuber(float(np.sqrt(max(units, default=1))))


def padded(x: np.ndarray, targets: np.ndarray, weights: np.ndarray):
    """Rows filled up with rows of weight 0 to the next of sixteen sizes an octave.

    Weight 0 is absence, exactly, and folds of nearly the same size share one compiled program. From 512 rows on, the
    sizes are 8 above a multiple of the grain: rows of a Gram that lie a power of two apart fall on the same lines of
    the cache (1032 rows are a quarter faster than 1024).
    """
    rows = len(x)
    grain = max(1, 2 ** (max(rows - 1, 1).bit_length() - 5))
    missing = ((8 if grain >= 16 else 0) - rows) % grain
    index = np.concatenate([np.arange(rows), np.zeros(missing, int)])
    return x[index], targets[index], np.concatenate([weights, np.zeros(missing)])
