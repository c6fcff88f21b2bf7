"""Running a child under strace: a signal or an error at its N-th call, or a record of the order of its calls.

strace(1), "Syscall tampering": a signal is delivered on entering the call, which is then not made if it kills; an
injected error keeps the call from being made. Counts are kept for each thread and each call.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from support import PATIENCE_S, unavailable

#: Calls with which a journal changes a disk.
DISK_CALLS = ("openat", "fallocate", "pwrite64", "fdatasync", "fsync", "rename", "ftruncate", "unlink")
#: The same call under the names it has on other processors.
_ALIASES = {"rename": ("rename", "renameat", "renameat2"), "unlink": ("unlink", "unlinkat")}
TESTS = Path(__file__).parents[1]


@lru_cache
def _refusal() -> str | None:
    """Why nothing can be traced here; None if it can."""
    if not sys.platform.startswith("linux"):
        return "strace is a tool of Linux"
    if shutil.which("strace") is None:
        return "there is no strace"
    command = ["strace", "-f", "-qq", "-e", "trace=none", "-e", "inject=getcwd:error=EIO:when=1", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"strace cannot trace here: {done.stderr.strip()}" if done.returncode else None


def require_strace() -> None:
    """Skip without strace or the permission to trace; in CI, fail."""
    if reason := _refusal():
        unavailable(reason)


def journal_paths(folder: Path, segments: int = 40) -> list[Path]:
    """What a journal may touch: only calls on these count, not those of the interpreter that starts."""
    names = ["journal.json", "lock", "durable", *(f"{number:016x}.segment" for number in range(1, segments))]
    return [folder, folder.parent, *(folder / f"{name}{end}" for name in names for end in ("", ".new"))]


def child(module: str, *arguments: object) -> list[str]:
    """The command line of a program of these tests."""
    return [sys.executable, "-m", f"crash.{module}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """With it the child finds these tests."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


class Traced(NamedTuple):
    """How a traced child ended.

    Attributes:
        code: its exit code, negative if a signal ended it.
        log: what strace has seen.
        output: what it wrote to stderr.
    """

    code: int
    log: str
    output: str

    @property
    def killed(self) -> bool:
        """True if the injected signal ended it."""
        return self.code in (-signal.SIGKILL, 128 + signal.SIGKILL)

    @property
    def injected(self) -> int:
        """How many calls were given an injected error."""
        return self.log.count("(INJECTED)")


def call_set(*calls: str) -> str:
    """The calls as strace takes them; those this processor does not have are passed over."""
    return ",".join(f"?{name}" for call in calls for name in _ALIASES.get(call, (call,)))


def trace(
    command: Sequence[str], log: Path, *, calls: Sequence[str], paths: Sequence[Path] = (), inject: str | None = None
) -> Traced:
    """Run a command to its end under strace.

    Args:
        command: of the child.
        log: file for strace's record.
        calls: names of system calls to record.
        paths: if given, calls on other files neither are recorded nor count.
        inject: for example `?pwrite64:signal=KILL:when=3`.
    """
    options = ["-f", "-qq", "-y", "-s", "64", "-o", str(log), "-e", f"trace={call_set(*calls)}"]
    options += [option for path in paths for option in ("-P", str(path))]
    if inject is not None:
        options += ["-e", f"inject={inject}"]
    done = subprocess.run(
        ["strace", *options, *command], env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    return Traced(done.returncode, log.read_text(errors="replace"), done.stderr)


_LINE = re.compile(r"^(?P<thread>\d+) +(?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")


class Call(NamedTuple):
    """One finished call: its place in the record when it was begun and when it ended."""

    begun: int
    ended: int
    name: str
    arguments: str
    result: int


def finished_calls(log: str) -> Iterator[Call]:
    """The calls of a record, in the order in which they ended; those that never did are left out."""
    begun: dict[str, tuple[int, str]] = {}
    for place, line in enumerate(log.splitlines()):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, rest = found["thread"], found["rest"]
        start = place
        if rest.endswith("<unfinished ...>"):
            begun[thread] = place, rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if (resumed := _RESUMED.match(rest)) and thread in begun:
            start, head = begun.pop(thread)
            rest = head + resumed[2]
        if call := _CALL.match(rest):
            yield Call(start, place, call[1], call[2], int(call[3]))


_NAME = re.compile(r'"?acknowledged ([^"\\]+)')


def unsynced_acknowledgements(log: str) -> list[str]:
    """Events that the record shows acknowledged before a sync that began after their write had ended well.

    Also descriptors that were synced again after a sync of theirs had failed: the kernel reports an error once, and
    the second sync says nothing about what the first one lost.
    """
    wrong: list[str] = []
    written: list[Call] = []
    synced: list[Call] = []
    failed: set[str] = set()
    for call in sorted(finished_calls(log), key=lambda call: call.ended):
        file = call.arguments.split(",", 1)[0].strip()
        if call.name == "pwrite64" and ".segment" in file and call.result > 0:
            written.append(call)
        elif call.name in ("fdatasync", "fsync"):
            if call.result == 0:
                synced.append(call)
                if file in failed:
                    wrong.append(f"{file} was synced again")
            else:
                failed.add(file)
        elif call.name == "write" and (found := _NAME.search(call.arguments)):
            wrong += [name for name in found[1].split() if not _is_synced(call, written, synced)]
    return wrong


def _is_synced(told: Call, written: list[Call], synced: list[Call]) -> bool:
    """True if the last write to a segment before this call was synced before it."""
    if not written:
        return False
    last = written[-1]
    file = last.arguments.split(",", 1)[0]
    return any(
        sync.begun > last.ended and sync.ended < told.begun and sync.arguments.strip() == file.strip()
        for sync in synced
    )
