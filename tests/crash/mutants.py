"""Wrong ways to do it, each a small change that can be switched on. The tests must notice every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from totalizer.journal import JournalReader, segment_view
from totalizer.journal import recovery as recovery_module
from totalizer.journal.disk import Disk
from totalizer.journal.format import segment_numbers
from totalizer.journal.reader import Limit
from totalizer.journal.segment import Segment
from totalizer.journal.writer import Writer
from totalizer.load import loader as loader_module
from totalizer.load.gather import Gathered
from totalizer.load.gather import gather as real_gather
from totalizer.load.loader import Loader
from totalizer.load.source import Source
from totalizer.store import loading

Mutation = Callable[[], Any]


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value for one attribute."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


class _Agreeable(int):
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def acknowledge_before_sync() -> Any:
    """The writer answers when the system has the bytes, not when the disk has them."""

    def commit(self: Segment, data: bytes) -> None:
        self._disk.write_all(self._descriptor, data, self.end)
        self.end += len(data)

    return patched(Segment, "commit", commit)


def sync_again_after_failure() -> Any:
    """A sync that failed is tried again on the same file, and believed."""

    def commit(self: Segment, data: bytes) -> None:
        self._disk.write_all(self._descriptor, data, self.end)
        try:
            self._disk.fdatasync(self._descriptor)
        except OSError:
            self._disk.fdatasync(self._descriptor)
        self.end += len(data)

    return patched(Segment, "commit", commit)


def no_checksum() -> Any:
    """Readers and recovery believe every record whose header looks right."""
    return patched(segment_view, "crc32", lambda data, start=0: _Agreeable())


def no_folder_sync() -> Any:
    """Segments are synced, their names are not."""

    def sync_folder(self: Any, path: Path) -> None:
        return None

    stack = ExitStack()
    for kind in [Disk, *Disk.__subclasses__()]:
        if "sync_folder" in vars(kind):
            stack.enter_context(patched(kind, "sync_folder", sync_folder))
    return stack


def acknowledge_refused() -> Any:
    """A group that the disk refused for good is answered as if it had been taken."""
    real = Writer._commit

    def commit(self: Writer, group: Any) -> None:
        real(self, group)

    return patched(Writer, "_commit", commit)


def reading_past_the_watermark() -> Any:
    """Readers take what is in the present segment for durable, whatever the watermark says."""
    real = JournalReader._limit

    def limit(self: JournalReader, view: Any, end: Any) -> Any:
        true = real(self, view, end)
        return true if true.sealed else Limit(view.size, None, False)

    return patched(JournalReader, "_limit", limit)


def recovery_without_sync() -> Any:
    """Recovery takes over what a dead writer left, and neither cuts it nor sees to it that it is on the disk."""
    return patched(recovery_module, "_cut", lambda *_: None)


def numbers_used_again() -> Any:
    """A new writer counts on from the segments that it finds, not from the highest there ever was."""
    real = Writer.__init__

    def init(self: Writer, folder: Path, journal_id: bytes, end: Any, floor: int, *rest: Any, **options: Any) -> None:
        real(self, folder, journal_id, end, max(segment_numbers(folder), default=0), *rest, **options)

    return patched(Writer, "__init__", init)


def discarding_what_is_not_read() -> Any:
    """A reader discards the segment it is in, whether or not it has read all of it."""
    return patched(JournalReader, "_ends_by", lambda *_: True)


def no_fence() -> Any:
    """A loader that was taken over goes on."""
    return patched(loading, "fence", lambda *_: _Agreeable())


def _stored_with(before: Callable[[Loader, Source, Any], None], after: Callable[[Loader, Source, Any], None]) -> Any:
    """A loader that does something before and after the transaction that stores a piece."""
    real = Loader._store

    def store(self: Loader, source: Source) -> int:
        end = source.ahead[-1].position_after  # all of it is stored at once: it is far less than the bound
        before(self, source, end)
        rows = real(self, source)
        after(self, source, end)
        return rows

    return patched(Loader, "_store", store)


def _nothing(self: Loader, source: Source, end: Any) -> None:
    return None


def _advance(self: Loader, source: Source, end: Any) -> None:
    connection, _ = self._ready()
    loading.advance(connection, source.reader.id, end.segment, end.offset, 0)
    source.offset = source.offset._replace(segment=end.segment, position=end.offset)


def offset_before_insert() -> Any:
    """The offset moves in a transaction of its own, before the rows are stored."""
    return _stored_with(_advance, _nothing)


def offset_after_insert() -> Any:
    """The offset moves in a transaction of its own, after the rows are stored."""
    real = loading.advance
    silent = patched(loading, "advance", lambda *_: None)

    def advance(self: Loader, source: Source, end: Any) -> None:
        connection, _ = self._ready()
        real(connection, source.reader.id, end.segment, end.offset, 0)

    stack = ExitStack()
    stack.enter_context(silent)
    stack.enter_context(_stored_with(_nothing, advance))
    return stack


def discard_before_commit() -> Any:
    """Segments are deleted before the transaction that stores their last records is committed."""

    def discard(self: Loader, source: Source, end: Any) -> None:
        source.reader.discard(end)

    return _stored_with(discard, _nothing)


def marks_after_commit() -> Any:
    """Dirty marks are written in a transaction of their own, after the rows are stored."""
    real, kept = loading.add_marks, []

    def keep(_: Any, marks: Iterable[tuple[str, str, str]], spans: object) -> None:
        kept.extend(marks)

    def forget(self: Loader, source: Source, end: Any) -> None:
        kept.clear()

    def mark(self: Loader, source: Source, end: Any) -> None:
        connection, _ = self._ready()
        real(connection, list(kept))

    stack = ExitStack()
    stack.enter_context(patched(loading, "add_marks", keep))
    stack.enter_context(_stored_with(forget, mark))
    return stack


def no_key_table() -> Any:
    """The primary key alone decides what is a duplicate."""

    def gather(payloads: Iterable[bytes], rows_max: int) -> Gathered:
        gathered = real_gather(payloads, rows_max)
        lines = {target._replace(keyed=False): some for target, some in gathered.lines.items()}
        origins = {target._replace(keyed=False): some for target, some in gathered.origins.items()}
        assert len(lines) == len(gathered.lines), "one kind of batch at a time"
        return gathered._replace(lines=lines, origins=origins)

    return patched(loader_module, "gather", gather)


MUTANTS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        acknowledge_before_sync, sync_again_after_failure, acknowledge_refused, reading_past_the_watermark,
        recovery_without_sync, numbers_used_again, discarding_what_is_not_read, no_checksum, no_folder_sync, no_fence,
        offset_before_insert, offset_after_insert, discard_before_commit, marks_after_commit, no_key_table,
    )
}  # fmt: skip


@contextmanager
def applied(name: str | None) -> Iterator[None]:
    """Do it the wrong way of this name within the block; None for the right way."""
    with MUTANTS[name]() if name is not None else ExitStack():
        yield
