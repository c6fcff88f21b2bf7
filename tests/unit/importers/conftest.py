"""A small real HTTP server that keeps the ingest contract, and inputs that say the same thing."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from totalizer.catalog import load_catalog
from totalizer.edge.batch import Batch
from totalizer.ops.importers.access_log import AccessLogSource
from totalizer.ops.importers.batch_files import BatchFilesSource
from totalizer.ops.importers.checkpoint import Checkpoint
from totalizer.ops.importers.cloudevents import CloudEventsSource
from totalizer.ops.importers.display import Display
from totalizer.ops.importers.git import GitSource
from totalizer.ops.importers.ndjson import NdjsonSource
from totalizer.ops.importers.quarantine import Quarantine
from totalizer.ops.importers.report import Report
from totalizer.ops.importers.run import run_import
from totalizer.ops.importers.sender import Sender
from totalizer.ops.importers.source import Source
from totalizer.ops.importers.stop import Stop
from totalizer.ops.importers.target import Target

KEY = "tk_test_0123456789"
NOW_MS = 1_757_066_400_000
EVENTS_MAX, BODY_BYTES_MAX = 1000, 8 * 1024 * 1024


class Receiver:
    """The server's side of the contract.

    Attributes:
        stored: events by (event type, source, id): a resend finds itself.
        requests: how many came.
        script: what to do with the next requests, one each: an HTTP status, a status and its answer, `drop` the
            connection before storing, or `lose` the answer after storing.
        refuse: given an event, why it is not accepted, or None.
        on_stored: called after each batch with the number of events stored so far.
    """

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.requests = 0
        self.received = 0
        self.connections = 0
        self.script: list[int | str | tuple[int, dict[str, Any]]] = []
        self.events_max = EVENTS_MAX
        self.retry_after: str | None = "0"
        self.refuse: Callable[[str, dict[str, Any]], str | None] = lambda event_type, event: None
        self.on_stored: Callable[[int], None] = lambda count: None
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20
            wbufsize = -1  # one packet an answer

            def setup(self) -> None:
                super().setup()
                with receiver.lock:
                    receiver.connections += 1

            def do_POST(self) -> None:
                receiver.handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def events(self, event_type: str) -> list[dict[str, Any]]:
        """What is stored of one type."""
        return [event for (stored_type, _, _), event in self.stored.items() if stored_type == event_type]

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        with self.lock:
            self.requests += 1
            act = self.script.pop(0) if self.script else "store"
        if act == "drop":
            return self._hang_up(request)
        if isinstance(act, tuple):
            return self._answer(request, *act)
        if isinstance(act, int):
            return self._answer(request, act, {"title": "scripted", "detail": f"scripted {act}"})
        status, answer = self._take(request, body)
        if act == "lose":
            return self._hang_up(request)
        return self._answer(request, status, answer)

    def _take(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, Any]]:
        if request.path != "/api/metrics/batch" or request.headers["Content-Type"] != "application/json":
            return 404, {"detail": "no such thing"}
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return 401, {"detail": "unknown key"}
        if len(body) > BODY_BYTES_MAX:
            return 413, {"detail": "too many bytes"}
        batch = json.loads(body)
        if sum(map(len, batch.values())) > self.events_max:
            return 422, {"detail": f"more than {self.events_max} events", "code": "batch_too_large"}
        items = []
        with self.lock:
            for event_type, events in batch.items():
                for index, event in enumerate(events):
                    self.received += 1
                    reason = self.refuse(event_type, event)
                    if reason is None:
                        self.stored.setdefault((event_type, event.get("source", ""), event["id"]), event)
                    else:
                        items.append({
                            "event_type": event_type, "index": index, "status": "rejected",
                            "code": "invalid_event", "message": reason,
                        })  # fmt: skip
            count = len(self.stored)
        self.on_stored(count)
        total = sum(map(len, batch.values()))
        if len(items) == total:
            return 422, {"title": "no event was accepted", "items": items}
        return 202, {"accepted": total - len(items), "rejected": len(items), "items": items}

    def _answer(self, request: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json" if status == 202 else "application/problem+json")
        request.send_header("Content-Length", str(len(content)))
        if status in (429, 503) and self.retry_after is not None:
            request.send_header("Retry-After", self.retry_after)
        request.end_headers()
        request.wfile.write(content)

    def _hang_up(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)


class Importer:
    """Runs imports against one receiver, with small batches so that small inputs make many."""

    def __init__(self, receiver: Receiver, home: Path) -> None:
        self.receiver, self.home = receiver, home
        self.key = KEY
        self.events_max = 7
        self.give_up_after_s = 20.0
        self.said: list[str] = []
        self.stop = Stop()

    def run(self, source: Source, *, restart: bool = False) -> Report:
        """One import, from a new process' point of view."""
        self.stop, self.said = Stop(), []
        console = Console(file=open("/dev/null", "w"))  # noqa: SIM115 - closed below
        checkpoint = Checkpoint(self.home, [source.kind, source.name, *source.scope]) if source.resumable else None
        if restart and checkpoint is not None:
            checkpoint.forget()
        report = Report(Quarantine(self.home, source.name), Display("test", console, console))
        report.notice = self.said.append  # type: ignore[assignment, method-assign]
        sender = Sender(
            Target(self.receiver.url, self.key), self.stop, self.said.append, give_up_after_s=self.give_up_after_s
        )
        sender.events_max = self.events_max
        try:
            run_import(source, sender, checkpoint, report)
        finally:
            sender.close()
            console.file.close()
        return report

    def quarantined(self) -> list[dict[str, Any]]:
        """All quarantined lines, oldest file first."""
        files = sorted((self.home / "quarantine").glob("*.ndjson"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


class Case:
    """One kind of input, able to say `count` things, one of them wrongly."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.event_type = {
            "access-log": "http_requests", "access-log-gz": "http_requests", "batch-files": "time_entries",
        }.get(kind, "commits")  # fmt: skip

    def make(self, count: int, *, broken: int | None = None, salt: str = "") -> Source:
        """An input of `count` lines; line number `broken` is none. Another `salt` makes another content."""
        match self.kind:
            case "git":
                path = self.folder / "repository.git"
                make_repository(path, count, broken, salt)
                return GitSource(str(path))
            case "ndjson":
                lines = [commit(n, salt, event_type="commits") for n in range(1, count + 1)]
                return NdjsonSource(self._write("events.ndjson", lines, broken))
            case "cloudevents":
                lines = [cloud_event(n, salt) for n in range(1, count + 1)]
                return CloudEventsSource(self._write("events.jsonl", lines, broken), load_catalog())
            case "cloudevents-array":
                lines = [cloud_event(n, salt) for n in range(1, count + 1)]
                if broken is not None:
                    lines[broken - 1] = "{nonsense}"
                file = self.folder / "events.json"
                file.write_text("[" + ",\n".join(lines) + "]")
                return CloudEventsSource(str(file), load_catalog())
            case "batch-files":
                return BatchFilesSource([str(self._write_batches(count, broken, salt))])
            case "access-log-gz":
                lines = [access_line(n, salt) for n in range(1, count + 1)]
                plain = Path(self._write("access.log", lines, broken))
                packed = self.folder / "access.log.1.gz"
                packed.write_bytes(gzip.compress(plain.read_bytes()))
                return AccessLogSource(str(packed))
            case _:
                lines = [access_line(n, salt) for n in range(1, count + 1)]
                return AccessLogSource(self._write("access.log", lines, broken))

    def _write_batches(self, count: int, broken: int | None, salt: str) -> Path:
        """A folder of batch files of one entry; number `broken` is cut off."""
        folder = self.folder / "batches"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number in range(1, count + 1):
            entry = {"id": f"e{salt}{number}", "userId": "u", "action": "a", "timestamp": NOW_MS}
            batch = Batch(f"{NOW_MS + number}_abcdef", NOW_MS, (entry,))
            content = batch.encode()
            (folder / batch.file_name).write_bytes(content[:50] if number == broken else content)
        return folder

    def _write(self, name: str, lines: list[str], broken: int | None) -> str:
        if broken is not None:
            lines[broken - 1] = "this is no event"
        file = self.folder / name
        file.write_text("".join(f"{line}\n" for line in lines))
        return str(file)


KINDS = ["git", "ndjson", "cloudevents", "cloudevents-array", "access-log", "access-log-gz", "batch-files"]


def commit(number: int, salt: str = "", **more: Any) -> str:
    fields = {
        "id": f"c{salt}{number}", "committed_at": f"2025-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "repository": "r", "commit_hash": f"{number:040x}", "author": "Ada", "is_merge": False, "files_changed": 1,
        "lines_added": number, "lines_removed": 0,
    }  # fmt: skip
    return json.dumps(fields | more)


def cloud_event(number: int, salt: str = "", **more: Any) -> str:
    data = json.loads(commit(number))
    del data["id"], data["committed_at"], data["author"]
    event = {
        "specversion": "1.0", "type": "com.example.commits", "source": "/test", "id": f"e{salt}{number}",
        "time": "2025-01-01T00:00:00Z", "subject": "Ada", "data": data,
    }  # fmt: skip
    return json.dumps(event | more)


def access_line(number: int, salt: str = "") -> str:
    return f'192.0.2.{number % 250} - - [10/Oct/2025:13:55:36 -0700] "GET /{salt}{number} HTTP/1.1" 200 {number}'


def make_repository(path: Path, count: int, broken: int | None = None, salt: str = "") -> None:
    """A new bare repository with `count` commits on `main`, built by `git fast-import`."""
    subprocess.run(["rm", "-rf", path], check=True)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", path], check=True)
    stream = []
    for number in range(1, count + 1):
        seconds = 253_402_300_800 if number == broken else 1_700_000_000 + number
        message, content = f"commit {salt}{number}", f"{number}\n"
        stream.append(
            f"commit refs/heads/main\nauthor Ada <ada@example.org> {seconds} +0000\n"
            f"committer Ada <ada@example.org> {seconds} +0000\ndata {len(message)}\n{message}\n"
            f"M 100644 inline file{number % 5}\ndata {len(content)}\n{content}\n"
        )
    subprocess.run(["git", "-C", path, "fast-import", "--quiet"], input="".join(stream).encode(), check=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def importer(receiver: Receiver, tmp_path: Path) -> Importer:
    return Importer(receiver, tmp_path / "home")


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)
