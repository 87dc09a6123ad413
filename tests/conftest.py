"""Float64 for every test; modules that need a library which is not installed are left out, with their tests."""

import os
from importlib.util import find_spec
from pathlib import Path

import jax
import jaxtyping
import pytest

# Compiled programs of tests belong where the Makefile puts them, not into the user's cache.
os.environ["CONCORDAX_CACHE_DIR"] = ""
jax.config.update("jax_enable_x64", True)

# The oldest versions are tested without the extras, and so is an installation that has none.
NEEDED_BY = {
    "sklearn": (
        "sklearn",
        "estimator",
        "tabular",
        "columns",
        "bundled",
        "importance",
        "summary",
        "workflow",
        "experiments",
        "table_checks",
        "ntk_regression",
        "ntk/regression",
    ),
    "platformdirs": ("compilation_cache",),
    "skops": ("persistence",),
    "typer": ("cli", "console"),
    "matplotlib": ("plots", "report", "pages", "reproduction"),
}
MISSING = [name for name in NEEDED_BY if find_spec(name) is None]
ROOT = Path(__file__).parent.parent
# About 2 GB of programs.
MOST_MAPS = 8_000
# What tests share is imported by them, and holds neither tests nor examples of its own.
collect_ignore = [file.name for file in Path(__file__).parent.glob("*.py") if not file.name.startswith("test_")]


def pytest_configure(config):
    """Keeps pytest from importing what cannot be imported."""
    modules = [module for name in MISSING for module in NEEDED_BY[name]]
    left_out = [str(ROOT / "tests" / f"test_{module}*") for module in modules]
    left_out += [str(ROOT / "src" / "concordax" / f"{module}*") for module in modules]
    config.option.ignore_glob = [*(config.option.ignore_glob or ()), *left_out]


def pytest_addoption(parser):
    """`make test-all` asks for the whole of what `combinations` leaves out."""
    parser.addoption("--whole", action="store_true", help="run every combination of parameters")


def pytest_collection_modifyitems(config, items):
    """Of the tests marked `combinations`, keeps a part that holds every value of each parameter.

    Compiling takes most of the time, and each combination is another program.
    """
    if config.getoption("whole"):
        return
    grids: dict[str, list] = {}
    for item in items:
        if item.get_closest_marker("combinations"):
            grids.setdefault(item.nodeid.split("[")[0], []).append(item)
    left_out = {item for grid in grids.values() for item in set(grid) - set(covering(grid, values_of))}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def values_of(item) -> tuple:
    """The place of a test in its grid: one entry a `parametrize`, whose names go together; fixtures in one more."""
    marks = [mark.args[0] for mark in item.iter_markers("parametrize")]
    names = [mark if isinstance(mark, list | tuple) else [each.strip() for each in mark.split(",")] for mark in marks]
    named = {name for group in names for name in group}
    rest = [name for name in item.callspec.params if name not in named]
    return tuple(tuple(repr(item.callspec.params[name]) for name in group) for group in [*names, rest] if group)


def covering(grid, place) -> list:
    """The fewest of a grid, greedily, that hold every value of each parameter."""
    parts = {id(item): set(enumerate(place(item))) for item in grid}
    missing, kept = set().union(*parts.values()), []
    while missing:
        best = max(grid, key=lambda item: len(parts[id(item)] & missing))
        kept.append(best)
        missing -= parts[id(best)]
    return kept


def pytest_report_header():
    """Says in the head of the report what is left out."""
    return f"not installed, so what needs them is left out: {', '.join(MISSING)}" if MISSING else None


def _memory_maps() -> int:
    """How many memory maps this process holds; 0 where the system does not tell."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


@pytest.fixture
def unchecked(monkeypatch):
    """As users run it: without the type checker of the tests, which would answer before the library does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Lets go of compiled programs, each of which holds memory maps, long before the 65,530 that Linux allows.

    Not after each module: the next ones would compile the same small programs again.
    """
    yield
    if _memory_maps() > MOST_MAPS:
        jax.clear_caches()
