"""The file into which events are moved out of the database: lines of JSON, on disk before they are deleted there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from totalizer.errors import OperationError


class DropFile:
    """A new file of JSON lines, readable by this user only; for a with-block.

    Args:
        file: where; its folder must exist.

    Raises:
        OperationError: it exists already, or cannot be made.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._descriptor = file, _create(file)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write records; they are on disk when this returns.

        Raises:
            OperationError: the disk refuses.
        """
        data = memoryview(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise OperationError(
                f"{self._file} cannot be written, and may end in half a line: {error.strerror}; events that are not in "
                "it whole are still in the database"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def _create(file: Path) -> int:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise OperationError(f"{file} exists already; name another file") from None
    except OSError as error:
        raise OperationError(f"{file} cannot be made, nothing was dropped: {error.strerror}") from error
    return descriptor
