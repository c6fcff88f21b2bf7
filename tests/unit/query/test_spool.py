"""What waits between an export and its client: in order, whole, and no more than there is room for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalizer.errors import OperationError
from totalizer.query.exports.spool import MEMORY_BYTES, Spool, SpoolRoom

ROOM = 6 * MEMORY_BYTES
PIECE = MEMORY_BYTES // 2


def on_disk(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3 * MEMORY_BYTES), max_size=12), st.integers(0, ROOM), st.randoms())
def test_everything_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], bytes_max: int, chance: random.Random
) -> None:
    room = SpoolRoom(tmp_path_factory.getbasetemp() / "spool", bytes_max)
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    came: list[bytes] = []

    async def work() -> None:
        spool = Spool(room, 60)

        async def make() -> None:
            for piece in sent:
                await spool.put(piece)
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
            spool.end(b"the end")

        making = asyncio.create_task(make())
        while (piece := await spool.get()) is not None:
            came.append(piece)
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        await making
        spool.close()

    run(work)
    assert came == [*sent, b"the end"]
    assert room.take(bytes_max), "all room is free again"
    assert not on_disk(tmp_path_factory.getbasetemp() / "spool"), "its file has no name"


def test_who_takes_nothing_is_let_go_when_the_room_is_full(tmp_path: Path) -> None:
    """
    memory  |1|2|
    disk        |3|4|  room for two
                    5 waits, and is given up
    """
    room = SpoolRoom(tmp_path / "spool", 2 * PIECE)

    async def work() -> None:
        spool = Spool(room, 0.05)
        for number in range(1, 5):
            await spool.put(bytes([number]) * PIECE)
        with pytest.raises(OperationError, match=r"taken nothing for 0\.05 s \(TOTALIZER_EXPORT_CLIENT_TIMEOUT_MS\)"):
            await spool.put(b"5")
        spool.end(b"broken")
        came = [await spool.get() for _ in range(6)]
        assert came == [*(bytes([number]) * PIECE for number in range(1, 5)), b"broken", None]
        assert room.take(2 * PIECE), "what was taken is free again"

    run(work)


def test_a_spool_that_is_closed_gives_its_room_back(tmp_path: Path) -> None:
    room = SpoolRoom(tmp_path / "spool", 2 * PIECE)

    async def work() -> None:
        spool = Spool(room, 1)
        for _ in range(4):
            await spool.put(bytes(PIECE))
        assert not room.take(1)
        spool.close()
        assert room.take(2 * PIECE)

    run(work)


def test_a_disk_that_takes_no_more_is_waited_for_like_a_full_one(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.write_text("a file where the folder should be")

    async def work() -> None:
        spool = Spool(SpoolRoom(folder, ROOM), 0.05)
        await spool.put(bytes(MEMORY_BYTES))
        with pytest.raises(OperationError, match="taken nothing"):
            await spool.put(b"more")

    run(work)
