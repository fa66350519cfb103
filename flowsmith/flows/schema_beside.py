"""Which schema a domain chooses from: that of an installation, if one was written beside it."""

from pathlib import Path

from flowsmith.flows.schema import Schema

SCHEMA_FILE = "schema.json"


def schema_beside(domain: str | Path) -> Schema:
    """Return the schema in ``schema.json`` beside a domain's file (`flowsmith corpus build` writes both), or core's.

    Raises:
        SchemaError: The file holds no schema.
    """
    path = Path(domain).with_name(SCHEMA_FILE)
    return Schema.from_file(path) if path.exists() else Schema.core()
