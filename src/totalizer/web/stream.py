"""Streams of events, one a line of JSON, of any length: taken in pieces, each on disk before many more are read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from totalizer.catalog import EventType
from totalizer.collect import Admission, Collector, Sent, Wrong, admit_each, admit_lines
from totalizer.collect.bodies import BOM, UNDECODABLE, not_json
from totalizer.errors import JournalFailed, Refusal, Refused
from totalizer.web.described import forms, taken
from totalizer.web.described.forms import Form
from totalizer.web.durable import refusal_of
from totalizer.web.encoding import StreamDecoder, check_encoding
from totalizer.web.intake import Request, Route, Sink, wants_atomic
from totalizer.web.principal import Principal
from totalizer.web.schemas import event_example

#: Media types of events by line; the first is the usual one.
MEDIA_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
#: Lines admitted at once; between two pieces other requests have their turn.
PIECE_LINES = 1000
#: Pieces on their way to the disk; no more of the body is read until the oldest is there.
PIECES_WAITING_MAX = 4
#: Lines that are not accepted named in the answer, the first ones.
ITEMS_MAX = 100
#: Blocks of lines whose receipts are in the answer, the first ones: ten million lines that come fast, 1.5 MB.
RECEIPTS_MAX = 10_000
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: Names the type of each event of a stream of several.
TYPE_KEY = "event_type"


class StreamRoute(Route):
    """Events of one type, or of any, one a line.

    Args:
        collector: admits them.
        event_type: of all; None if each line names its own as `event_type`.
        line_bytes_max: longest line.
    """

    streams = True
    answers = MappingProxyType({202: taken.STREAM})

    def __init__(self, collector: Collector, event_type: EventType | None, line_bytes_max: int) -> None:
        self._collector, self._event_type, self._line_bytes_max = collector, event_type, line_bytes_max
        what = "any types" if event_type is None else event_type.title
        self.summary = f"Send a stream of events: {what}"
        self.body = Form(
            forms.text("One JSON object a line."), _example(event_type, collector), media_type=MEDIA_TYPES[0]
        )

    async def stream(
        self, principal: Principal, request: Request, chunks: AsyncIterator[bytes], sink: Sink
    ) -> tuple[bytes, int]:
        _refuse_atomic(request)
        decoder = StreamDecoder(check_encoding(request.headers.get("content-encoding")))
        lines, progress = Lines(self._line_bytes_max), Progress(sink, principal.organization_id)
        try:
            async for chunk in chunks:
                for piece in decoder.pieces(chunk):
                    for some in lines.split(piece):
                        await self._take(progress, principal.organization_id, some)
            decoder.end()
            for some in lines.end():
                await self._take(progress, principal.organization_id, some)
            await progress.settle()
        except (Refused, JournalFailed) as error:
            raise await progress.broken_off(refusal_of(error)) from None
        return progress.answer(), 202

    async def _take(self, progress: Progress, organization_id: str, lines: list[bytes]) -> None:
        admission = self._admitted(organization_id, lines)
        refused = [
            RefusedLine(progress.lines_read + item.index + 1, item.event_type, item.code, item.message)
            for item in admission.items
        ]
        await progress.put(admission.payload, len(lines), admission.accepted, refused)

    def _admitted(self, organization_id: str, lines: list[bytes]) -> Admission:
        if self._event_type is not None:
            return admit_lines(self._collector, organization_id, self._event_type.name, lines)
        sent = (self._sent(line) if line.strip() else None for line in lines)
        return admit_each(self._collector, organization_id, sent)

    def _sent(self, line: bytes) -> Sent | Wrong:
        """A line that names its type."""
        try:
            members = _MEMBERS.decode(line)
            name = msgspec.json.decode(members.get(TYPE_KEY, b"null"))
        except msgspec.ValidationError:
            return Wrong(f"an event must be a JSON object with its {TYPE_KEY}")
        except UNDECODABLE as error:
            return Wrong(f"it {not_json(error)}", Refusal.BAD_JSON)
        if not isinstance(name, str):
            return Wrong(f"{TYPE_KEY}: is missing; it must be the name of an event type")
        tools = self._collector.tools.get(name)
        if tools is not None and tools.event_type.by_key(TYPE_KEY) is None:
            del members[TYPE_KEY]
        return Sent(name, msgspec.json.encode(members))


def _example(event_type: EventType | None, collector: Collector) -> str:
    """A line, as text."""
    of = event_type or next(iter(collector.event_types))
    named = {TYPE_KEY: of.name} if event_type is None else {}
    return msgspec.json.encode({**named, **event_example(of)}).decode() + "\n"


class Lines:
    """Divides a body into lines.

    Args:
        bytes_max: longest line.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        self._first = True

    def split(self, piece: bytes) -> Iterator[list[bytes]]:
        """The lines that end in this piece, at most PIECE_LINES at a time.

        Raises:
            Refused: a line is too long.
        """
        *ended, rest = piece.split(b"\n")
        if ended:
            ended[0] = b"".join((*self._begun, ended[0]))
            self._begun, self._begun_bytes = [], 0
            yield from self._checked(ended)
        if rest:
            self._begun.append(rest)
            self._begun_bytes += len(rest)
        if self._begun_bytes > self._bytes_max:
            raise self._too_long()

    def end(self) -> Iterator[list[bytes]]:
        """The last line, if no newline ends it."""
        if self._begun:
            yield from self._checked([b"".join(self._begun)])

    def _checked(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        if self._first:
            lines[0], self._first = lines[0].removeprefix(BOM), False
        for start in range(0, len(lines), PIECE_LINES):
            some = lines[start : start + PIECE_LINES]
            if max(map(len, some)) > self._bytes_max:
                raise self._too_long()
            yield some

    def _too_long(self) -> Refused:
        return Refused(Refusal.BODY_TOO_LARGE, f"a line is longer than {self._bytes_max} bytes")


class RefusedLine(NamedTuple):
    """A line that was not accepted; lines count from 1."""

    line: int
    event_type: str
    code: str
    message: str


class Block(msgspec.Struct, frozen=True, gc=False):
    """Lines that are in one journal record, and its receipt; lines count from 1."""

    first_line: int
    last_line: int
    receipt: str


class Waiting(NamedTuple):
    """A piece on its way to the disk; no future if nothing of it is to be kept."""

    durable: asyncio.Future[int] | None
    lines: int
    accepted: int
    refused: list[RefusedLine]


class Progress:
    """How far a stream has come.

    Args:
        sink: where its pieces go.
        organization_id: whose it is.

    Attributes:
        lines_read: lines taken from the body so far.
    """

    def __init__(self, sink: Sink, organization_id: str) -> None:
        self._append, self._receipt = sink.append, partial(sink.receipt, organization_id)
        self._waiting: deque[Waiting] = deque()
        self._lines = self._accepted = self._rejected = 0
        self._items: list[RefusedLine] = []
        self._blocks: list[Block] = []
        self.lines_read = 0

    async def put(self, payload: bytes, lines: int, accepted: int, refused: list[RefusedLine]) -> None:
        """One piece; waits while too many are on their way.

        Raises:
            Refused, JournalFailed: it, or one before it, cannot be made durable.
        """
        durable = await self._appended(payload) if payload else None
        self._waiting.append(Waiting(durable, lines, accepted, refused))
        self.lines_read += lines
        while len(self._waiting) > PIECES_WAITING_MAX:
            await self._settle_one()
        await asyncio.sleep(0)  # other requests' turn

    async def _appended(self, payload: bytes) -> asyncio.Future[int]:
        try:
            return self._append(payload)
        except Refused:
            # Too much may be on its way to the disk only for now: what we wait for ourselves first.
            if not self._waiting:
                raise
            await self.settle()
            return self._append(payload)

    async def settle(self) -> None:
        """Wait until all of it is on disk.

        Raises:
            JournalFailed: it cannot be.
        """
        while self._waiting:
            await self._settle_one()

    async def _settle_one(self) -> None:
        piece = self._waiting[0]
        if piece.durable is not None:
            self._give_receipt(await piece.durable, piece)
        self._waiting.popleft()
        self._lines += piece.lines
        self._accepted += piece.accepted
        self._rejected += len(piece.refused)
        self._items += piece.refused[: ITEMS_MAX - len(self._items)]

    def _give_receipt(self, sequence: int, piece: Waiting) -> None:
        if len(self._blocks) < RECEIPTS_MAX:
            receipt = self._receipt(sequence, piece.accepted).decode()
            self._blocks.append(Block(self._lines + 1, self._lines + piece.lines, receipt))

    async def broken_off(self, refused: Refused) -> Refused:
        """The refusal of the rest, which says how much was taken: a sender may go on with the line after that."""
        try:
            await self.settle()
        except JournalFailed:
            # Later pieces may have got to disk all the same: sent again, their ids tell.
            await asyncio.gather(*(piece.durable for piece in self._waiting if piece.durable), return_exceptions=True)
        detail = f"{refused.detail}; the first {self._lines} lines are dealt with, {self._accepted} events are on disk"
        return Refused(refused.refusal, detail, retry_after_s=refused.retry_after_s, **(refused.extra | self._counts()))

    def _counts(self) -> dict[str, Any]:
        items = [item._asdict() for item in self._items]
        return {
            "accepted": self._accepted, "rejected": self._rejected, "lines": self._lines, "items": items,
            "receipts": self._blocks,
        }  # fmt: skip

    def answer(self) -> bytes:
        """The answer to a stream that was read to its end.

        Raises:
            Refused: none of its events is accepted.
        """
        if self._accepted:
            return msgspec.json.encode(self._counts())
        if not self._rejected:
            raise Refused(Refusal.BATCH_EMPTY, "the stream holds no event")
        detail = f"none of the {self._rejected} events can be accepted; the first: {self._items[0].message}"
        raise Refused(Refusal.INVALID_EVENT, detail, **self._counts())


def _refuse_atomic(request: Request) -> None:
    """A stream of any length cannot wait for its end before it is made durable.

    Raises:
        Refused: it is to be taken whole or not at all.
    """
    if wants_atomic(request):
        raise Refused(Refusal.BAD_REQUEST, "atomic=true: a stream is taken in pieces; send a batch for all or nothing")
