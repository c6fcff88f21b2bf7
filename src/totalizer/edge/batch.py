"""A batch of entries, and its three forms on disk: delivered, failed, abandoned.

Format version 2.0.0, the keys as they have always been:

    batch      batchId, timestamp, version, entries, entryCount, recovered
    failed     the same without `recovered`, with retryCount, lastRetryAt, lastError, failedAt, nextRetryAt
    abandoned  the same as failed, with abandonedAt and refusals

`nextRetryAt` and `refusals` are additions; a file without them is read all the same. Every entry carries the `id` it
was given before it was first sent, so that a batch that arrives twice, by whatever way, is counted once. Entries of
older files without one get an id that follows from the batch, the place and the contents (`identified`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from totalizer.errors import BatchFileDamaged, BatchVersionUnknown

#: Version of the formats written here; all of this major version are read.
FORMAT_VERSION = "2.0.0"
#: Bytes of the random end of a batch id, as hexadecimal digits twice as many.
_RANDOM_BYTES = 3

#: What a sender calls an entry: `id`, `userId`, `action`, `timestamp` (milliseconds since 1970 UTC) and `metadata`.
Entry = dict[str, Any]

_BATCH_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}").fullmatch
_encode = msgspec.json.Encoder().encode
_encode_deterministic = msgspec.json.Encoder(order="deterministic").encode


def new_batch_id(now_ns: int) -> str:
    """A fresh batch id, `1704067200000_a3f8b2`: milliseconds since 1970 UTC and six random hexadecimal digits."""
    return f"{now_ns // 1_000_000}_{os.urandom(_RANDOM_BYTES).hex()}"


@dataclass(frozen=True)
class Batch:
    """Entries that are delivered together.

    Attributes:
        batch_id: its name, `<milliseconds>_<six hexadecimal digits>`; fixed before the first attempt.
        timestamp: when it was sealed, milliseconds since 1970 UTC.
        entries: in the order they were added; not empty. Treat as immutable.
        recovered: True if it was delivered by a later attempt than its first run of attempts.
    """

    batch_id: str
    timestamp: int
    entries: tuple[Entry, ...]
    recovered: bool = False

    @property
    def file_name(self) -> str:
        """Name of its file once delivered to a folder."""
        return f"batch_{self.batch_id}.json"

    def only(self, indexes: Iterable[int]) -> Batch:
        """The same batch with a choice of its entries."""
        return replace(self, entries=tuple(self.entries[index] for index in indexes))

    def encode(self) -> bytes:
        """The batch file."""
        return _document(self._members() | {"recovered": self.recovered})

    def _members(self) -> dict[str, Any]:
        return {
            "batchId": self.batch_id,
            "timestamp": self.timestamp,
            "version": FORMAT_VERSION,
            "entries": self.entries,
            "entryCount": len(self.entries),
        }


@dataclass(frozen=True)
class RefusedEntry:
    """An entry that a target refuses for good.

    Attributes:
        index: its place in the batch.
        code: the target's word for the reason, such as `invalid_event`.
        message: the reason in a sentence.
    """

    index: int
    code: str
    message: str


@dataclass(frozen=True)
class FailedBatch:
    """A batch that waits for another attempt, or has been given up.

    Attributes:
        batch: what was not delivered.
        retry_count: attempts of the recovery daemon so far.
        last_error: why the last attempt failed.
        failed_at: when the first run of attempts failed, milliseconds since 1970 UTC.
        last_retry_at: when the daemon last tried, milliseconds since 1970 UTC; None before its first try.
        next_retry_at: not before, milliseconds since 1970 UTC; None for at once.
        abandoned_at: when it was given up, milliseconds since 1970 UTC; None while it waits.
        refusals: what the target said about single entries.
        file_path: where it was read from; None if it was not.
    """

    batch: Batch
    retry_count: int
    last_error: str
    failed_at: int
    last_retry_at: int | None = None
    next_retry_at: int | None = None
    abandoned_at: int | None = None
    refusals: tuple[RefusedEntry, ...] = ()
    file_path: str | None = None

    @property
    def batch_id(self) -> str:
        """The batch's id."""
        return self.batch.batch_id

    @property
    def file_name(self) -> str:
        """Name of its file in `recovery/`, or in `recovery/abandoned/` once given up."""
        return f"batch_{self.batch_id}.{'failed' if self.abandoned_at is None else 'abandoned'}.json"

    def encode(self) -> bytes:
        """The failed-batch or abandoned-batch file."""
        members = self.batch._members() | {
            "retryCount": self.retry_count,
            "lastRetryAt": self.last_retry_at,
            "lastError": self.last_error,
            "failedAt": self.failed_at,
            "nextRetryAt": self.next_retry_at,
        }
        if self.abandoned_at is not None:
            members["abandonedAt"] = self.abandoned_at
        if self.refusals:
            members["refusals"] = self.refusals
        return _document(members)


