"""What a run really did: faults that happened, by kind, and what the oracle found lost or doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

#: Kinds of faults, in the order in which they are told.
KINDS = (
    "power loss", "kill", "stop", "signal", "refused call", "full disk", "connection broken", "server stopped",
    "transaction failed", "bad row", "resend", "hostile file", "clock jump",
)  # fmt: skip

_faults: Counter[str] = Counter()
_broken: Counter[str] = Counter()
_deliberate = 0


def count(kind: str, times: int = 1) -> None:
    """A fault has happened, so often; not one that was armed and never met."""
    assert kind in KINDS, kind
    if not _deliberate:
        _faults[kind] += times


def found(lost: int, doubled: int) -> None:
    """The oracle has judged."""
    if not _deliberate:
        _broken["lost"] += lost
        _broken["doubled"] += doubled


@contextmanager
def deliberate() -> Iterator[None]:
    """What happens within is meant to break the promise, to see that it is noticed: it does not count."""
    global _deliberate
    _deliberate += 1
    try:
        yield
    finally:
        _deliberate -= 1


def figures() -> dict[str, dict[str, int]]:
    """What this process counted, to be added up by another."""
    return {"faults": dict(_faults), "broken": dict(_broken)}


def add(other: dict[str, dict[str, int]]) -> None:
    """Add the figures of another process."""
    _faults.update(other["faults"])
    _broken.update(other["broken"])


def line() -> str | None:
    """The sum, for the end of a run; None if no fault has happened."""
    if not _faults:
        return None
    kinds = ", ".join(f"{kind} {_faults[kind]}" for kind in KINDS if _faults[kind])
    return f"faults injected: {kinds}; {_faults.total()} in all, {_broken['lost']} lost, {_broken['doubled']} doubled"
