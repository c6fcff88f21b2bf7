"""Local days, weeks and months as the refresh computes them, around every change of clocks of every IANA time zone.

bucket        … 23:15 23:30 23:45 00:00 …            each bucket lies in exactly one day,
days     ──────────── d ─────────│─── d + 1 ───      each day begins where the one before ends,
weeks, months ───────────────────│─────────────      each day lies in exactly one week and one month
"""

from __future__ import annotations

import os
import random
from typing import Any

from totalizer.catalog import Catalog
from totalizer.catalog.levels import MONTH, WEEK
from totalizer.rollup import marks
from totalizer.rollup.statements import _covers, _work
from totalizer.store.roles import Role

#: Changes of clocks looked at of each zone; all with TOTALIZER_ALL_TRANSITIONS=1, which takes some minutes.
SAMPLE = 10_000 if os.environ.get("TOTALIZER_ALL_TRANSITIONS") else 2

# Days of 1990 to 2037 that are not 24 hours long, a few of each zone, chosen anew in each run.
TRANSITIONS = """
    CREATE TEMP TABLE transitions AS
    SELECT id AS organization_id, time_zone, day, starts FROM (
        SELECT id, time_zone, day, starts, row_number() OVER (PARTITION BY id ORDER BY random()) AS place FROM (
            SELECT id, time_zone, day, day AT TIME ZONE time_zone AS starts,
                   (day + interval '1 day') AT TIME ZONE time_zone AS ends
            FROM totalizer.organizations, generate_series({first}, {last}, interval '1 day') AS day
        ) AS days WHERE ends - starts <> interval '24 hours'
    ) AS changes WHERE place <= {sample}"""


def test_the_days_weeks_and_months_of_every_zone_tile_time(database: Any, catalog: Catalog) -> None:
    administrator = database.connect()
    zones = administrator.execute(
        "INSERT INTO totalizer.organizations (name, time_zone) "
        "SELECT name, name FROM pg_timezone_names WHERE name !~ '^(posix|posixrules|right|localtime|Factory)'"
    ).rowcount
    assert zones > 400
    connection = database.connect(Role.REFRESHER)
    # Three of the years, others in each run, or all of them.
    years = (1990, 2037) if SAMPLE > 100 else (start := random.randrange(1990, 2036), start + 2)
    print("years", years)
    first, last = f"'{years[0]}-01-01'::timestamp", f"'{years[1]}-12-31'::timestamp"
    connection.execute(TRANSITIONS.format(first=first, last=last, sample=SAMPLE).encode())
    connection.execute(marks.WORK_TABLES)
    with connection.transaction():
        connection.execute(
            "INSERT INTO work SELECT DISTINCT organization_id, bucket, 'events' FROM transitions, generate_series("
            "date_bin('15 minutes', starts, 'epoch'::timestamptz) - interval '26 hours', starts + interval '50 hours', "
            "interval '15 minutes') AS bucket"
        )
        connection.execute("ANALYZE work")
        connection.execute(marks._DAYS)
        connection.execute("CREATE INDEX ON work_days (organization_id, _day)")
        connection.execute("ANALYZE work_days")
        [(buckets, zones_seen)] = connection.execute("SELECT count(*), count(DISTINCT organization_id) FROM work")
        assert buckets > 10_000
        assert zones_seen > 100
        assert (
            connection.execute(
                # By its date a bucket finds the days that it may lie in: every day of its zone would be quadratic.
                "SELECT time_zone, _bucket FROM work w JOIN totalizer.organizations o ON o.id = w.organization_id "
                "WHERE 1 <> (SELECT count(*) FROM work_days d WHERE d.organization_id = w.organization_id "
                "AND _day BETWEEN (_bucket AT TIME ZONE 'UTC')::date - 2 AND (_bucket AT TIME ZONE 'UTC')::date + 2 "
                "AND _starts <= _bucket AND _bucket < _ends)"
            ).fetchall()
            == []
        ), "in no day, or in two"
        assert (
            connection.execute(
                "SELECT o.time_zone, d.* FROM work_days d JOIN totalizer.organizations o ON o.id = d.organization_id "
                "JOIN work_days e ON e.organization_id = o.id AND e._day = d._day + 1 WHERE e._starts <> d._ends"
            ).fetchall()
            == []
        ), "a gap or an overlap"
        assert (
            connection.execute(
                "SELECT DISTINCT o.time_zone, _starts FROM work_days d JOIN totalizer.organizations o "
                "ON o.id = d.organization_id WHERE extract(epoch FROM _starts)::bigint % 900 <> 0"
            ).fetchall()
            == []
        ), "a day does not begin with a quarter of an hour"
        rollup = catalog.rollups["command_usage"]
        for level in (WEEK, MONTH):
            covered = connection.execute(
                f"SELECT d._day, count(*) FROM (SELECT DISTINCT _day FROM work_days) d "
                f"JOIN (SELECT DISTINCT _{level.key} FROM {_work(rollup, level)} w) w ON {_covers(level, 'd._day')} "
                f"GROUP BY 1 HAVING count(*) <> 1".encode()
            ).fetchall()
            assert covered == [], level.suffix
        weeks = connection.execute(f"SELECT DISTINCT extract(isodow FROM _week) FROM {_work(rollup, WEEK)} w".encode())
        assert weeks.fetchall() == [(1,)], "weeks begin on Monday"
