"""Writes the numbers that each experiment ends at, at its tiny size, for the tests to compare with."""

import json
from pathlib import Path

from concordax.experiments.names import ENTRIES
from test_experiments import ELSEWHERE, summary, tiny

if __name__ == "__main__":
    stored = {name: summary(tiny(name)[0]) for name in ENTRIES if name not in ELSEWHERE}
    text = json.dumps(stored, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")
