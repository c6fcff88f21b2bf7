"""What `git log -z --numstat` prints, read without trusting any name in it: only NUL separates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from totalizer.errors import OperationError
from totalizer.ops.importers.reading import Pieces
from totalizer.ops.importers.source import Line

#: Hash, parents, author's name and address (after .mailmap), committer date in seconds since 1970, subject.
_PLACEHOLDERS = ("%H", "%P", "%aN", "%aE", "%ct", "%s")
FORMAT = "%x00".join(_PLACEHOLDERS)

_HASH = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_COUNTS = re.compile(rb"\n?(\d+|-)\t(\d+|-)\t(.*)", re.DOTALL)
#: What a commit without a readable author is counted under.
NOBODY = "unknown"


class Commit(NamedTuple):
    """One commit.

    `added` and `removed` are lines, none in binary files; `committed` is seconds since 1970, as git has it.
    """

    hash: str
    is_merge: bool
    author: str
    email: str
    committed: str
    subject: str
    files: int
    added: int
    removed: int

    @classmethod
    def of(cls, raw: bytes) -> Commit:
        """The commit that a `CommitSplitter` gave as the bytes of a line."""
        parts = [part.decode("utf-8", "replace") for part in raw.split(b"\0")]
        hash_, parents, author, email, committed, subject, files, added, removed = parts
        return cls(
            hash_, " " in parents, _known(author, "%aN") or NOBODY, _known(email, "%aE"), committed, subject,
            int(files), int(added), int(removed),
        )  # fmt: skip


def _known(value: str, placeholder: str) -> str:
    """The value; nothing if git left its placeholder, as it does when a commit's author line is malformed."""
    return "" if value == placeholder else value


class CommitSplitter:
    """Commits out of the output of `git log -z --numstat --format=FORMAT`. Contract: `reading.Splitter`.

    A commit is its fields, each ended by NUL, then for each file `added TAB removed TAB name NUL`, the first after a
    newline; a renamed file has an empty name there, and its two names follow, each ended by NUL.
    """

    def __init__(self) -> None:
        self._pieces = Pieces(b"\0")
        self._number = 0
        self._fields: list[bytes] = []
        self._files = self._added = self._removed = 0
        self._names_to_skip = 0

    def feed(self, chunk: bytes) -> Iterable[Line]:
        for piece, _cut in self._pieces.feed(chunk):
            if self._names_to_skip:
                self._names_to_skip -= 1
            elif len(self._fields) < len(_PLACEHOLDERS):
                self._take_field(piece)
            elif (counts := _COUNTS.fullmatch(piece)) is not None:
                self._count_file(counts)
            else:
                yield self._finish()
                self._take_field(piece)

    def end(self, damage: str | None = None) -> Iterable[Line]:
        if self._fields:
            yield self._finish()

    def _take_field(self, piece: bytes) -> None:
        if not self._fields and _HASH.fullmatch(piece) is None:
            raise OperationError(f"git log printed {piece[:80]!r} where a commit's hash should be")
        self._fields.append(piece)

    def _count_file(self, counts: re.Match[bytes]) -> None:
        added, removed, name = counts.groups()
        self._files += 1
        self._added += int(added) if added != b"-" else 0
        self._removed += int(removed) if removed != b"-" else 0
        self._names_to_skip = 0 if name else 2

    def _finish(self) -> Line:
        totals = b"%d\0%d\0%d" % (self._files, self._added, self._removed)
        self._number += 1
        raw = b"\0".join((*self._fields, totals))
        self._fields = []
        self._files = self._added = self._removed = 0
        return Line(self._number, raw)
