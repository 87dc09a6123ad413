"""One file a peer: how each library trains a workload.

A peer is a module with

    PACKAGES    the distributions whose versions decide its numbers
    NOTE        what is not as in the others: its own objective, network or start; "" when nothing is
    settings(workload) -> list of dict       what to try, the best is taken; raises `CannotRun` with the reason
    prepare(workload, **settings) -> run     compiles; run(limit) then trains from the start and returns a `Trace`
"""

import importlib
from types import ModuleType

PEERS = {
    "concordax": "with_concordax",
    "concordax-dual": "with_concordax_dual",
    "pyscsopt": "with_pyscsopt",
    "optimistix": "with_optimistix",
    "somax": "with_somax",
    "kfac-jax": "with_kfac_jax",
    "torch-levenberg-marquardt": "with_torch_lm",
    "optax-adam": "with_optax_adam",
    "optax-lbfgs": "with_optax_lbfgs",
    "scikit-learn": "with_scikit_learn",
    "naive": "with_naive",
}


def load(name: str) -> ModuleType:
    """Imports a peer, and with it its library alone.

    Args:
        name: one of `PEERS`.

    Returns:
        The module.
    """
    return importlib.import_module(f"peers.{PEERS[name]}")
