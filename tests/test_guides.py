"""Every Python block of the guides runs as a user would run it: in an interpreter of its own, warnings as errors."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

GUIDES = ("certificates", "diagnosis", "minibatches", "ntk", "regularizers", "sparsity")
FOLDER = Path(__file__).parent.parent / "docs"
BLOCKS = {
    f"{guide}-{number}": block
    for guide in GUIDES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", (FOLDER / f"{guide}.md").read_text(encoding="utf-8"), re.DOTALL | re.M)
    )
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs(name):
    code = BLOCKS[name]
    if "plots" in code and find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    # An example shows something only if it would notice being wrong.
    assert "\nassert " in code
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_blocks_are_found():
    assert len(BLOCKS) == 14
