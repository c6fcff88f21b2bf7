"""Kept answers: found again as long as the data are the same, and never a moment longer."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from redis.asyncio import Redis

from integration.query.conftest import Asker
from totalizer.clock import SYSTEM_CLOCK
from totalizer.query.cache import AnswerCache
from totalizer.query.cost import QueryLimits
from totalizer.rollup.late import apply_late
from totalizer.rollup.retention import cleanup_old_data
from totalizer.store.roles import Role

REQUEST = {"start_date": "2025-04-01", "end_date": "2025-04-30", "aggregation_window": "1d", "measures": ["executions"]}


@pytest.fixture
def kept(feed: Any, database: Any, catalog: Any) -> Asker:
    """Asks with a cache in this process."""
    cache = AnswerCache(SYSTEM_CLOCK, ttl_s=300, bytes_max=1 << 20)
    return Asker(feed, database, catalog, cache=cache)


def send(feed: Any, command: Any, organization: str, **fields: Any) -> None:
    feed.send(organization, command_executions=[command(executed_at="2025-04-05T10:00:00Z", **fields)])


def test_an_answer_is_kept_until_its_data_change(feed: Any, command: Any, kept: Asker) -> None:
    mine, theirs = feed.organization("mine"), feed.organization("theirs")
    send(feed, command, mine)
    feed.load()
    first = kept.post(mine, **REQUEST)
    assert kept.post(mine, **REQUEST) == first
    assert (kept.cache.hits.process, kept.cache.hits.missed) == (1, 1)  # type: ignore[union-attr]
    # Neither others' data nor those of other types nor a refresh make another answer of it.
    send(feed, command, theirs)
    feed.send(mine, commits=[{"repository": "r", "commit_hash": "abcd1234", "author": "A", "is_merge": False,
                              "files_changed": 1, "lines_added": 1, "lines_removed": 1}])  # fmt: skip
    feed.load()
    feed.refresh()
    assert kept.post(mine, **REQUEST)["as_of"] == first["as_of"]
    send(feed, command, mine)
    incomplete = kept.post(mine, **REQUEST)
    assert (incomplete["as_of"], incomplete["complete"]) == (first["as_of"], False), "acknowledged, not yet loaded"
    feed.load()
    second = kept.post(mine, **REQUEST)
    assert [row["executions"] for row in second["data"]] == [2]
    assert second["complete"]
    assert kept.cache.hits.rate == pytest.approx(3 / 5)  # type: ignore[union-attr]


def test_a_tag_holds_as_long_as_the_answer(feed: Any, command: Any, kept: Asker) -> None:
    mine, theirs = feed.organization("mine"), feed.organization("theirs")
    send(feed, command, mine)
    feed.load()
    reply = kept.reply(mine, REQUEST)
    assert reply.etag is not None
    again = kept.reply(mine, REQUEST, f'"x", {reply.etag}')
    assert (again.body, again.etag) == (None, reply.etag)
    assert kept.reply(mine, REQUEST, "*").body is None
    assert kept.reply(theirs, REQUEST, reply.etag).body is not None, "the tag is of another organisation"
    assert kept.reply(mine, {**REQUEST, "fill": "zero"}, reply.etag).body is not None
    send(feed, command, mine)
    assert kept.reply(mine, REQUEST, reply.etag).body is not None, "no longer complete"
    feed.load()
    assert kept.reply(mine, REQUEST, reply.etag).etag != reply.etag


def test_what_changes_an_answer_changes_the_version(feed: Any, command: Any, kept: Asker) -> None:
    """Corrections and a new zone, not only what is loaded."""
    mine = feed.organization("mine")
    for number in range(3):
        send(feed, command, mine, id=str(number))
    feed.load()
    feed.refresh()
    assert kept.post(mine, **REQUEST)["data"][0]["executions"] == 3
    admin = feed.administrator
    admin.execute("DELETE FROM events.command_executions WHERE external_id = '0'")
    assert kept.post(mine, **REQUEST)["data"][0]["executions"] == 2
    admin.execute("UPDATE events.command_executions SET executed_at = '2025-04-05T23:30:00Z' WHERE external_id = '1'")
    assert kept.post(mine, **REQUEST)["data"][0]["executions"] == 2
    admin.execute("UPDATE totalizer.organizations SET time_zone = 'Europe/Berlin' WHERE id = %s", [mine])
    admin.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, scope) "
        "VALUES (%s, 'command_executions', '2025-04-05T23:30Z', 'days'), "
        "(%s, 'command_executions', '2025-04-05T10:00Z', 'days')", [mine, mine],
    )  # fmt: skip
    assert [row["executions"] for row in kept.post(mine, **REQUEST)["data"]] == [1, 1]


def test_what_is_removed_and_what_comes_late_changes_the_version(feed: Any, command: Any, kept: Asker) -> None:
    mine = feed.organization("mine")
    send(feed, command, mine, id="in time")
    feed.load()
    feed.refresh()
    before = kept.post(mine, **REQUEST)
    assert [row["executions"] for row in before["data"]] == [1]
    cleanup_old_data(feed.reader, today=date(2026, 6, 15))
    after = kept.post(mine, **REQUEST)
    assert after["as_of"] != before["as_of"], "the floors were raised"
    send(feed, command, mine)
    feed.load()
    kept.post(mine, **REQUEST)
    assert apply_late(feed.reader)["events"] == 1
    assert [row["executions"] for row in kept.post(mine, **REQUEST)["data"]] == [2]


def test_asked_at_once_it_is_found_once(feed: Any, command: Any, kept: Asker) -> None:
    mine = feed.organization("mine")
    send(feed, command, mine)
    feed.load()
    replies = kept.together([(mine, dict(REQUEST), None)] * 6)
    assert len({reply.body for reply in replies}) == 1
    hits = kept.cache.hits  # type: ignore[union-attr]
    assert (hits.missed, hits.shared + hits.process) == (1, 5)


def test_a_range_that_ends_now_ends_with_this_minute(feed: Any, command: Any, kept: Asker) -> None:
    mine = feed.organization("mine")
    end = datetime.fromisoformat(kept.post(mine)["query"]["end_date"])
    now = datetime.now(UTC)
    assert (end.second, end.microsecond) == (0, 0)
    assert now - timedelta(seconds=5) < end <= now + timedelta(seconds=60)


def test_any_order_of_changes_and_questions(feed: Any, command: Any, kept: Asker, ask: Asker) -> None:
    """An answer out of the cache equals one found anew."""
    seed = random.randrange(10**9)
    print(f"{seed=}")
    rng = random.Random(seed)
    mine = feed.organization("mine")
    for _ in range(60):
        step = rng.randrange(5)
        if step == 0:
            send(feed, command, mine, id=str(rng.randrange(20)), command_name=rng.choice("ab"))
        elif step == 1:
            feed.load()
        elif step == 2:
            feed.refresh()
        elif step == 3:
            feed.administrator.execute(
                "DELETE FROM events.command_executions WHERE external_id = %s", [str(rng.randrange(20))]
            )
        request = {**REQUEST, "group_by": ["command_name"], "order": [rng.choice(["window", "-executions"])]}
        told, found = kept.post(mine, **request), ask.post(mine, **request)
        assert (told["data"], told["complete"]) == (found["data"], found["complete"])
    assert kept.cache.hits.process > 10  # type: ignore[union-attr]


def test_with_redis_another_process_finds_it(
    feed: Any, command: Any, database: Any, catalog: Any, running_stack: Any
) -> None:
    import json

    url = json.loads((running_stack.home / "run" / "state.json").read_text())["redis_url"]

    def process(ttl_s: float = 300, redis_url: str = url) -> Asker:
        redis = Redis.from_url(redis_url, socket_connect_timeout=1, socket_timeout=1)
        cache = AnswerCache(SYSTEM_CLOCK, ttl_s=ttl_s, bytes_max=1 << 20, redis=redis)
        return Asker(feed, database, catalog, cache=cache)

    mine = feed.organization("mine")
    send(feed, command, mine)
    feed.load()
    first, second = process(), process()
    assert first.post(mine, **REQUEST) == second.post(mine, **REQUEST)
    assert (second.cache.hits.redis, second.cache.hits.missed) == (1, 0)  # type: ignore[union-attr]
    away = process(redis_url="redis://127.0.0.1:1")
    assert away.post(mine, **REQUEST)["data"] == second.post(mine, **REQUEST)["data"]
    assert away.cache.hits.missed == 1  # type: ignore[union-attr]


def test_old_answers_make_room(feed: Any, command: Any, database: Any, catalog: Any) -> None:
    mine = feed.organization("mine")
    cache = AnswerCache(SYSTEM_CLOCK, ttl_s=300, bytes_max=8000)
    small = Asker(feed, database, catalog, cache=cache)
    for number in range(30):
        small.post(mine, **{**REQUEST, "limit": number + 1})
    assert 0 < cache._bytes <= 8000
    assert cache._bytes == sum(len(answer) for _, answer in cache._kept.values())


def test_stale_numbers_are_neither_kept_nor_tagged(feed: Any, command: Any, database: Any, catalog: Any) -> None:
    mine = feed.organization("mine")
    cache = AnswerCache(SYSTEM_CLOCK, ttl_s=300, bytes_max=1 << 20)
    asker = Asker(feed, database, catalog, limits=QueryLimits(dirty_events=0), cache=cache)
    feed.send(mine, command_executions=[
        command(executed_at=f"2025-04-{day:02d}T{hour:02d}:00:00Z") for day in range(1, 29) for hour in range(24)
    ])  # fmt: skip
    feed.load()
    feed.administrator.execute("ANALYZE events.command_executions")
    reply = asker.reply(mine, REQUEST)
    told = asker.body_of(reply)
    assert (reply.etag, told["exact"], told["data"]) == (None, False, [])
    assert told["stale"][0]["start_date"] == "2025-04-01T00:00:00+00:00"
    exact = asker.post(mine, **REQUEST, exact=True)
    assert (exact["exact"], len(exact["data"])) == (True, 28)
    feed.refresh()
    assert len(asker.post(mine, **REQUEST)["data"]) == 28
    assert cache.hits.process == 0


def test_the_app_role_cannot_make_versions(database: Any) -> None:
    app = database.connect(Role.APP)
    for statement in (
        "INSERT INTO totalizer.data_versions VALUES (gen_random_uuid(), 'x', 0, gen_random_uuid())",
        "SELECT totalizer.data_changed(ARRAY[gen_random_uuid()], ARRAY['x'])",
        "UPDATE totalizer.data_versions SET slot = 1",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(statement)
