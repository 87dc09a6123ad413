"""What one step costs on each path, in operations and bytes: the model by which `Auto` chooses.

Letters: n examples, k numbers of output each, N = n·k, p parameters, layers of d_out × d_in weights.

    Dual          operations  K + 2 (N³/3 + 24 n p + 30 N²)              (under L2, in layers: as K̃ below)
                  numbers     F + max(3 N², 2 N² + 2 min(N p, chunk) + 8 p, P)
    Primal        operations  1.25 N p² + 2 (p³/3 + 3 (8 N p + 30 p²))
                  numbers     F + max(3 p², 2 p² + N p), with 2.6 chunk for N p where that is more than one
    StructuredCG  operations  1.25 (N² Σ d_out + n² Σ d_in) + 2 (N³/3 + 5 (8 n p + 10 N²)), or
                              K + 2 (N³/3 + 8 n p + 10 N²)
                  numbers     F + max(3.75 N², 2 N² + 9 p, N² + 3.5 F min(1, 256/N)), or P for the last
    NystromCG     operations  300 (4 n (2 p − p₁) + 120 n Σ d_out + 30 p) + 14 p rank²
                  numbers     6 rank p + 3.5 n Σ d_out

K is 1.25 N² p; or, for at most 256 examples of a network, by pairs of them,
n²/2 (2 (p + 2 k² Σ d_out) + 30 Σ (d_in + (k + 1) d_out)), with P = 1.5 N² + 3 p + n k max d_out + min(n²/2 w, 2¹⁸)
where w = max (d_in + d_out) over the layers, and no min(N p, chunk). `StructuredCG` takes K where that is so, and
less than K̃ and its iterations. Groups of parameters add as many to p, and to Σ d_out, and their images N each to F.

F is what the Jacobian itself takes: n (k Σ d_out + Σ d_in) in layers, 2 N p dense. 1.25 is 2 for a product times five
eighths for a symmetric one; 30 is what a number that comes from memory costs beside one operation of a matrix product,
10 what one of a triangular factor does that is applied by blocks (`substitution.py`);
5 is an iteration for the start and four more, and products with the factors, thin as they are, run at half the speed;
2 is for the trials of a step, some refused. Where a factor in float32 pays, products and N³/3 of `StructuredCG` count
half: it does where half of them is more than 0.4 iterations; its N² numbers then count half too, F half as much again,
and 3.5 is 2. A pass through the network does without J; p₁ are the parameters of its first layer, into which no
tangent comes.
"""

from typing import NamedTuple

from ..jacobians import CHUNK_ELEMENTS, PASS, TRIANGLE, LayeredJacobian, pair_numbers, pair_operations, pairs_pay
from ..linalg import BLOCK
from ..metrics import AbstractMetric, GroupMetric, ScalarMetric
from ..system import System

# Operations of a matrix product in the time of one number of a triangular factor, applied by blocks.
_SUBSTITUTION = 10.0
# Iterations that conjugate gradients are expected to take, the start included.
_ITERATIONS = 5
# Solves a step, refused trials included: what each takes weighs more on the side with the larger matrix.
_TRIALS = 2
# More of them with a preconditioner in float32: none to two, seen at μ = √width.
_EXTRA_ITERATIONS = 0.4
# Products that `NystromCG` takes in a step, a third of them for its sketch, and copies of the sketch as it is made.
_PRODUCTS = 300
_SKETCHES = 6


class SystemShape(NamedTuple):
    """The sizes that decide what a step costs.

    Attributes:
        rows: n.
        outputs: k.
        parameters: p.
        layers: (d_out, d_in) of each layer; empty for a dense Jacobian.
        scalar: whether H is a multiple of the identity.
        itemsize: bytes a number.
        groups: vectors that H⁻¹ has beside its diagonal, one a group.
    """

    rows: int
    outputs: int
    parameters: int
    layers: tuple[tuple[int, int], ...] = ()
    scalar: bool = False
    itemsize: int = 8
    groups: int = 0

    @property
    def numbers(self) -> int:
        """N = n·k."""
        return self.rows * self.outputs

    @property
    def units(self) -> tuple[int, int]:
        """(Σ d_out, Σ d_in)."""
        return sum(d_out for d_out, _ in self.layers), sum(d_in for _, d_in in self.layers)

    @property
    def jacobian(self) -> int:
        """Numbers that the Jacobian takes; dense, with one copy."""
        images = self.numbers * self.groups
        if not self.layers:
            return 2 * self.numbers * self.parameters + images
        d_out, d_in = self.units
        return self.rows * (self.outputs * d_out + d_in) + images

    @property
    def intermediate(self) -> int:
        """Numbers between the layers that a product without a stored Jacobian works on, for all rows."""
        return int(3.5 * self.rows * self.units[0]) if self.layers else 4 * self.numbers

    @property
    def product(self) -> float:
        """Operations of a product with J and one with its transpose, by passes through the network."""
        if not self.layers:
            return 8.0 * self.rows * self.parameters
        d_out, d_in = self.layers[0]
        weights = 4.0 * self.rows * (2 * self.parameters - d_out * d_in)
        return weights + 4 * PASS * self.rows * self.units[0]


class Cost(NamedTuple):
    """Operations of a step, in those of a matrix product, and bytes at its peak."""

    operations: float
    bytes: float


def shape_of(system: System) -> SystemShape:
    """The sizes of a system, of arrays or of their shapes alone."""
    jacobian = system.jacobian
    layers = tuple(layer.matrix_shape for layer in jacobian.layers) if isinstance(jacobian, LayeredJacobian) else ()
    scalar, itemsize = isinstance(system.metric, ScalarMetric), system.residual.dtype.itemsize
    return SystemShape(*jacobian.shape, layers, scalar, itemsize, groups_of(system.metric))


