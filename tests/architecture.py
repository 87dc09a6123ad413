"""What the source may look like: the layers as data, and one function for each rule that returns what breaks it.

Every rule reads the syntax tree only, so imports inside functions count like those at the top.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "concordax"

# From the ground up. A module may import from its own layer and from those above it in this list.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_types", "_status", "_version", "_lazy", "errors", "files", "compilation_cache", "compilation"),
    ("curvature", "self_concordance", "linalg", "substitution", "models", "remembered"),
    ("groups", "metrics"),
    ("losses", "regularizers", "penalties", "jacobians"),
    ("system", "_checks"),
    (
        "solvers",
        "steps",
        "damping_rules",
        "trust_region",
        "stochastic_trust_region",
        "proximal",
        "leave_one_out",
        "strength",
        "adaptive_strength",
        "scheduled_strength",
        "evidence",
        "cross_validation",
    ),
    ("optimizer", "first_order"),
    ("history", "stopping", "batches", "progress", "observers", "hand_over", "training", "laplace", "evaluate"),
    ("sparse", "compaction", "path", "relaxation", "diagnosis"),
    ("__init__",),
    ("sklearn", "ntk", "columns", "tabular", "persistence", "bundled", "experiments"),
    ("importance", "summary", "table_checks"),
    ("plots", "console", "workflow"),
    ("pages",),
    ("report", "reproduction"),
    ("cli",),
    ("__main__",),
)
# Modules that are kept apart from the rest, with all that they may import.
LEAVES: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "files": frozenset({"errors"}),
    "compilation_cache": frozenset(),
    "compilation": frozenset(),
    "models": frozenset({"_types", "linalg"}),
    "columns": frozenset({"errors"}),
    "tabular": frozenset({"errors", "columns"}),
    "bundled": frozenset({"errors"}),
    "plots": frozenset({"errors", "summary", "experiments"}),
}
# Libraries, and the modules that alone speak to them.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "optax": ("optimizer", "first_order", "experiments"),
    "matplotlib": ("plots",),
    "typer": ("cli",),
    "jinja2": ("pages",),
    "pooch": ("experiments",),
    "platformdirs": ("compilation_cache",),
}
# The module that changes the configuration of JAX, and gives it back.
CONFIGURES = "compilation_cache"
PRIVATE_JAX = ("jax._src", "jax.core", "jax.interpreters", "jax.extend")
LONGEST_FILE = 400
LONGEST_BODY = 60

Tree = dict[str, ast.Module]


def parse(root: Path) -> Tree:
    """All modules under `root` by name: `losses`, `solvers.base`, `solvers.__init__`."""
    return {
        ".".join(file.relative_to(root).with_suffix("").parts): ast.parse(file.read_text(encoding="utf-8"), str(file))
        for file in sorted(root.rglob("*.py"))
    }


def _names_imported(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import; `from a import b` gives `a.b`."""
    package = [PACKAGE, *name.split(".")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def edges(modules: Tree) -> Iterator[tuple[str, int, str]]:
    """(module, line, module it imports) for all imports within the package."""
    for name, tree in modules.items():
        for line, full in _names_imported(name, tree):
            parts = full.split(".")
            if parts[0] != PACKAGE:
                continue
            # The longest part of the dotted name that is a module: what follows are names inside of it.
            found = "__init__"
            for length in range(2, len(parts) + 1):
                inner = ".".join(parts[1:length])
                found = inner if inner in modules else f"{inner}.__init__" if f"{inner}.__init__" in modules else found
            yield name, line, found


def _top(name: str) -> str:
    return name.split(".")[0]


def wrong_arrows(modules: Tree) -> list[str]:
    """Imports against the order of LAYERS, beyond what LEAVES allows, or of modules that LAYERS does not place."""
    level = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
    wrong = [f"{name}: place it in LAYERS" for name in modules if _top(name) not in level]
    for name, line, target in edges(modules):
        importer, imported = _top(name), _top(target)
        if importer == imported or importer not in level or imported not in level:
            continue
        if level[imported] > level[importer]:
            wrong.append(f"{name}:{line} imports {target} from a higher layer")
        elif importer in LEAVES and imported not in LEAVES[importer]:
            wrong.append(f"{name}:{line} imports {target}, but {importer} is a leaf")
    return wrong


def cycles(modules: Tree) -> list[str]:
    """Modules that import themselves, directly or through others."""
    below: dict[str, set[str]] = {name: set() for name in modules}
    for name, _, target in edges(modules):
        below[name].add(target)
    found = []
    for start in modules:
        seen, waiting = set(), list(below[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(below.get(name, ()))
        if start in seen:
            found.append(f"{start} imports itself through others")
    return found


def misplaced_libraries(modules: Tree) -> list[str]:
    """Imports of a library of ONLY_IN by another module than its own."""
    return [
        f"{name}:{line} imports {full}; only {' and '.join(ONLY_IN[_top(full)])} does"
        for name, tree in modules.items()
        for line, full in _names_imported(name, tree)
        if _top(name) not in ONLY_IN.get(_top(full), (_top(name),))
    ]


def private_jax(modules: Tree) -> list[str]:
    """Uses of JAX modules that are not its public interface, imported or reached by attribute."""
    wrong = []
    for name, tree in modules.items():
        used = list(_names_imported(name, tree))
        used += [(node.lineno, ast.unparse(node)) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        wrong += [f"{name}:{line} uses {full}" for line, full in used if f"{full}.".startswith(_with_dots(PRIVATE_JAX))]
    return wrong


def _with_dots(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def config_changes(modules: Tree) -> list[str]:
    """Calls of `jax.config.update` by another module than CONFIGURES: the configuration belongs to the user."""
    return [
        f"{name}:{node.lineno} changes the configuration of JAX"
        for name, tree in modules.items()
        if name != CONFIGURES
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("jax.config.update", "config.update")
    ]


def lost_updates(modules: Tree) -> list[str]:
    """Statements like `x.at[i].set(1)`, whose result is thrown away."""
    return [
        f"{name}:{node.lineno} throws the result of .at[...] away"
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(call := node.value, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(place := call.func.value, ast.Subscript)
        and isinstance(place.value, ast.Attribute)
        and place.value.attr == "at"
    ]


def long_files(root: Path) -> list[str]:
    """Files of more than LONGEST_FILE lines."""
    sizes = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in sorted(root.rglob("*.py"))}
    return [f"{file.relative_to(root)} has {size} lines" for file, size in sizes.items() if size > LONGEST_FILE]


def long_bodies(modules: Tree) -> list[str]:
    """Functions whose body, without the docstring, spans more than LONGEST_BODY lines."""
    wrong = []
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            size = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if size > LONGEST_BODY:
                wrong.append(f"{name}:{node.lineno} {node.name} has a body of {size} lines")
    return wrong


def public_names(modules: Tree) -> Iterator[tuple[str, str]]:
    """(name, module it is imported from) for each `from .module import name as name` of the package's root."""
    root = modules["__init__"]
    for node in ast.walk(root):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from ((alias.name, node.module or "__init__") for alias in node.names if alias.asname == alias.name)


def undocumented(modules: Tree) -> list[str]:
    """Public classes and functions without a docstring, and public constants without a string below them."""
    names = [(name, source) for name, source in public_names(modules) if not name.startswith("__")]
    return [f"{name} of {source} has no docstring" for name, source in names if not _documented(modules, source, name)]


def _documented(modules: Tree, source: str, name: str) -> bool:
    tree = modules.get(source) or modules.get(f"{source}.__init__")
    if tree is None:
        return False
    for before, node in zip([None, *tree.body], [*tree.body, None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return bool(ast.get_docstring(node))
        # A constant is documented by the string below it.
        if isinstance(before, ast.Assign | ast.AnnAssign) and name in _targets(before):
            return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.ImportFrom) and node.level and name in [alias.asname for alias in node.names]:
            package = source.split(".")[:-1] if source in modules else source.split(".")
            inner = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            return _documented(modules, ".".join(inner), name)
    return False


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [ast.unparse(target) for target in targets]
