"""What a sender sends again is stored once: at once, later, after a restart, within and across batches."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash import tally
from crash.chances import Chances
from crash.oracle import KEPT
from crash.pipeline import ROWS_MAX, Pipeline
from crash.proxy import Proxy
from support import Database
from totalizer.journal import Journal
from totalizer.load import Loader
from totalizer.store.roles import Role

NAMES = ["a", "b", "c", "d", "e"]


def at_once(pipeline: Pipeline) -> None:
    """The same request again before anything is loaded."""
    pipeline.acknowledge(NAMES)
    pipeline.acknowledge(NAMES)


def later(pipeline: Pipeline) -> None:
    """The same request again after it was loaded."""
    pipeline.acknowledge(NAMES)
    pipeline.load()
    pipeline.acknowledge(NAMES)


def after_a_restart(pipeline: Pipeline) -> None:
    """By a new API process, and a new loader."""
    pipeline.acknowledge(NAMES)
    pipeline.load()
    pipeline.journal.close()
    pipeline.open_journal()
    pipeline.acknowledge(NAMES)


def to_another_process(pipeline: Pipeline) -> None:
    """A load balancer sends the second one to another API process: another journal."""
    pipeline.acknowledge(NAMES)
    first = pipeline.journal
    try:
        pipeline.open_journal()
        assert pipeline.journal.folder != first.folder
        pipeline.acknowledge(NAMES)
    finally:
        first.close()


def within_a_batch(pipeline: Pipeline) -> None:
    """Twice in one request."""
    pipeline.acknowledge([*NAMES, *NAMES])


def across_batches(pipeline: Pipeline) -> None:
    """In other company each time."""
    pipeline.acknowledge(["a", "b", "c"])
    pipeline.acknowledge(["d", "c", "b"])
    pipeline.acknowledge(["e", "a", "d", "e"])


@pytest.mark.parametrize(
    "resend", [at_once, later, after_a_restart, to_another_process, within_a_batch, across_batches]
)
def test_a_resend_is_stored_once(pipeline: Pipeline, resend: Callable[[Pipeline], None]) -> None:
    resend(pipeline)
    pipeline.load()
    assert pipeline.fates() == (5, 5, 0, 0)
    assert pipeline.verdict() == KEPT


@pytest.mark.parametrize("loaded_between", [False, True])
def test_the_same_id_with_other_contents_keeps_the_first(pipeline: Pipeline, loaded_between: bool) -> None:
    pipeline.acknowledge(NAMES)
    if loaded_between:
        pipeline.load()
    pipeline.acknowledge(["b", "d"], altered=True)
    pipeline.load()
    assert pipeline.fates() == (5, 0, 2, 0)
    assert pipeline.verdict() == KEPT, "the first contents"


def test_a_client_that_hears_no_answer_sends_again(pipeline: Pipeline, chances: Chances) -> None:
    """The reply is lost after the record is durable, or the request before: the client cannot tell, and retries."""
    chance = chances.of("client")
    for number in range(chances.share("client")):
        names = [f"{number}-{each}" for each in range(chance.randrange(1, 6))]
        while True:
            outcome = chance.choice(["answered", "reply lost", "request lost"])
            tally.count("resend", outcome != "answered")
            if outcome != "request lost":
                pipeline.acknowledge(names)
            if outcome == "answered":
                break
        if chance.random() < 0.2:
            pipeline.load()
    pipeline.load()
    loaded, duplicate, conflict, dead = pipeline.fates()
    assert (loaded + duplicate, conflict, dead) == (pipeline.lines, 0, 0)
    assert loaded == len(set(pipeline.known().sent))
    assert pipeline.verdict() == KEPT


def test_resends_from_many_threads_at_once(pipeline: Pipeline) -> None:
    """Each thread sends every event; the loader works all the while."""
    stop = threading.Event()
    loader = Loader(pipeline.database.dsn(Role.WRITER), pipeline.spool, rows_max=ROWS_MAX)
    running = threading.Thread(target=loader.run, args=(stop,))
    payload = pipeline.acknowledge(NAMES)
    journal: Journal = pipeline.journal
    senders = [threading.Thread(target=lambda: [journal.append_and_wait(payload) for _ in range(20)]) for _ in range(4)]
    running.start()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    stop.set()
    running.join()
    pipeline.lines += 4 * 20 * 5
    assert pipeline.fates() == (5, 400, 0, 0)
    assert pipeline.verdict() == KEPT


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    """A way to the database that can be broken."""
    with Proxy(database.dsn(Role.WRITER)) as proxy:
        yield proxy


def test_resends_under_faults(pipelines: Callable[[], Pipeline], proxy: Proxy, chances: Chances) -> None:
    """Duplicates and conflicts in the very transactions that break, so that they are met again in the next try."""
    for number in range(chances.share("resends")):
        chance = chances.of("resends", number)
        pipeline = pipelines()
        for _ in range(6):
            pipeline.acknowledge(chance.choices(NAMES, k=4), altered=False)
            if chance.random() < 0.3:
                pipeline.acknowledge([f"new-{pipeline.lines}"], keyed=False)
        moment = chance.randrange(160)
        proxy.arm(moment, lose_reply=chance.random() < 0.5)
        pipeline.load(pipeline.loader(proxy.dsn))
        tally.count("connection broken", proxy.fired)
        proxy.disarm()
        assert pipeline.verdict() == KEPT, f"seed {chances.seed}, fault {number}, message {moment}"
        assert pipeline.fates()[2:] == (0, 0)
        pipeline.close()


def test_a_resend_is_found_however_its_time_differs(pipeline: Pipeline) -> None:
    """Without a time of its own each send is stamped anew, even into another partition."""
    payload = pipeline.acknowledge(NAMES)
    day = json.loads(payload.split(b"\n", 1)[0])["received_at"][:10].encode()
    pipeline.journal.append_and_wait(payload.replace(day, b"2024-02-29"))
    pipeline.lines += len(NAMES)
    pipeline.load()
    assert pipeline.fates() == (5, 5, 0, 0)
    assert pipeline.verdict() == KEPT


def test_a_spool_that_is_restored_from_a_copy_is_not_loaded_again(pipeline: Pipeline, tmp_path: Path) -> None:
    """An operator puts back a folder whose events are in the database: the offset is kept there, not in the folder."""
    pipeline.acknowledge(NAMES)
    pipeline.acknowledge(["x", "y"], keyed=False)
    pipeline.journal.close()
    shutil.copytree(pipeline.spool, tmp_path / "copy")
    pipeline.load()
    shutil.rmtree(pipeline.spool)
    shutil.copytree(tmp_path / "copy", pipeline.spool)
    pipeline.open_journal()
    pipeline.load()
    assert pipeline.fates() == (7, 0, 0, 0)
    assert pipeline.verdict() == KEPT