class _File(msgspec.Struct, rename="camel"):
    batch_id: str
    timestamp: int
    version: str
    entries: list[Entry]
    entry_count: int | None = None
    recovered: bool = False
    retry_count: int = 0
    last_retry_at: int | None = None
    last_error: str = ""
    failed_at: int | None = None
    next_retry_at: int | None = None
    abandoned_at: int | None = None
    refusals: list[RefusedEntry] = []


_decode = msgspec.json.Decoder(_File).decode


def decode_batch_file(data: bytes, name: str) -> Batch:
    """Read a batch file, or the batch in a failed or abandoned one.

    Args:
        data: the file's bytes.
        name: of the file, for messages.

    Raises:
        BatchFileDamaged: it is no such file, or its entry count is not that of its entries.
        BatchVersionUnknown: it is of a later version.
    """
    return _batch(_checked(data, name), name)


def decode_failed_file(data: bytes, name: str) -> FailedBatch:
    """Read a failed-batch or abandoned-batch file; `name` (a path) becomes its `file_path`.

    Raises:
        BatchFileDamaged, BatchVersionUnknown: as `decode_batch_file`.
    """
    file = _checked(data, name)
    return FailedBatch(
        _batch(file, name), file.retry_count, file.last_error,
        file.failed_at if file.failed_at is not None else file.timestamp,
        file.last_retry_at, file.next_retry_at, file.abandoned_at, tuple(file.refusals), name,
    )  # fmt: skip


def identified(batch_id: str, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries, each with an id: its own, or one made of the batch id, its place and its contents."""
    return tuple(
        entry if entry.get("id") else {**entry, "id": _made_id(batch_id, index, entry)}
        for index, entry in enumerate(entries)
    )


def _made_id(batch_id: str, index: int, entry: Entry) -> str:
    import hashlib  # brings OpenSSL along, which only old files need

    contents = _encode_deterministic(entry)
    return hashlib.blake2b(b"%s\0%d\0%s" % (batch_id.encode(), index, contents), digest_size=16).hexdigest()


def _checked(data: bytes, name: str) -> _File:
    _check_version(data, name)
    try:
        file = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BatchFileDamaged(f"{name}: {error}") from None
    if not _BATCH_ID(file.batch_id):
        raise BatchFileDamaged(f"{name}: batchId {file.batch_id[:80]!r} must be 1 to 200 letters, digits, _ . or -")
    if file.entry_count is not None and file.entry_count != len(file.entries):
        raise BatchFileDamaged(f"{name}: entryCount is {file.entry_count}, but there are {len(file.entries)} entries")
    return file


class _Versioned(msgspec.Struct):
    version: str


_decode_version = msgspec.json.Decoder(_Versioned).decode


def _check_version(data: bytes, name: str) -> None:
    """A later version's file may differ in every other member, so it is told first."""
    try:
        version = _decode_version(data).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BatchFileDamaged(f"{name}: {error}") from None
    major = version.partition(".")[0]
    if major == FORMAT_VERSION.partition(".")[0]:
        return
    if major.isdigit() and int(major) < int(FORMAT_VERSION.partition(".")[0]):
        raise BatchVersionUnknown(f"{name}: version {version} is older; convert it with `totalizer migrate-v1`")
    raise BatchVersionUnknown(
        f"{name}: version {version[:40]!r} is not known, this program reads {FORMAT_VERSION}; upgrade totalizer and "
        "try again, the file is left as it is"
    )


def _batch(file: _File, name: str) -> Batch:
    if not file.entries:
        raise BatchFileDamaged(f"{name}: there are no entries in it")
    return Batch(file.batch_id, file.timestamp, identified(file.batch_id, file.entries), file.recovered)


def _document(members: dict[str, Any]) -> bytes:
    return msgspec.json.format(_encode(members), indent=2) + b"\n"
