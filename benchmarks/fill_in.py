"""Writes the tables of the records into README.md and docs/, between the comments that name record and script.

    python benchmarks/fill_in.py

A table stands between `<!-- begin RECORD, by SCRIPT -->` and `<!-- end -->`; it is `markdown(record)` of the script.
The tests compare the files with what this would write.
"""

import functools
import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_TABLE = re.compile(r"(<!-- begin (?P<record>\S+), by (?P<script>\S+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


@functools.cache
def _markdown(script: str) -> Callable[[dict], str]:
    return runpy.run_path(str(ROOT / script))["markdown"]


def filled_in(text: str) -> str:
    """The text with every table as its record has it."""

    def table(match: re.Match) -> str:
        record = json.loads((ROOT / match["record"]).read_text(encoding="utf-8"))
        return f"{match[1]}\n{_markdown(match['script'])(record)}\n{match[4]}"

    return _TABLE.sub(table, text)


def main() -> None:
    """Rewrites the files."""
    for path in FILES:
        before = path.read_text(encoding="utf-8")
        after = filled_in(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: tables written anew")


if __name__ == "__main__":
    main()
