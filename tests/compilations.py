"""How many programs for steps this process has compiled."""

from concordax import training


def compiled_steps() -> int:
    """Over all backends."""
    return sum(each._cached._cache_size() for each in training._step._compiled.values())
