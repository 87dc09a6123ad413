"""Importing is quick, changes nothing, and gives every public name."""

import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import architecture
import concordax as cx

EXTRAS = (
    "sklearn",
    "pandas",
    "pyarrow",
    "skops",
    "matplotlib",
    "jinja2",
    "typer",
    "rich",
    "platformdirs",
    "optimistix",
)
TREE = architecture.parse(Path(cx.__file__).parent)
HELP = """
import sys
from concordax.cli import main
sys.argv = ["concordax", "--help"]
try:
    main()
except SystemExit as error:
    assert error.code == 0
"""


def loaded_by(statement: str, modules: tuple[str, ...]) -> list[str]:
    """Those of the modules that a fresh interpreter holds after the statement."""
    code = f"{statement}\nimport sys\nprint(*[name for name in {modules!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import concordax", ("jax", "numpy", *EXTRAS)),
        ("from concordax import *", EXTRAS),
        pytest.param(
            HELP,
            ("jax", "numpy", "sklearn", "pandas", "matplotlib"),
            marks=pytest.mark.skipif(find_spec("typer") is None, reason="typer is not installed"),
        ),
    ],
    ids=["package", "all names", "help"],
)
def test_import_is_light(statement, absent):
    assert loaded_by(statement, absent) == []


def test_what_is_imported_is_seen():
    assert loaded_by("from concordax import *", ("jax", "optax", "turtle")) == ["jax", "optax"]


def test_import_changes_no_configuration():
    values = "sorted(jax.config.values.items())"
    code = f"import jax; before = {values}; from concordax import *; assert before == {values}; import concordax"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_that_a_type_checker_sees_is_there():
    modules = {name: module for module, names in cx._NAMES.items() for name in names}
    assert sorted(architecture.public_names(TREE)) == sorted([("__version__", "_version"), *modules.items()])
    for name in cx.__all__:
        assert getattr(cx, name) is getattr(sys.modules[f"concordax.{modules[name]}"], name)


def test_no_name_is_a_module():
    """Importing `concordax.train`, were there such a module, would put it in the place of the function."""
    assert not set(cx.__all__) & {name.split(".")[0] for name in TREE}
    assert not set(cx.ntk.__all__) & {name.split(".")[1] for name in TREE if name.startswith("ntk.")}


def test_modules_are_attributes_as_after_a_plain_import():
    code = "import concordax as cx; assert cx.losses.SquaredError is cx.SquaredError"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_listed_before_they_are_used():
    code = "import concordax as cx; assert {*cx.__all__, '__version__'} <= set(dir(cx))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'concordax' has no attribute 'trian'$"):
        cx.trian  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'trian'"):
        from concordax import trian  # noqa: F401


def test_parts_pickle():
    assert pickle.loads(pickle.dumps(cx.TrustRegion())) == cx.TrustRegion()
    assert pickle.loads(pickle.dumps(cx.train)) is cx.train
