"""The comparison of tables in short, for the README: errors of the named tables alone, from the same record."""

from datasets import NAMED
from tables import error_table


def markdown(record: dict) -> str:
    """Errors by table and contestant."""
    tables = record["tables"]
    return "\n".join(error_table(tables, [name for name in NAMED if "concordax" in tables.get(name, {})])) + "\n"
