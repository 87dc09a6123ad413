"""concordax with the dense dual solver, to tell what the structured one gains."""

from workloads import Workload

import concordax as cx

from . import with_concordax
from .trace import CannotRun

PACKAGES = with_concordax.PACKAGES
NOTE = ""
_LARGEST = 12_000


def settings(workload: Workload) -> list[dict]:
    """Nothing to tune."""
    numbers = workload.targets.size
    if numbers > _LARGEST:
        raise CannotRun(f"the dual matrix is {numbers} x {numbers}: a factorisation takes minutes")
    return [{}]


def prepare(workload: Workload):
    """See `peers`."""
    return with_concordax.prepare(workload, cx.Dual())
