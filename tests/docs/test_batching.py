"""docs/howto/batching.md: what it shows is run, under the servers it names, and what is killed loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from redis import Redis

from support import Stack, free_port, unavailable, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "edge"
PAGE = ROOT / "docs" / "howto" / "batching.md"


class Place:
    """A working folder, as a user's, from which the examples send to the stack."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        folder.mkdir()
        self.environment = os.environ | {
            "TOTALIZER_URL": stack.url, "TOTALIZER_API_KEY": stack.key, "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join((str(EXAMPLES), os.environ.get("PYTHONPATH", ""))),
        }  # fmt: skip

    def run(self, *command: object, expect: int = 0) -> str:
        """Run a command to its end; what it showed."""
        done = subprocess.run(
            [sys.executable, *map(str, command)], cwd=self.folder, env=self.environment, text=True,
            capture_output=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def running(self, *command: object) -> Iterator[subprocess.Popen[bytes]]:
        """A server for the length of a with-block, in a group of its own; ended in order, or else at once."""
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                list(map(str, command)), cwd=self.folder, env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def deliver_the_rest(self) -> None:
        """What nobody is left to deliver, as the page says."""
        shown = self.run("-m", "totalizer", "bridge", "aggregate-force")
        assert "nothing waits" in shown, shown

    def counted(self) -> tuple[int, int]:
        """Rows at the server, and how many ids there are among them."""
        self.stack.drain()
        [row] = self.stack.sql(
            "SELECT count(*), count(DISTINCT id) FROM events.time_entries WHERE organization_id = %s",
            self.stack.organization_id,
        )
        return int(row[0]), int(row[1])

    def workers(self) -> set[int]:
        """Processes that have a journal now."""
        shown = json.loads(self.run("-m", "totalizer", "bridge", "aggregate-status", "--format", "json", "--detailed"))
        return {journal["pid"] for journal in shown["journals"] if journal["pid"] is not None}


@pytest.fixture
def place(stack: Stack, tmp_path: Path) -> Place:
    return Place(stack, tmp_path / "project")


def program(name: str) -> Path:
    """A program installed beside Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        unavailable(f"{name} is not installed")
    return path


def test_the_page_shows_the_examples_as_they_are() -> None:
    blocks = set(re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE.read_text("utf-8")))
    files = {path.read_text("utf-8"): path.name for path in EXAMPLES.glob("*.py") if path.name != "kill_sender.py"}
    assert {files.get(block, block) for block in blocks} == set(files.values())


def test_a_script_started_twice_counts_once(place: Place) -> None:
    for _ in range(2):
        place.run(EXAMPLES / "script.py")
    assert place.counted() == (200, 200)


def test_a_script_that_is_killed_and_started_again_counts_once(place: Place) -> None:
    process = subprocess.Popen([sys.executable, EXAMPLES / "script.py"], cwd=place.folder, env=place.environment)
    journal = place.folder / ".totalizer" / "aggregated" / "journal"
    wait_until(lambda: any(journal.glob("*/*.seg*")) or process.poll() is not None, "the first entry")
    process.kill()
    process.wait()
    place.run(EXAMPLES / "script.py")
    place.deliver_the_rest()
    assert place.counted() == (200, 200)


class Customers:
    """Callers that repeat a request until it is answered, under the same number."""

    def __init__(self, url: str, count: int) -> None:
        self._url, self._count = url, count
        self.answered = 0
        self._lock, self._failed = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in range(4)]

    def __enter__(self) -> Customers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()
        assert self.answered == 4 * self._count

    def _run(self, name: int) -> None:
        pool = urllib3.PoolManager(retries=False, timeout=10)
        for number in range(self._count):
            wait_until(lambda number=number: self._put(pool, name, number), "an answer")
            with self._lock:
                self.answered += 1

    def _put(self, pool: Any, name: int, number: int) -> bool:
        try:
            answer = pool.request("PUT", f"{self._url}/users/user-{name}/orders/{name}-{number}", body=b"{}",
                                  headers={"content-type": "application/json"})  # fmt: skip
        except urllib3.exceptions.HTTPError:
            return False
        return bool(answer.status == 204)


def kill_workers(place: Place, server: subprocess.Popen[bytes], done: Callable[[], int], moments: list[int]) -> None:
    """Kill a worker, not the server, each time so many requests are answered."""
    for moment in moments:
        wait_until(lambda moment=moment: done() >= moment, f"request {moment}")
        with suppress(ProcessLookupError):  # it may have been replaced meanwhile
            os.kill(a_worker(place, server), signal.SIGKILL)


def a_worker(place: Place, server: subprocess.Popen[bytes]) -> int:
    """One that has a journal. On a busy machine one may have answered all while the others are still starting."""
    found: list[int] = []

    def some() -> bool:
        found.extend(place.workers() - {server.pid})
        return bool(found)

    wait_until(some, "a worker with a journal")
    return min(found)


def serve(place: Place, *command: object) -> None:
    """Requests from four callers, two workers killed in between; then a stop in order."""
    port = free_port()
    started = place.running(*(str(part).replace("PORT", str(port)) for part in command))
    with started as server, Customers(f"http://127.0.0.1:{port}", 150) as customers:
        kill_workers(place, server, lambda: customers.answered, [100, 300])
    place.deliver_the_rest()
    assert place.counted() == (600, 600)


def test_flask_under_gunicorn_with_preload_and_two_workers(place: Place) -> None:
    command = ["--preload", "--workers", "2", "--bind", "127.0.0.1:PORT", "flask_app:app"]
    serve(place, program("gunicorn"), *command)


def test_an_asgi_application_with_two_workers(place: Place) -> None:
    respawned = ["--respawn-failed-workers", "--workers-kill-timeout", "10"]
    serve(
        place, program("granian"), "--interface", "asgi", "--workers", "2", *respawned, "--port", "PORT", "asgi_app:app"
    )


def test_a_server_that_stops_in_order_leaves_nothing_waiting(place: Place) -> None:
    port = free_port()
    command = ["--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}", "flask_app:app"]
    with place.running(program("gunicorn"), *command), Customers(f"http://127.0.0.1:{port}", 10):
        pass
    assert "nothing waits" in place.run("-m", "totalizer", "bridge", "aggregate")
    assert place.counted() == (40, 40)


class Tasks:
    """Celery tasks on the stack's own Valkey."""

    def __init__(self, place: Place) -> None:
        broker = json.loads((place.stack.home / "run" / "state.json").read_text())["redis_url"]
        if broker is None:
            unavailable("the stack has no Valkey of its own")
        self._broker: str = broker
        self._place = place
        place.environment["CELERY_BROKER_URL"] = broker.replace("unix://", "redis+socket://")
        self.worker = [program("celery"), "-A", "celery_tasks", "worker", "--concurrency", "2"]

    def send(self, count: int) -> None:
        """Put tasks into the queue."""
        loop = f"for number in range({count}):\n    celery_tasks.resize.apply_async(('u',), task_id=f'task-{{number}}')"
        self._place.run("-c", f"import celery_tasks\n{loop}\n")

    def left(self) -> int:
        """Tasks that wait or are under way."""
        with Redis.from_url(self._broker) as redis:
            return int(redis.llen("celery")) + int(redis.hlen("unacked"))  # type: ignore[arg-type]


def test_celery_tasks_in_a_prefork_pool(place: Place) -> None:
    tasks = Tasks(place)
    tasks.send(200)
    with place.running(*tasks.worker) as server:
        os.kill(a_worker(place, server), signal.SIGKILL)
        wait_until(lambda: tasks.left() == 0, "the end of all tasks")
    place.deliver_the_rest()
    assert place.counted() == (200, 200)


def test_pool_processes_that_end_in_order_leave_nothing_waiting(place: Place) -> None:
    tasks = Tasks(place)
    tasks.send(30)
    with place.running(*tasks.worker, "--max-tasks-per-child", "4"):
        wait_until(lambda: tasks.left() == 0, "the end of all tasks")
    assert "nothing waits" in place.run("-m", "totalizer", "bridge", "aggregate")
    assert place.counted() == (30, 30)


def test_files_shipped_by_hand(place: Place, tmp_path: Path) -> None:
    """The page's last part: a machine without a way to the server, its files carried over, twice."""
    write = (
        "from totalizer.edge import SmartBatchAggregator\n"
        "with SmartBatchAggregator(batch_size=40) as aggregator:\n"
        "    for n in range(100):\n"
        "        aggregator.add({'userId': 'u', 'action': 'a', 'timestamp': 1757066400000 + n})\n"
    )
    place.run("-c", write)
    carried = tmp_path / "carried"
    (place.folder / ".totalizer" / "aggregated").rename(carried)
    for _ in range(2):
        place.run("-m", "totalizer", "import", "batch-files", carried, "--restart")
    assert place.counted() == (100, 100)
