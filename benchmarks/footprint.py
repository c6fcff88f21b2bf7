"""What the stack takes when nothing happens, and how soon it is there again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

import psutil  # type: ignore[import-untyped]

from benchmarks.progress import note
from benchmarks.result import Result, less_is_better
from benchmarks.stack import Stack
from totalizer.clock import SYSTEM_CLOCK

BENCH = "ingest"
#: What the idle stack may take, in MB of a million bytes.
MEMORY_BUDGET_MB = 400.0
#: What a start on an existing folder may take, in seconds.
START_BUDGET_S = 6.0
MB = 1_000_000


def idle_memory(stack: Stack, *, after_s: float) -> Iterator[Result]:
    """The memory of all processes of a stack that was just started.

    Args:
        stack: running.
        after_s: seconds to let it come to rest.
    """
    SYSTEM_CLOCK.sleep(after_s)
    processes = stack.processes()
    resident = sum(process.memory_info().rss for process in processes) / MB
    shares = [_share_of(process) for process in processes]
    note(f"idle memory: {len(processes)} processes; " + ", ".join(_words(stack, processes, shares)))
    budget = f"budget of {MEMORY_BUDGET_MB:.0f} MB"
    yield less_is_better(BENCH, "idle memory", "MB", [sum(shares) / MB], budget, [MEMORY_BUDGET_MB])
    yield less_is_better(
        BENCH, "idle memory, shared pages counted in every process", "MB", [resident], budget, [MEMORY_BUDGET_MB]
    )


def _share_of(process: psutil.Process) -> int:
    """Resident bytes, a page that N processes share counted as an Nth; where the system does not say, all of it."""
    return int(process.memory_full_info().pss if psutil.LINUX else process.memory_info().rss)


def _words(stack: Stack, processes: list[psutil.Process], shares: list[int]) -> Iterator[str]:
    largest = sorted(zip(shares, processes, strict=True), key=lambda pair: -pair[0])[:8]
    for share, process in largest:
        yield f"{_name(process)} {share / MB:.0f} MB"


def _name(process: psutil.Process) -> str:
    """The part a process plays: the subcommand of ours, the program or title of others."""
    words: list[str] = process.cmdline()
    return words[words.index("-m") + 2] if "totalizer" in words else words[0].rsplit("/", 1)[-1]


def memory_of(processes: Iterable[psutil.Process]) -> int:
    """Resident bytes of some processes together, a page that N processes share counted as an Nth."""
    return sum(_share_of(process) for process in processes)


def second_start(stack: Stack, *, rounds: int) -> Iterator[Result]:
    """Seconds until a stopped stack is ready again on its folder, the median of some rounds."""
    seconds = []
    for _ in range(rounds):
        stack.stop()
        seconds.append(stack.start())
    note(f"second start: {', '.join(f'{one:.2f} s' for one in seconds)}; median {median(seconds):.2f} s")
    yield less_is_better(BENCH, "second start", "s", seconds, f"budget of {START_BUDGET_S:.0f} s", [START_BUDGET_S])
