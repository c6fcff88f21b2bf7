"""`schema.sql` is the whole fixed schema at present, and the migrations arrive at it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import totalizer.store
from totalizer.ops.embedded import EmbeddedPostgres

SCHEMA = Path(totalizer.store.__file__).parent / "schema.sql"
HEADER = """\
-- The fixed schema at present, for reading; migrations/ makes it and a test compares the two.
-- After a new migration: UPDATE_SCHEMA=1 script/test tests/migration
"""


def dump(url: str, pg_dump: str) -> str:
    """The DDL of the fixed schema, without what differs from one dump to the next."""
    text = subprocess.run(
        [pg_dump, "--schema-only", "--schema=totalizer", "--no-owner", url],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    lines = [line for line in text.splitlines() if not re.match(r"--|SET |SELECT pg_catalog|\\(un)?restrict", line)]
    return HEADER + re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def test_migrations_arrive_at_the_schema(database: Any, cluster: Any) -> None:
    server: EmbeddedPostgres = cluster._server
    present = dump(database.url, str(server.program("pg_dump")))
    if os.environ.get("UPDATE_SCHEMA"):
        SCHEMA.write_text(present)
    assert SCHEMA.read_text() == present
