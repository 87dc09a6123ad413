"""The source keeps to its layers, sizes and habits; and each rule is shown to catch what it forbids."""

from pathlib import Path

import pytest

import architecture

ROOT = Path(__file__).parent.parent / "src" / architecture.PACKAGE

RULES = {
    "arrows": architecture.wrong_arrows,
    "cycles": architecture.cycles,
    "libraries": architecture.misplaced_libraries,
    "private jax": architecture.private_jax,
    "configuration": architecture.config_changes,
    "lost updates": architecture.lost_updates,
    "long bodies": architecture.long_bodies,
    "docstrings": architecture.undocumented,
}

LONG_BODY = "def long():\n    '''Says.'''\n" + "    x = 1\n" * (architecture.LONGEST_BODY + 1)
FITTING_BODY = "def long():\n    '''" + "Says.\n" * 90 + "'''\n" + "    x = 1\n" * architecture.LONGEST_BODY

# rule, files of a package (its root is added where it is absent), what the complaint says
FORBIDDEN = [
    ("arrows", {"losses.py": "from .optimizer import x", "optimizer.py": ""}, "losses:1 imports optimizer"),
    (
        "arrows",
        {"losses.py": "def f():\n    from . import optimizer", "optimizer.py": ""},
        "losses:2 imports optimizer",
    ),
    ("arrows", {"losses.py": "import concordax.optimizer", "optimizer.py": ""}, "losses:1 imports optimizer"),
    ("arrows", {"losses.py": "import concordax as cx"}, "losses:1 imports __init__"),
    ("arrows", {"solvers/base.py": "from ..training import x", "training.py": ""}, "solvers.base:1 imports training"),
    ("arrows", {"solvers/__init__.py": "from ..cli import x", "cli.py": ""}, "solvers.__init__:1 imports cli"),
    ("arrows", {"__init__.py": "from .sklearn import x", "sklearn.py": ""}, "__init__:1 imports sklearn"),
    ("arrows", {"plots.py": "from .sklearn import x", "sklearn.py": ""}, "plots is a leaf"),
    ("arrows", {"novelty.py": ""}, "novelty: place it in LAYERS"),
    ("cycles", {"steps.py": "from . import strength", "strength.py": "from .steps import x"}, "steps imports itself"),
    ("cycles", {"solvers/a.py": "from .b import x", "solvers/b.py": "from concordax.solvers.a import x"}, "solvers.a"),
    ("libraries", {"losses.py": "import jinja2"}, "losses:1 imports jinja2; only pages does"),
    ("libraries", {"report.py": "def f():\n    from matplotlib.figure import Figure"}, "only plots does"),
    ("private jax", {"losses.py": "from jax._src import core"}, "losses:1 uses jax._src.core"),
    ("private jax", {"losses.py": "from jax import core"}, "losses:1 uses jax.core"),
    ("private jax", {"losses.py": "import jax.extend as jex"}, "losses:1 uses jax.extend"),
    ("private jax", {"losses.py": "import jax\n\nx = jax.interpreters.batching"}, "losses:3 uses jax.interpreters"),
    ("configuration", {"cli.py": "import jax\n\njax.config.update('jax_enable_x64', True)"}, "cli:3 changes"),
    ("configuration", {"cli.py": "if True:\n    config.update('jax_enable_x64', True)"}, "cli:2 changes"),
    ("lost updates", {"losses.py": "def f(x):\n    x.at[0].set(1.0)\n    return x"}, "losses:2 throws"),
    ("lost updates", {"losses.py": "def f(x):\n    x.y.at[:, 0].add(1.0, mode='drop')"}, "losses:2 throws"),
    ("long bodies", {"losses.py": LONG_BODY}, "losses:1 long has a body of 61 lines"),
    ("docstrings", {"__init__.py": "from .a import f as f", "a.py": "def f():\n    pass"}, "f of a has no docstring"),
    ("docstrings", {"__init__.py": "from .a import C as C", "a.py": "class C:\n    x = 1"}, "C of a has no docstring"),
    (
        "docstrings",
        {"__init__.py": "from .a import X as X", "a.py": "X = 1\nY = 2\n'''Y.'''"},
        "X of a has no docstring",
    ),
    (
        "docstrings",
        {"__init__.py": "from .a import f as f", "a/__init__.py": "from .b import f as f", "a/b.py": "def f(): ..."},
        "f of a has no docstring",
    ),
]
ALLOWED = [
    ("arrows", {"optimizer.py": "from .losses import x\nfrom .steps import y", "losses.py": "", "steps.py": ""}),
    (
        "arrows",
        {"solvers/auto.py": "from .base import x\nfrom ..system import y", "solvers/base.py": "", "system.py": ""},
    ),
    ("arrows", {"cli.py": "import concordax as cx\nimport numpy"}),
    ("arrows", {"plots.py": "from .summary import x", "summary.py": ""}),
    ("cycles", {"solvers/a.py": "from .b import x", "solvers/b.py": "", "solvers/__init__.py": "from .a import x"}),
    ("libraries", {"optimizer.py": "import optax", "first_order.py": "import optax"}),
    ("private jax", {"losses.py": "import jax\nfrom jax import numpy\nfrom jax.coreutils import x"}),
    ("configuration", {"cli.py": "import jax\n\nwith jax.enable_x64(True):\n    settings.update(x=1)"}),
    ("configuration", {"compilation_cache.py": "import jax\n\njax.config.update('jax_compilation_cache_dir', 'x')"}),
    ("lost updates", {"losses.py": "def f(x):\n    x = x.at[0].set(1.0)\n    return x.at[0].add(1.0)"}),
    ("long bodies", {"losses.py": FITTING_BODY}),
    ("docstrings", {"__init__.py": "from .a import f as f\nfrom .a import g", "a.py": "def f():\n    '''Does.'''"}),
    (
        "docstrings",
        {"__init__.py": "from ._version import __version__ as __version__", "_version.py": "__version__ = 1"},
    ),
    ("docstrings", {"__init__.py": "from .a import X as X", "a.py": "X: int = 1\n'''One.'''"}),
    (
        "docstrings",
        {
            "__init__.py": "from .a import f as f",
            "a/__init__.py": "from .b import f as f",
            "a/b.py": "def f():\n    '''.'''",
        },
    ),
]


def package(folder: Path, files: dict[str, str]) -> architecture.Tree:
    for name, text in {"__init__.py": "", **files}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return architecture.parse(folder)


@pytest.mark.parametrize("rule", RULES)
def test_source_keeps_rule(rule):
    assert RULES[rule](architecture.parse(ROOT)) == []


def test_source_has_no_long_file():
    assert architecture.long_files(ROOT) == []


@pytest.mark.parametrize(("rule", "files", "complaint"), FORBIDDEN)
def test_rule_catches(rule, files, complaint, tmp_path):
    assert any(complaint in found for found in RULES[rule](package(tmp_path, files)))


@pytest.mark.parametrize(("rule", "files"), ALLOWED)
def test_rule_passes(rule, files, tmp_path):
    assert RULES[rule](package(tmp_path, files)) == []


def test_long_file_is_caught(tmp_path):
    package(tmp_path, {"losses.py": "x = 1\n" * 400, "steps.py": "x = 1\n" * 401})
    assert architecture.long_files(tmp_path) == ["steps.py has 401 lines"]


def test_every_module_is_read():
    modules = architecture.parse(ROOT)
    assert {"__init__", "system", "solvers.__init__", "solvers.dual"} <= set(modules)
    assert ("solvers.dual", "solvers.base") in {(name, target) for name, _, target in architecture.edges(modules)}
