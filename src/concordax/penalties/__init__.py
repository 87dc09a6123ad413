"""Penalties with corners and bounds, for `ProximalStep`."""

from .base import AbstractPenalty as AbstractPenalty
from .box import Box as Box
from .group_lasso import GroupLasso as GroupLasso
from .l1 import L1 as L1
