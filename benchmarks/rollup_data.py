"""A database of its own with events of many organisations, spread over days, and what computes a rollup plainly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.conninfo import make_conninfo

from totalizer.catalog.levels import BASE, DAY, HOUR, MONTH, WEEK, Level
from totalizer.catalog.read import parse_catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.ops.embedded import EmbeddedPostgres
from totalizer.store import ddl
from totalizer.store.migrate import migrate
from totalizer.store.password import password_for
from totalizer.store.roles import Role, role_dsn

SECRET = "a secret of the benchmark"
ORGANIZATIONS = 100
FIRST_DAY = "2025-03-01"
CATALOG = parse_catalog([("benchmark.toml", """
[event_type.calls]
time = "called_at"
subject = "caller"
[event_type.calls.fields]
caller = { type = "text", length_max = 50 }
route = { type = "text", length_max = 50 }
ms = { type = "integer" }
cost = { type = "decimal" }
[rollup.traffic]
event_type = "calls"
dimensions = ["route"]
[rollup.traffic.measures]
calls = { kind = "count" }
cost = { kind = "sum", field = "cost" }
ms_max = { kind = "max", field = "ms" }
""")])  # fmt: skip
ROLLUP, EVENT_TYPE = CATALOG.rollups["traffic"], CATALOG.event_types["calls"]

_FILL = """
    INSERT INTO events.calls (organization_id, called_at, id, received_at, caller, route, ms, cost)
    WITH o AS MATERIALIZED (SELECT array_agg(id ORDER BY name) AS ids FROM totalizer.organizations)
    SELECT ids[1 + floor(random() * %(organizations)s)], called_at, gen_random_uuid(), called_at, 'c' || n %% 50,
           'r' || floor(random() * 5), floor(random() * 1000), floor(random() * 1e6) / 100
    FROM o, generate_series(1, %(events)s) AS n, LATERAL (
        SELECT %(from)s::timestamptz + n * (%(seconds)s::double precision / %(events)s) * interval '1 second'
    ) AS at (called_at)"""


class Books:
    """An open database.

    Attributes:
        administrator, refresher: connections.
        dsn: of the refresher, for more of them.
    """

    def __init__(self, url: str) -> None:
        self.administrator: Connection[Any] = psycopg.connect(url, autocommit=True)
        migrate(self.administrator, CATALOG, SECRET)
        self.dsn = role_dsn(url, Role.REFRESHER, SECRET)
        self.refresher: Connection[Any] = psycopg.connect(self.dsn, autocommit=True)

    def close(self) -> None:
        """End both connections."""
        self.refresher.close()
        self.administrator.close()

    def fill(self, events: int, days: float, since: str = FIRST_DAY) -> None:
        """Store events of all organisations, evenly over some days."""
        self.administrator.execute(
            "INSERT INTO totalizer.organizations (name) SELECT 'o' || n FROM generate_series(1, %s) AS n "
            "ON CONFLICT DO NOTHING", [ORGANIZATIONS],
        )  # fmt: skip
        self.administrator.execute(
            "SELECT totalizer.ensure_partition('calls', %s::date + n) FROM generate_series(0, %s) AS n",
            [since, int(days) + 1],
        )
        self.administrator.execute(
            _FILL,
            {"organizations": ORGANIZATIONS, "events": events, "from": f"{since}T00:00:00Z", "seconds": days * 86400},
        )
        self.administrator.execute("VACUUM ANALYZE events.calls")

    def empty_rollup(self) -> None:
        """As if the rollup had just been declared: nothing computed, everything marked."""
        tables = ", ".join(f"analytics.{ROLLUP.table(level)}" for level in ROLLUP.kept)
        self.administrator.execute(f"TRUNCATE totalizer.dirty_marks, {tables}".encode())
        self.administrator.execute(ddl.mark_rollup(ROLLUP, EVENT_TYPE).encode())
        self.administrator.execute("ANALYZE totalizer.dirty_marks")

    def plainly(self, levels: tuple[Level, ...]) -> float:
        """Seconds to compute grains with one statement each, into tables like the rollup's."""
        for level in levels:
            self.administrator.execute(f"DROP TABLE IF EXISTS plain_{level.suffix}".encode())
            like = f"CREATE TABLE plain_{level.suffix} (LIKE analytics.{ROLLUP.table(level)} INCLUDING ALL)"
            self.administrator.execute(like.encode())
        started = SYSTEM_CLOCK.monotonic()
        with self.administrator.transaction():
            for level in levels:
                self.administrator.execute(f"INSERT INTO plain_{level.suffix} {_PLAIN[level]}".encode())
        return SYSTEM_CLOCK.monotonic() - started

    def value(self, statement: str) -> Any:
        """The first value that a statement answers."""
        row = self.administrator.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


_ORDERED = "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
_MERGED = "route, sum(calls)::bigint, sum(cost), max(ms_max)"
_PLAIN = {
    BASE: "SELECT organization_id, date_bin('15 minutes', called_at, 'epoch'::timestamptz), route, count(*), "
    f"sum(cost::numeric), max(ms) FROM events.calls {_ORDERED}",
    HOUR: f"SELECT organization_id, date_trunc('hour', bucket, 'UTC'), {_MERGED} FROM plain_15m {_ORDERED}",
    DAY: f"SELECT organization_id, (bucket AT TIME ZONE 'UTC')::date, {_MERGED} FROM plain_15m {_ORDERED}",
    WEEK: f"SELECT organization_id, date_trunc('week', day)::date, {_MERGED} FROM plain_1d {_ORDERED}",
    MONTH: f"SELECT organization_id, date_trunc('month', day)::date, {_MERGED} FROM plain_1d {_ORDERED}",
}


@contextmanager
def books(kept_in: Path | None = None) -> Iterator[Books]:
    """A cluster and its database for the length of the with-block.

    Args:
        kept_in: folder in which they stay, and are found again; None: fresh ones, gone afterwards.
    """
    folder = tempfile.TemporaryDirectory(prefix="totalizer-bench-") if kept_in is None else nullcontext(str(kept_in))
    with folder as name, EmbeddedPostgres(Path(name), SECRET) as server:
        opened = Books(make_conninfo(server.url, user="postgres", password=password_for(SECRET, "postgres")))
        try:
            yield opened
        finally:
            opened.close()
