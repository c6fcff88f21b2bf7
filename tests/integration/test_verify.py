"""A number that was changed by hand is found, named and repaired, whatever it is; and nothing else is ever named."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from integration.books import Books, Corrupted
from totalizer import failpoint
from totalizer.catalog.levels import LEVELS, Level
from totalizer.errors import OperationError
from totalizer.failpoint import Failpoint
from totalizer.rollup.cell import NAMES, Cell
from totalizer.rollup.reconcile import reconcile
from totalizer.rollup.refresh import refresh
from totalizer.rollup.repair import repair, wrong_of
from totalizer.rollup.verify import Balance, Scope, verify
from totalizer.store.roles import Role


@pytest.fixture
def books(feed: Any) -> Books:
    """Books that balance."""
    seed = random.randrange(10**9)
    print("seed", seed)
    return Books(feed, random.Random(seed))


@pytest.fixture
def helper(feed: Any) -> Iterator[Any]:
    """Another connection as the refresher."""
    connection = feed.database.connect(Role.REFRESHER)
    yield connection
    connection.close()


def cells_of(balances: list[Balance]) -> list[Cell]:
    return [cell for balance in balances for cell in balance.cells]


def place(cell: Cell) -> Corrupted:
    return Corrupted(cell.organization, cell.rollup, cell.level, cell.starts, cell.dimensions["name"])


def balanced(feed: Any) -> bool:
    return all(balance.exact for balance in verify(feed.reader))


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.suffix)
def test_a_number_changed_by_hand_is_found_named_and_repaired(
    feed: Any, books: Books, helper: Any, level: Level
) -> None:
    before = books.rows()
    assert balanced(feed)
    for column in books.columns():
        done = books.change(level, column)
        balances = verify(feed.reader, helpers=[helper])
        cells = cells_of(balances)
        assert [(place(cell), list(cell.values)) for cell in cells if cell.level is level] == [(done, [column])]
        [wrong] = [balance for balance in balances if not balance.exact]
        assert wrong.organization == done.organization
        assert wrong.mismatches[f"by_name ({NAMES[level]})"] == 1
        repaired = sum(repair(feed.reader, each, repaired_by="a test") for each in wrong_of(cells))
        assert repaired == 1, "one row was wrong: what is made from it was right and is again"
        assert books.rows() == before
    assert balanced(feed)
    noted = feed.rows("SELECT repaired_by, found_by, grain, rows, jsonb_array_length(changes) FROM totalizer.repairs")
    assert noted == [("a test", "verify", level.suffix, 1, 1)] * len(books.columns())


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.suffix)
def test_a_missing_row_and_an_invented_one(feed: Any, books: Books, level: Level) -> None:
    before = books.rows()
    for corrupt, row in ((books.remove, "missing"), (books.invent, "unfounded")):
        done = corrupt(level)
        cells = cells_of(verify(feed.reader))
        [named] = [cell for cell in cells if cell.level is level]
        assert (place(named), named.document()["row"]) == (done, row)
        for each in wrong_of(cells):
            repair(feed.reader, each)
        assert books.rows() == before


def test_every_one_of_many_changed_rows_is_found(feed: Any, books: Books, helper: Any) -> None:
    before = books.rows()
    for _ in range(5):
        done = set()
        for _ in range(books.rng.randrange(1, 12)):
            # A row below would be named as well where what it is made from was changed.
            level = books.rollup.kept[-1] if books.rng.random() < 0.5 else books.rollup.kept[-2]
            corrupt = books.rng.choice([books.remove, books.invent, lambda level: books.change(level, "n")])
            if corrupt == books.invent and any(each.name == "zzz" for each in done):
                continue
            done.add(corrupt(level))
        cells = cells_of(verify(feed.reader, helpers=[helper]))
        gone = {each for each in done if each not in {place(cell) for cell in cells}}
        # What was invented and then deleted is as it was.
        assert all(each.name == "zzz" for each in gone)
        for each in wrong_of(cells):
            repair(feed.reader, each)
        assert books.rows() == before


def test_a_table_that_lost_everything_is_computed_anew(feed: Any, books: Books) -> None:
    before = books.rows()
    tables = ", ".join(books.table(level) for level in books.rollup.kept)
    feed.administrator.execute(f"TRUNCATE {tables}".encode())
    balances = verify(feed.reader)
    cells = cells_of(balances)
    rows = len(before["15m"])
    assert sum(balance.mismatches.get("by_name (base)", 0) for balance in balances) == rows
    for each in wrong_of(cells):
        repair(feed.reader, each)
    assert books.rows() == before


def test_what_is_compared_can_be_narrowed(feed: Any, books: Books) -> None:
    done = books.change(LEVELS[3], "n")
    others = [name for name in books.names.values() if name != done.organization]
    assert all(balance.exact for balance in verify(feed.reader, Scope(organization=others[0])))
    [balance] = [each for each in verify(feed.reader, Scope(organization=done.organization)) if each.cells]
    assert balance.organization == done.organization
    assert not cells_of(verify(feed.reader, Scope(event_type="command_executions")))
    assert not cells_of(verify(feed.reader, Scope(rollup="command_usage")))
    assert len(cells_of(verify(feed.reader, Scope(rollup="by_name")))) >= 1
    later = feed.one("SELECT max(day)::timestamptz + interval '3 days' FROM analytics.by_name_1d")
    assert not cells_of(verify(feed.reader, Scope(since=later)))
    for wrong in (Scope(organization="nobody"), Scope(event_type="nothing"), Scope(rollup="none")):
        with pytest.raises(OperationError, match=r"there is no|no organisation"):
            verify(feed.reader, wrong)


def test_a_repair_does_not_touch_what_is_marked_or_below_the_floor(feed: Any, books: Books) -> None:
    """Below the raw floor events may be gone: what is kept there is right by definition."""
    feed.administrator.execute(
        "INSERT INTO totalizer.retention_floors (event_type, raw_floor, base_floor) "
        "VALUES ('things', '2025-06-01Z', '2025-05-01Z')"
    )
    feed.administrator.execute("UPDATE analytics.by_name_15m SET n = n + 1 WHERE bucket < '2025-06-01Z'")
    feed.administrator.execute("UPDATE analytics.by_name_1mo SET n = n + 1 WHERE month < '2025-06-01'")
    below = feed.rows("SELECT t::text FROM analytics.by_name_15m t WHERE bucket < '2025-06-01Z' ORDER BY 1")
    cells = cells_of(verify(feed.reader))
    assert {cell.level.suffix for cell in cells} == {"1mo"}, "a month is made from days, which are kept for ever"
    for each in wrong_of(cells):
        repair(feed.reader, each)
    assert not cells_of(verify(feed.reader))
    assert feed.rows("SELECT t::text FROM analytics.by_name_15m t WHERE bucket < '2025-06-01Z' ORDER BY 1") == below


def test_it_never_cries_wolf_while_events_come(feed: Any, books: Books, helper: Any) -> None:
    """Loading and refreshing go on; every look is of one moment."""
    done = threading.Event()
    failures: list[BaseException] = []

    def go_on() -> None:
        with feed.database.connect(Role.REFRESHER) as connection:
            try:
                while not done.is_set():
                    refresh(connection)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails with it
                failures.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for _ in range(12):
            for organization in books.names:
                books.send(organization, 25)
            feed.load()
            wrong = [balance for balance in verify(feed.reader, helpers=[helper]) if not balance.exact]
            looked = reconcile(feed.reader, samples=1, budget_s=60)
            assert (wrong, looked["mismatched"]) == ([], 0), looked
    finally:
        done.set()
        thread.join()
    assert failures == []


def test_the_reconciler_finds_and_repairs_what_it_looks_at(feed: Any, books: Books) -> None:
    before = books.rows()
    assert reconcile(feed.reader, budget_s=60)["mismatched"] == 0
    feed.administrator.execute("UPDATE analytics.by_name_1d SET n = n + 1")
    feed.administrator.execute("DELETE FROM analytics.by_name_1w")
    looked = reconcile(feed.reader, budget_s=60)
    assert looked["mismatched"] >= 2
    assert looked["repaired"] >= 2
    assert looked["mismatches"][0]["rollup"] == "by_name"
    noted = feed.one("SELECT sum(mismatched)::int FROM totalizer.reconciled WHERE rollup = 'by_name'")
    assert noted == looked["mismatched"]
    assert feed.one("SELECT count(*) > 0 FROM totalizer.repairs WHERE found_by = 'reconcile'")
    for _ in range(50):
        if books.rows() == before:
            break
        reconcile(feed.reader, budget_s=60)
    assert books.rows() == before, "by and by it comes to look at every day"


def test_the_reconciler_keeps_within_its_budget(feed: Any, books: Books) -> None:
    looked = reconcile(feed.reader, budget_s=0)
    assert looked["rollups"] == 1


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_repair_that_is_killed_has_done_nothing(feed: Any, books: Books, nth: int) -> None:
    before = books.rows()
    for level in books.rollup.kept:
        books.change(level, "n")
    wrong = books.rows()

    def repair_all() -> None:
        nonlocal wrong
        for each in wrong_of(cells_of(verify(feed.reader))):
            repair(feed.reader, each)
            wrong = books.rows()

    failpoint.arm(f"{Failpoint.LEVEL_REPAIRED.value}=raise:{nth}")
    try:
        with pytest.raises(OSError, match=r"repair\.level\.computed"):
            repair_all()
    finally:
        failpoint.arm("")
    assert books.rows() == wrong
    repair_all()
    assert books.rows() == before
