"""An entry on its way in: checked, its secrets blacked out, named, encoded.

What is accepted here is accepted by a server's `time_entries`: the limits are the same, and tests hold them together.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping
from math import isfinite
from typing import Any

import msgspec

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.batch import Entry
from totalizer.edge.options import REDACT_KEYS, SHOWN_MAX, shown
from totalizer.edge.records import entry_payload
from totalizer.errors import ValidationError

#: Characters of a userId, an action, an id.
TEXT_LENGTH_MAX = 255
#: Levels of objects and arrays in metadata, itself included.
METADATA_DEPTH_MAX = 32
#: Bytes of an entry as JSON, unless an aggregator is told otherwise.
ENTRY_BYTES_MAX = 64 << 10
#: Below this a whole number is likelier to be seconds: as milliseconds it is before March 1973.
MILLISECONDS_MIN = 100_000_000_000
#: How far ahead of the clock a timestamp may be, milliseconds.
FUTURE_TOLERANCE_MS = 300_000
#: Whole numbers up to this size, either way, need no closer look.
SMALL_MAX = 2**53
SIGNED_64_MIN, SIGNED_64_MAX = -(2**63), 2**63 - 1
#: Keys that turn into something else in programs that read the JSON later.
DANGEROUS_KEYS = frozenset(("__proto__", "constructor", "prototype"))
#: What stands in place of a secret.
REDACTED = "[redacted]"

_MEMBERS = frozenset(("id", "userId", "action", "timestamp", "metadata"))
#: Different keys of metadata whose fate is remembered.
_KEYS_KEPT_MAX = 4096
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_encode = msgspec.json.Encoder().encode


class EntryEncoder:
    """Checks and encodes entries; for any number of threads of one process.

    Args:
        entry_bytes_max: longest entry as JSON.
        redact_keys: see `Options.redact_keys`.
        clock: for the limit of timestamps and for new ids.
    """

    def __init__(
        self, *, entry_bytes_max: int = ENTRY_BYTES_MAX, redact_keys: Collection[str] = REDACT_KEYS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self._entry_bytes_max, self._clock = entry_bytes_max, clock
        self._fates = _Fates(redact_keys)
        self._ids = _Ids()

    def record(self, entry: Mapping[str, Any], now_ns: int) -> bytes:
        """The entry as a journal has it. Args and raises as `encode`."""
        return entry_payload(self.encode(entry, now_ns), now_ns // 1_000_000)

    def encode(self, entry: Mapping[str, Any], now_ns: int | None = None) -> bytes:
        """The entry as JSON, with an id: its own or a new one (UUID version 7).

        Args:
            entry: see `validate_entry`.
            now_ns: the clock's time, if the caller has just asked for it.

        Raises:
            ValidationError: it cannot be taken; names the field and the value.
        """
        if now_ns is None:
            now_ns = self._clock.now_ns()
        checked = self._plain(entry, now_ns // 1_000_000) or self.checked(entry, now_ns)
        if checked["id"] is None:
            checked["id"] = self._ids.new(now_ns // 1_000_000)
        try:
            encoded = _encode(checked)
        except UnicodeEncodeError:
            reason = "holds half of a surrogate pair, which is no text"
            raise ValidationError(_first(checked, _holds_surrogate) or "", reason) from None
        if b"\\u0000" in encoded and (wrong := _first(checked, lambda text: "\0" in text)):
            raise ValidationError(wrong, "holds the character NUL, which cannot be stored")
        if len(encoded) > self._entry_bytes_max:
            raise ValidationError(
                "",
                f"the entry takes {len(encoded)} bytes as JSON, at most {self._entry_bytes_max} are taken; send less",
            )
        return encoded

    def checked(self, entry: Mapping[str, Any], now_ns: int) -> Entry:
        """A copy of the entry with its secrets blacked out. ValidationError as `encode`, but for NUL and size."""
        if not isinstance(entry, Mapping):
            raise ValidationError("", f"an entry must be a mapping, {shown(entry)} is a {type(entry).__name__}")
        if not entry.keys() <= _MEMBERS:
            unknown = next(key for key in entry if key not in _MEMBERS)
            raise ValidationError(
                str(unknown)[:SHOWN_MAX], "unknown member; userId, action, timestamp, metadata and id are known, "
                "everything else belongs into metadata",
            )  # fmt: skip
        checked: Entry = {
            "id": None if entry.get("id") is None else _text(entry, "id"),
            "userId": _text(entry, "userId"),
            "action": _text(entry, "action"),
            "timestamp": _timestamp(entry, now_ns // 1_000_000),
        }
        metadata = entry.get("metadata")
        if metadata is not None:
            if not isinstance(metadata, Mapping):
                raise ValidationError("metadata", f"{shown(metadata)} is a {type(metadata).__name__}, not an object")
            checked["metadata"] = self._object(metadata, "metadata", 0)
        return checked

    def _plain(self, entry: Any, now_ms: int) -> Entry | None:
        """As `checked` for an entry as nearly all are, in a third of the time; None if it needs a closer look."""
        if type(entry) is not dict:
            return None
        try:
            user, action, timestamp = entry["userId"], entry["action"], entry["timestamp"]
        except KeyError:
            return None
        if not (
            type(user) is str and 0 < len(user) <= TEXT_LENGTH_MAX
            and type(action) is str and 0 < len(action) <= TEXT_LENGTH_MAX
            and type(timestamp) is int and MILLISECONDS_MIN <= timestamp <= now_ms + FUTURE_TOLERANCE_MS
        ):  # fmt: skip
            return None
        checked: Entry = {"id": None, "userId": user, "action": action, "timestamp": timestamp}
        if len(entry) == 3:
            return checked
        metadata = entry.get("metadata")
        if len(entry) != 4 or type(metadata) is not dict or not self._fates.plain.issuperset(metadata):
            return None
        for item in metadata.values():
            kind = type(item)
            if kind is not str and kind is not bool and (kind is not int or not -SMALL_MAX <= item <= SMALL_MAX):
                return None
        checked["metadata"] = metadata
        return checked

    def _object(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        if depth >= METADATA_DEPTH_MAX:
            raise ValidationError(path[:SHOWN_MAX], f"is nested more than {METADATA_DEPTH_MAX} deep")
        cleaned = {}
        for key, item in value.items():
            redact = self._fates[key] if type(key) is str else self._fates.__missing__(key)
            kind = type(item)
            if redact:
                cleaned[key] = REDACTED
            elif kind is str or kind is bool or item is None:
                cleaned[key] = item
            else:
                cleaned[key] = self._value(item, f"{path}.{key}", depth + 1)
        return cleaned

    def _value(self, item: Any, path: str, depth: int) -> Any:
        if item is None or isinstance(item, str | bool):
            return item
        if isinstance(item, int):
            if SIGNED_64_MIN <= item <= SIGNED_64_MAX:
                return item
            raise ValidationError(path, f"{shown(item)} does not fit 64 bits; send it as text")
        if isinstance(item, float):
            if isfinite(item):
                return item
            raise ValidationError(path, f"{item} is not a number that JSON has; leave it out")
        if isinstance(item, Mapping):
            return self._object(item, path, depth)
        if isinstance(item, list | tuple):
            if depth >= METADATA_DEPTH_MAX:
                raise ValidationError(path[:SHOWN_MAX], f"is nested more than {METADATA_DEPTH_MAX} deep")
            return [self._value(each, f"{path}[{index}]", depth + 1) for index, each in enumerate(item)]
        raise ValidationError(path, f"{shown(item)} is a {type(item).__name__}, which JSON does not have; send text")


class _Ids:
    """UUIDs version 7 (RFC 9562 §5.7, §6.2) for any number of threads of one process, without a lock.

    The 74 bits beside the time are random and drawn once; from then on the last 48 of them count up.
    """

    def __init__(self) -> None:
        random = int.from_bytes(os.urandom(10), "big")
        high, low = random & 0xFFF, random >> 12 & 0x3FFF | 0x8000
        self._middle, self._after = f"-7{high:03x}-", f"{low:04x}-"
        # The highest of the 48 bits is left clear, so that counting up cannot overflow.
        self._next = itertools.count(random >> 33).__next__
        # In one piece, so that no thread meets the time of one with the text of another.
        self._head = (-1, "")

    def new(self, now_ms: int) -> str:
        """The next one, made at `now_ms` milliseconds since 1970 UTC."""
        made_ms, head = self._head
        if made_ms != now_ms:
            head = f"{now_ms >> 16:08x}-{now_ms & 0xFFFF:04x}{self._middle}{self._after}"
            self._head = (now_ms, head)
        return f"{head}{self._next():012x}"


class _Fates(dict[Any, bool]):
    """By key of metadata: True if its value is to be blacked out. ValidationError for a key that cannot be taken."""

    def __init__(self, redact_keys: Collection[str]) -> None:
        super().__init__()
        self._phrases = tuple(dict.fromkeys(_phrase(key) for key in redact_keys))
        #: Keys that are known to be harmless.
        self.plain: set[str] = set()

    def __missing__(self, key: Any) -> bool:
        if not isinstance(key, str):
            raise ValidationError("metadata", f"the key {shown(key)} is a {type(key).__name__}, not text")
        if key in DANGEROUS_KEYS:
            raise ValidationError(f"metadata.{key}", "this key is dangerous to programs that read it; rename it")
        phrase = _phrase(key)
        secret = any(phrase.endswith(each) for each in self._phrases)
        if len(self) < _KEYS_KEPT_MAX:
            self[key] = secret
            if not secret:
                self.plain.add(key)
        return secret


def validate_entry(entry: Mapping[str, Any], *, clock: Clock = SYSTEM_CLOCK) -> bool:
    """True if an aggregator would take the entry.

    Args:
        entry: `userId` and `action`, texts of 1 to 255 characters; `timestamp`, milliseconds since 1970 UTC as a whole
            number; `metadata`, an object, and `id`, a text, if wanted.
        clock: a timestamp may be up to five minutes ahead of it.

    Raises:
        ValidationError: it would not; names the field and the value.
    """
    EntryEncoder(clock=clock).encode(entry)
    return True


def _phrase(key: str) -> str:
    """The key's words, such as ` api key` for `X-Api-Key`, `apiKey` and `API_KEY`; a space before each."""
    return "".join(f" {word.lower()}" for word in _WORDS.findall(key)) or f" {key.lower()}"


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if isinstance(value, str) and 0 < len(value) <= TEXT_LENGTH_MAX:
        return value
    if value is None:
        raise ValidationError(name, "is missing" if name not in entry else "None is not a text")
    if not isinstance(value, str):
        raise ValidationError(name, f"{shown(value)} is a {type(value).__name__}, not a text")
    raise ValidationError(name, f"{shown(value)} has {len(value)} characters; 1 to {TEXT_LENGTH_MAX} are taken")


def _timestamp(entry: Mapping[str, Any], now_ms: int) -> int:
    value = entry.get("timestamp")
    if isinstance(value, float) and isfinite(value) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        what = "is missing" if "timestamp" not in entry else f"{shown(value)} is not a whole number"
        raise ValidationError("timestamp", f"{what}; give milliseconds since 1970 UTC")
    if value < MILLISECONDS_MIN:
        what = "is negative" if value < 0 else "looks like seconds"
        raise ValidationError("timestamp", f"{shown(value)} {what}; give milliseconds since 1970 UTC")
    if value > now_ms + FUTURE_TOLERANCE_MS:
        raise ValidationError(
            "timestamp", f"{shown(value)} is more than five minutes in the future, it is {now_ms} now; check the clock"
        )
    return value


def _holds_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _first(value: Any, wrong: Any) -> str | None:
    """Dotted path of the first text, key or value, that is wrong; None if none is."""
    return next((path for path, text in _texts(value, "") if wrong(text)), None)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{path}.{key}" if path else key
            place = inner.encode(errors="backslashreplace").decode().replace("\0", "\\u0000")
            yield place, key
            yield from _texts(item, place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")
