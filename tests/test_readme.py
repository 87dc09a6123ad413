"""Every Python block of the README runs as a user would run it: in an interpreter of its own, warnings as errors."""

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(code):
    if "sklearn" in code and find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    # An example shows something only if it would notice being wrong.
    assert "\nassert " in code
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_blocks_are_found():
    assert len(BLOCKS) == 3


def test_failing_block_is_caught():
    assert run("x = 1\nassert x == 2").returncode != 0


def test_tables_are_those_of_the_records(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = runpy.run_path(str(ROOT / "benchmarks/fill_in.py"))
    tables = 0
    for path in module["FILES"]:
        text = path.read_text(encoding="utf-8")
        assert module["filled_in"](text) == text, f"{path.name}: run benchmarks/fill_in.py"
        tables += text.count("<!-- begin ")
    assert tables >= 5
    # A digit that somebody changed by hand is noticed.
    changed, count = re.subn(r"\| [0-9.]+ × \|", "| 0.123 × |", README.read_text(encoding="utf-8"), count=1)
    assert count == 1
    assert module["filled_in"](changed) != changed
