"""Jacobians of a model's outputs; the only code that differentiates a model."""

from .base import CHUNK_ELEMENTS as CHUNK_ELEMENTS
from .base import AbstractJacobian as AbstractJacobian
from .dense import DenseJacobian as DenseJacobian
from .implicit import ImplicitJacobian as ImplicitJacobian
from .layered import LayeredJacobian as LayeredJacobian
from .linearize import linearize as linearize
from .pairs import PASS as PASS
from .pairs import TRIANGLE as TRIANGLE
from .pairs import pair_numbers as pair_numbers
from .pairs import pair_operations as pair_operations
from .pairs import pairs_pay as pairs_pay
from .second import second_derivative as second_derivative
