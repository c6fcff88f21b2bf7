"""What machines tell each other through Redis for live windows: the records that somebody elsewhere asks for.

Keys, all below `totalizer:live:`

    asked                        sorted set, `{organization id} {journal id of who asks}` → when, see attend.lua
    journals                     sorted set, journal id → when its machine was last heard of
    notice:{journal id}          string, a Notice
    records:{organization id}:{journal id}
                                 stream; an entry's id is the place in the journal behind its last record, so what is
                                 there cannot come twice. Fields: `after`, the id of the entry before; `records`, packed
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from totalizer.errors import StoreUnavailable
from totalizer.journal import Position, Record
from totalizer.prepared import prepared

KEY_PREFIX = "totalizer:live"
#: Seconds that a request for an organisation's records holds, and that records are kept after their machine is gone: as
#: long as the longest live window.
ASKED_S, JOURNAL_S = 5, 86_400
#: Entries of one stream read at once.
ENTRIES_MAX = 8
#: zlib's fastest.
_LEVEL = 1

_ATTEND = (resources.files("totalizer.live") / "attend.lua").read_text("utf-8")
_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(list[tuple[int, int, int, bytes]]).decode


class Covered(NamedTuple):
    """What a stream has of an organisation's records in a journal.

    Attributes:
        since: all that are behind this place.
        last: the place behind the last of them; `since` if there is none.
    """

    since: str
    last: str


@prepared
class Notice(msgspec.Struct, frozen=True):
    """How far a journal's records are told.

    Attributes:
        to: up to this place.
        behind: True if there are more than may wait.
        covered: by organisation, those that are told.
    """

    to: str
    behind: bool
    covered: dict[str, Covered]


class Entry(NamedTuple):
    """Records of one organisation that follow one another in a journal.

    Attributes:
        after: the place behind the last of the entry before.
        records: in their order, at least one.
    """

    after: Position
    records: list[Record]


class Wanted(NamedTuple):
    """The records of an organisation in a journal behind a place."""

    organization_id: str
    journal_id: str
    position: Position


class Changes:
    """What is told at once, of one journal.

    Args:
        journal_id: of the journal.
        pipeline: that carries it out.
    """

    def __init__(self, journal_id: str, pipeline: Any) -> None:
        self._journal_id, self._pipeline = journal_id, pipeline

    def begin(self, organization_id: str) -> None:
        """Forget what was told of an organisation."""
        self._pipeline.delete(_records_key(organization_id, self._journal_id))

    def add(self, organization_id: str, entry: Entry) -> int:
        """Tell records; returns how many bytes that takes."""
        packed = zlib.compress(
            _pack([(r.sequence, r.position_after.segment, r.position_after.offset, r.payload) for r in entry.records]),
            _LEVEL,
        )
        key = _records_key(organization_id, self._journal_id)
        fields = {"after": place(entry.after), "records": packed}
        self._pipeline.xadd(key, fields, id=place(entry.records[-1].position_after))
        self._pipeline.expire(key, JOURNAL_S)
        return len(packed)

    def trim(self, organization_id: str, position: Position) -> None:
        """Forget the entries that end before a place."""
        self._pipeline.xtrim(_records_key(organization_id, self._journal_id), minid=place(position), approximate=False)

    def notice(self, notice: Notice | None) -> None:
        """Tell how far it is told; None: it is told no more."""
        if notice is None:
            self._pipeline.delete(_notice_key(self._journal_id))
        else:
            self._pipeline.set(_notice_key(self._journal_id), _pack(notice), ex=JOURNAL_S)


class LiveRelay:
    """The way to the other machines.

    Args:
        redis: with time limits of its own.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def attend(self, asked: Sequence[str] = (), journals: Sequence[str] = ()) -> tuple[dict[str, float], ...]:
        """Say what is asked for here, and which journals are here.

        Returns:
            What is asked for anywhere and which journals there are, each with how many seconds ago that was said.

        Raises:
            StoreUnavailable: there is no answer.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.eval(_ATTEND, 1, f"{KEY_PREFIX}:asked", ASKED_S, *asked)
        pipeline.eval(_ATTEND, 1, f"{KEY_PREFIX}:journals", JOURNAL_S, *journals)
        return tuple(map(_ages, await _executed(pipeline)))

    def pipeline(self) -> Any:
        """Carries changes out, all or none."""
        return self._redis.pipeline(transaction=True)

    async def carry_out(self, pipeline: Any) -> None:
        """Carry changes out.

        Raises:
            StoreUnavailable: there is no answer; they may have been carried out.
        """
        await _executed(pipeline)

    async def notices(self, journal_ids: Sequence[str]) -> dict[str, Notice]:
        """What is told of journals; those of which nothing is are left out.

        Raises:
            StoreUnavailable: there is no answer.
        """
        if not journal_ids:
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.mget([_notice_key(journal_id) for journal_id in journal_ids])
        [answers] = await _executed(pipeline)
        return {
            journal_id: msgspec.msgpack.decode(answer, type=Notice)
            for journal_id, answer in zip(journal_ids, answers, strict=True)
            if answer is not None
        }

    async def records(self, wanted: Sequence[Wanted]) -> list[list[Entry]]:
        """The next entries of each stream, at most ENTRIES_MAX.

        Raises:
            StoreUnavailable: there is no answer.
        """
        if not wanted:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for each in wanted:
            key = _records_key(each.organization_id, each.journal_id)
            pipeline.xrange(key, min=f"({place(each.position)}", count=ENTRIES_MAX)
        return [[_entry(fields) for _, fields in answer] for answer in await _executed(pipeline)]


def place(position: Position) -> str:
    """A position as the id of a stream's entry."""
    return f"{position.segment}-{position.offset}"


def position_of(text: str) -> Position:
    """What `place` made."""
    segment, _, offset = text.partition("-")
    return Position(int(segment), int(offset))


def _ages(answer: list[bytes]) -> dict[str, float]:
    return {name.decode(): float(age) for name, age in zip(answer[::2], answer[1::2], strict=True)}


def _entry(fields: dict[bytes, bytes]) -> Entry:
    records = _unpack(zlib.decompress(fields[b"records"]))
    return Entry(
        position_of(fields[b"after"].decode()),
        [Record(Position(segment, offset), sequence, payload) for sequence, segment, offset, payload in records],
    )


def _records_key(organization_id: str, journal_id: str) -> str:
    return f"{KEY_PREFIX}:records:{organization_id}:{journal_id}"


def _notice_key(journal_id: str) -> str:
    return f"{KEY_PREFIX}:notice:{journal_id}"


async def _executed(pipeline: Any) -> list[Any]:
    try:
        answers: list[Any] = await pipeline.execute()
    except (RedisError, OSError) as error:
        _end_if_cancelled()
        raise StoreUnavailable(f"Redis carries no records for live windows: {error}") from None
    _end_if_cancelled()
    return answers


def _end_if_cancelled() -> None:
    """A request that is cancelled while it is written may come back as failed, or be sent again by the client."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
