"""A batch file as version 1 programs wrote it, made into one of version 2.0.0.

No document says what version 1 was, so everything is read that can be read without guessing: an array of entries, or an
object with `entries` and either no version or 1.x; members in camelCase or snake_case. The same file always gives the
same batch with the same ids, so that however often it is migrated, and sent, its entries are counted once.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.batch import Batch, Entry, FailedBatch, decode_failed_file, identified
from totalizer.edge.entry import EntryEncoder
from totalizer.edge.migrate_v1.entry import convert_entry, milliseconds_of
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, ValidationError

#: Bytes of the digest that ends the id of a batch that had none.
_DIGEST_BYTES = 6
#: Bytes of the longest entry; what an aggregator may be told to take at most.
_ENTRY_BYTES_MAX = 4 << 20
#: Spellings of the members around the entries.
_BATCH_ID = ("batchId", "batch_id", "id")
_COUNT = ("entryCount", "entry_count", "count")
_TIMES = ("timestamp", "createdAt", "created_at")
_RETRY_COUNT = ("retryCount", "retry_count", "retries")
_LAST_ERROR = ("lastError", "last_error", "error")
_FAILED_AT = ("failedAt", "failed_at")
_LAST_RETRY_AT = ("lastRetryAt", "last_retry_at")
_ABANDONED_AT = ("abandonedAt", "abandoned_at")
_RECOVERED = ("recovered",)
_KNOWN = {
    "version", "entries", *_BATCH_ID, *_COUNT, *_TIMES, *_RETRY_COUNT, *_LAST_ERROR, *_FAILED_AT, *_LAST_RETRY_AT,
    *_ABANDONED_AT, *_RECOVERED,
}  # fmt: skip

_is_batch_id = re.compile(r"[A-Za-z0-9_.-]{1,200}").fullmatch
_encode_deterministic = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class Converted:
    """A batch in its present form.

    Attributes:
        batch: delivered, or waiting for another attempt, or given up, as the old file said.
        notes: what a person should know of how it was read.
    """

    batch: Batch | FailedBatch
    notes: tuple[str, ...] = ()

    @property
    def entry_count(self) -> int:
        """How many entries there are in it."""
        return len(self.batch.batch.entries if isinstance(self.batch, FailedBatch) else self.batch.entries)


def convert_document(data: bytes, name: str, zone: tzinfo | None, *, clock: Clock = SYSTEM_CLOCK) -> Converted | None:
    """The batch in an old file; None if it is of the present version already.

    Args:
        data: the file's bytes.
        name: of the file: `*.failed.json` and `*.abandoned.json` are what they say.
        zone: of times that are written without one; None to refuse them.
        clock: an entry may be up to five minutes ahead of it.

    Raises:
        BatchFileDamaged: it cannot be read for certain; the message says what is wrong, without the file's name.
        BatchVersionUnknown: it is of a later version than this program knows.
    """
    document = _decoded(data)
    if isinstance(document, list):
        document = {"entries": document}
    if not isinstance(document, dict) or not isinstance(document.get("entries"), list):
        raise BatchFileDamaged("it is neither an array of entries nor an object with a list `entries`")
    if not _is_old(document.get("version")):
        return None
    try:
        return _converted(document, name, zone, clock)
    except (OverflowError, UnicodeEncodeError, RecursionError, msgspec.MsgspecError) as error:
        raise BatchFileDamaged(f"an entry in it cannot be written as JSON again: {error}") from None


def _decoded(data: bytes) -> Any:
    """The JSON, with whole numbers of any length as they are: a float in their stead would be another number."""
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:  # ValueError: that of json, of the decoding, and of these two
        raise BatchFileDamaged(f"it is no JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object in it has two members of one name")
    return members


def _is_old(version: object) -> bool:
    """True for no version, 1 and 1.x; False for 2.x."""
    if version is None:
        return True
    major = str(version).removeprefix("v").partition(".")[0]
    if isinstance(version, bool) or major not in ("0", "1", "2"):
        raise BatchVersionUnknown(f"its version {str(version)[:40]!r} is not known; upgrade totalizer and try again")
    return major != "2"


def _converted(document: dict[str, Any], name: str, zone: tzinfo | None, clock: Clock) -> Converted:
    old = document["entries"]
    if not old:
        raise BatchFileDamaged("there are no entries in it; it can be removed")
    count = _first(document, _COUNT)
    if count is not None and count != len(old):
        raise BatchFileDamaged(f"it says it has {count!r} entries, but there are {len(old)}")
    # Nothing is blacked out: what a batch says was decided when it was written.
    encoder, now_ns = EntryEncoder(entry_bytes_max=_ENTRY_BYTES_MAX, redact_keys=()), clock.now_ns()
    entries = [_converted_entry(entry, index, zone) for index, entry in enumerate(old)]
    for index, entry in enumerate(entries):
        _require_taken(encoder, entry, index, now_ns)
    timestamp = _time(document, _TIMES, zone)
    if timestamp is None:
        timestamp = max(entry["timestamp"] for entry in entries)
    batch_id, notes = _batch_id(document, timestamp)
    batch = Batch(batch_id, timestamp, _identified(batch_id, old, entries), document.get("recovered") is True)
    unknown = sorted(document.keys() - _KNOWN)
    if unknown:
        notes += (f"left in the backup only: {', '.join(unknown)}",)
    return Converted(_kept(_failed(batch, document, name, zone)), notes)


def _converted_entry(entry: object, index: int, zone: tzinfo | None) -> Entry:
    if not isinstance(entry, dict):
        raise BatchFileDamaged(f"entry {index} is no object")
    try:
        return convert_entry(entry, zone)
    except ValidationError as error:
        raise BatchFileDamaged(f"entry {index}: {error}") from None


def _require_taken(encoder: EntryEncoder, entry: Entry, index: int, now_ns: int) -> None:
    """What an aggregator would not take is not migrated: no server would take it either."""
    try:
        encoder.encode(entry, now_ns)
    except ValidationError as error:
        raise BatchFileDamaged(f"entry {index}: {error}") from None


def _batch_id(document: dict[str, Any], timestamp: int) -> tuple[str, tuple[str, ...]]:
    """The id it had, or one made of its time and its entries."""
    given = _first(document, _BATCH_ID)
    if given is not None and _is_batch_id(str(given)):
        return str(given), ()
    digest = hashlib.blake2b(_encode_deterministic(document["entries"]), digest_size=_DIGEST_BYTES).hexdigest()
    made = f"{timestamp}_{digest}"
    return made, () if given is None else (f"its id {str(given)[:80]!r} cannot be used, it is now {made}",)


def _identified(batch_id: str, old: list[Entry], entries: list[Entry]) -> tuple[Entry, ...]:
    """The entries with ids made of what the old file said, which no later change of this conversion alters."""
    made = identified(batch_id, old)
    return tuple(
        entry if "id" in entry else {"id": source["id"], **entry} for entry, source in zip(entries, made, strict=True)
    )


def _failed(batch: Batch, document: dict[str, Any], name: str, zone: tzinfo | None) -> Batch | FailedBatch:
    """The batch with the history of its attempts, if the file's name or members tell one."""
    abandoned_at = _time(document, _ABANDONED_AT, zone)
    given_up = name.endswith(".abandoned.json") or abandoned_at is not None
    tried = any(_first(document, names) is not None for names in (_RETRY_COUNT, _LAST_ERROR, _FAILED_AT))
    if not (given_up or tried or name.endswith(".failed.json")):
        return batch
    failed_at = _time(document, _FAILED_AT, zone)
    retry_count = _first(document, _RETRY_COUNT) or 0
    if not isinstance(retry_count, int) or retry_count < 0:
        raise BatchFileDamaged(f"its retry count {retry_count!r} must be a whole number from 0 on")
    failed = FailedBatch(
        replace(batch, recovered=False), retry_count, str(_first(document, _LAST_ERROR) or "not known"),
        batch.timestamp if failed_at is None else failed_at, _time(document, _LAST_RETRY_AT, zone),
    )  # fmt: skip
    if not given_up:
        return failed
    return replace(failed, abandoned_at=failed.failed_at if abandoned_at is None else abandoned_at)


def _kept(batch: Batch | FailedBatch) -> Batch | FailedBatch:
    """The batch, once it is sure that it reads back as it is written."""
    read = decode_failed_file(batch.encode(), "").batch
    if read.entries != (batch.batch.entries if isinstance(batch, FailedBatch) else batch.entries):
        raise BatchFileDamaged("an entry in it does not read back as it is written")
    return batch


def _first(document: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((document[name] for name in names if document.get(name) is not None), None)


def _time(document: dict[str, Any], names: tuple[str, ...], zone: tzinfo | None) -> int | None:
    value = _first(document, names)
    if value is None:
        return None
    try:
        return milliseconds_of(value, zone, names[0])
    except ValidationError as error:
        raise BatchFileDamaged(str(error)) from None
