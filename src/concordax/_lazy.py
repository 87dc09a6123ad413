"""Names of a package that are imported at their first use."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazily(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose modules are imported when one of their names is used.

    Args:
        package: its `__name__`.
        names: the public names of each of its modules; a module by itself is found too.
    """
    modules = {name: module for module, public in names.items() for name in public}
    namespace = vars(sys.modules[package])

    def find(name: str) -> Any:
        if name in names:
            return import_module(f".{name}", package)
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{modules[name]}", package), name)
        namespace[name] = value
        return value

    return find, lambda: sorted({*namespace, *modules}), [*modules]
