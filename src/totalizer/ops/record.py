"""Small files of JSON that outlive a process: who runs, since when, with which configuration.

They lie in the data folder's `run`, readable by their owner only, and are replaced whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalizer.errors import OperationError
from totalizer.ops.process import ProcessId


def write_private(path: Path, text: str) -> None:
    """Replace a file by `text`, mode 0600, so that a reader sees the old or the new one."""
    draft = draft_private(path, text)
    try:
        os.replace(draft, path)
    except BaseException:
        draft.unlink()
        raise


def draft_private(path: Path, text: str) -> Path:
    """A file beside `path` that holds `text`, mode 0600 and on disk, under a name that nobody else uses."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file of JSON; None if there is no such file or it holds no object.

    Raises:
        OperationError: the file may not be read by this user.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise OperationError(f"{path} belongs to another user; run this as the user who ran `totalizer up`") from error
    except ValueError:  # cut off by a full disk or a hand: as good as absent, the processes are looked for anew
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class RunRecord:
    """Who runs under a name.

    Attributes:
        process: its identity.
        fingerprint: digest of what it was started with; another one means it must be restarted to take effect.
    """

    process: ProcessId
    fingerprint: str = ""

    @classmethod
    def read(cls, run_folder: Path, name: str) -> RunRecord | None:
        """The record of `name`; None if there is none or it makes no sense."""
        value = read_json(run_folder / f"{name}.json")
        with contextlib.suppress(KeyError, TypeError, ValueError):  # foreign content: as good as absent
            if value is not None:
                process = ProcessId(int(value["pid"]), float(value["created"]))
                return cls(process, str(value.get("fingerprint", "")))
        return None

    def write(self, run_folder: Path, name: str) -> None:
        """Keep this record as `<run_folder>/<name>.json`."""
        value = {"pid": self.process.pid, "created": self.process.created, "fingerprint": self.fingerprint}
        write_private(run_folder / f"{name}.json", json.dumps(value))


def forget(run_folder: Path, name: str) -> None:
    """Remove the record of `name`, if there is one."""
    (run_folder / f"{name}.json").unlink(missing_ok=True)
