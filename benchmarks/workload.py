"""What is sent: command executions with ids of the sender's choice, as events, as requests and as COPY lines."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from totalizer.catalog import load_catalog
from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.collect import Collector
from totalizer.event import KEY, decode_batch

EVENT_TYPE = "command_executions"
BATCH_PATH, SINGLE_PATH = "/api/metrics/batch", "/api/metrics/commands"
BATCH_EVENTS = 1000
USERS, TEAMS = 20, 4
#: Events happened within this long before now.
SPAN = timedelta(hours=2)
#: Rows of one transaction of the plain COPY.
COPY_ROWS = 10_000
#: The same events in every run.
SEED = 20
_COMMANDS = (
    "git commit",
    "git push",
    "npm test",
    "pytest",
    "cargo build",
    "docker build",
    "make lint",
    "terraform plan",
)
_STATUSES = ("success",) * 17 + ("error", "error", "timeout")
_BRANCHES = ("main", "develop", "feature/checkout", "fix/rounding")


class CopyPiece(NamedTuple):
    """One transaction of the plain COPY.

    Attributes:
        columns: of the event table.
        lines: rows of the event table, COPY text.
        keys: rows of its key table: organisation, time, id.
    """

    columns: tuple[str, ...]
    lines: bytes
    keys: bytes


def make_events(count: int, *, nameless: bool = False) -> list[bytes]:
    """Events as JSON of about 330 bytes, each with an id of its own, at random times of the last two hours.

    Args:
        count: how many.
        nameless: True for events without id and time: whenever they are sent, they are new and have just happened.
    """
    choose = random.Random(SEED)

    def new_id() -> str:
        return str(uuid.UUID(int=choose.getrandbits(128), version=4))

    def named() -> str:
        return f'"id":"{new_id()}","executed_at":"{_time(latest - timedelta(milliseconds=choose.randrange(span_ms)))}",'

    users, teams = ([new_id() for _ in range(some)] for some in (USERS, TEAMS))
    latest = utc_datetime(SYSTEM_CLOCK.now_ns())
    span_ms = SPAN // timedelta(milliseconds=1)
    return [
        (
            f'{{{"" if nameless else named()}"user_id":"{choose.choice(users)}","team_id":"{choose.choice(teams)}",'
            f'"command_name":"{choose.choice(_COMMANDS)}","execution_time_ms":{choose.randrange(20_000)},"status":"{choose.choice(_STATUSES)}",'
            f'"context":{{"branch":"{choose.choice(_BRANCHES)}","shell":"zsh","exit_code":{choose.randrange(3)}}}}}'
        ).encode()
        for _ in range(count)
    ]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def batch_bodies(events: Sequence[bytes], size: int = BATCH_EVENTS) -> list[bytes]:
    """The bodies of batch requests that hold these events, in order, `size` in each."""
    return [
        b'{"' + EVENT_TYPE.encode() + b'":[' + b",".join(events[start : start + size]) + b"]}"
        for start in range(0, len(events), size)
    ]


def make_requests(
    path: str, bodies: Iterable[bytes], port: int, api_key: str, media_type: str = "application/json"
) -> list[bytes]:
    """Whole HTTP requests, ready to be sent."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {api_key}\r\n"
        f"content-type: {media_type}\r\ncontent-length: "
    ).encode()
    return [b"%s%d\r\n\r\n%s" % (head, len(body), body) for body in bodies]


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Keep requests for the client process: each after its length in four bytes, the highest first."""
    with path.open("wb") as file:
        for request in requests:
            file.write(len(request).to_bytes(4, "big"))
            file.write(request)


def read_requests(path: Path) -> list[bytes]:
    """What `write_requests` kept."""
    data = path.read_bytes()
    requests, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "big")
        requests.append(data[start + 4 : end])
        start = end
    return requests


def copy_pieces(bodies: Iterable[bytes], organization_id: str) -> list[CopyPiece]:
    """The rows of these batches as the collector renders them, in order of arrival."""
    collector = Collector(load_catalog([]), SYSTEM_CLOCK, batch_events_max=BATCH_EVENTS)
    lines: list[bytes] = []
    columns: tuple[str, ...] = ()
    for body in bodies:
        header, blocks = decode_batch(collector.admit_batch(organization_id, body).payload)
        columns = header.sections[0].columns
        lines += blocks[0].splitlines(keepends=True)
    return [
        CopyPiece(columns, b"".join(piece), b"".join(line[KEY] + b"\n" for line in piece))
        for piece in (lines[start : start + COPY_ROWS] for start in range(0, len(lines), COPY_ROWS))
    ]