def groups_of(metric: AbstractMetric) -> int:
    """Vectors that H⁻¹ has beside its diagonal."""
    return metric.groups.count if isinstance(metric, GroupMetric) else 0


def dual(shape: SystemShape) -> Cost:
    """`Dual`."""
    size, p = shape.numbers, shape.parameters
    structured = shape.scalar and shape.layers
    gram = _structured_gram(shape) if structured else _exact_gram(shape)
    # A solve takes three products with J and three with its transpose: a refinement follows.
    products = 3 * 8.0 * (shape.rows if shape.layers else size) * p
    operations = gram + _TRIALS * (size**3 / 3 + products + PASS * size**2)
    columns = 0 if structured or _by_pairs(shape) else min(size * p, CHUNK_ELEMENTS)
    numbers = max(3 * size**2, 2 * size**2 + 2 * columns + 8 * p, _numbers_of_pairs(shape))
    return Cost(operations, shape.itemsize * (shape.jacobian + numbers))


def primal(shape: SystemShape) -> Cost:
    """`Primal`."""
    size, p = shape.numbers, shape.parameters
    operations = TRIANGLE * size * p**2 + _TRIALS * (p**3 / 3 + 3 * (8 * size * p + PASS * p**2))
    # Chunks are held twice as they follow one another.
    columns = size * p if size * p <= CHUNK_ELEMENTS else 2.6 * CHUNK_ELEMENTS
    return Cost(operations, shape.itemsize * (shape.jacobian + max(3 * p**2, 2 * p**2 + columns)))


def structured_cg(shape: SystemShape) -> Cost:
    """`StructuredCG`, for a layered model."""
    size, p = shape.numbers, shape.parameters
    # Of K̃, its factor and copies, of the Jacobian that they come from, and of the steps and their corrections.
    exact, single = exact_gram_pays(shape), single_precision_pays(shape)
    share = 0.5 if single else 1.0
    operations = _by_exact_gram(shape) if exact else _by_iterations(shape, share)
    # A block of the Gram works on copies of its rows' factors.
    copies = (2.0 if single else 3.5) * shape.jacobian * min(1.0, BLOCK / size)
    form = _numbers_of_pairs(shape) if exact else share * size**2 + copies
    numbers = max(share * 3.75 * size**2, share * 2 * size**2 + 9 * p, form)
    return Cost(operations, shape.itemsize * ((1.5 if single else 1.0) * shape.jacobian + numbers))


def exact_gram_pays(shape: SystemShape) -> bool:
    """Whether K itself, by pairs of examples, costs less than the iterations that it saves."""
    return _by_pairs(shape) and _by_exact_gram(shape) < _by_iterations(shape, 1.0)


def single_precision_pays(shape: SystemShape) -> bool:
    """Whether K̃ and its factor in float32 save a float64 step more than the iterations that they cost."""
    if exact_gram_pays(shape):
        return False
    saved = 0.5 * (_structured_gram(shape) + shape.numbers**3 / 3)
    return shape.itemsize == 8 and saved > _EXTRA_ITERATIONS * _iteration(shape)


def nystrom_cg(shape: SystemShape, rank: int) -> Cost:
    """`NystromCG` with a sketch of that rank."""
    p = shape.parameters
    rank = min(rank, p)
    operations = _PRODUCTS * shape.product + 14 * p * rank**2 + PASS * _PRODUCTS * p
    return Cost(operations, shape.itemsize * (_SKETCHES * rank * p + shape.intermediate))


def largest_rank(shape: SystemShape, budget: float, least: int, most: int) -> int:
    """The rank in least..most whose sketch fits in `budget` bytes; the least if none does."""
    room = budget / shape.itemsize - shape.intermediate
    return int(min(max(room / (_SKETCHES * shape.parameters), least), most))


def _by_iterations(shape: SystemShape, share: float) -> float:
    """A step from K̃, whose products and factor take that share of their time."""
    solve = share * shape.numbers**3 / 3 + _ITERATIONS * _iteration(shape)
    return share * _structured_gram(shape) + _TRIALS * solve


def _by_exact_gram(shape: SystemShape) -> float:
    """A step from K: the start of the iterations is their end."""
    return _exact_gram(shape) + _TRIALS * (shape.numbers**3 / 3 + _iteration(shape))


def _exact_gram(shape: SystemShape) -> float:
    groups = TRIANGLE * shape.numbers**2 * shape.groups
    if _by_pairs(shape):
        return groups + pair_operations(shape.rows, shape.outputs, shape.layers)
    return groups + TRIANGLE * shape.numbers**2 * shape.parameters


def _by_pairs(shape: SystemShape) -> bool:
    return bool(shape.layers) and not shape.scalar and pairs_pay(shape.rows, shape.outputs, shape.layers)


def _numbers_of_pairs(shape: SystemShape) -> int:
    """At the peak while K is formed by pairs, three vectors of parameters beside them."""
    if not _by_pairs(shape):
        return 0
    return shape.numbers**2 + 3 * shape.parameters + pair_numbers(shape.rows, shape.outputs, shape.layers)


def _iteration(shape: SystemShape) -> float:
    return 8.0 * shape.rows * shape.parameters + _SUBSTITUTION * shape.numbers**2


def _structured_gram(shape: SystemShape) -> float:
    d_out, d_in = shape.units
    return TRIANGLE * (shape.numbers**2 * (d_out + shape.groups) + shape.rows**2 * d_in)
