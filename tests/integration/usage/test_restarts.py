"""A counter server that is killed, comes back empty, or stays away, with trackers in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import running_valkey, wait_until
from totalizer.ops.embedded import EmbeddedValkey
from usage_shop import Shop

TRACK = """
import sys, time
from pathlib import Path
from totalizer.catalog import load_catalog
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.store.usage_counters import connect
from totalizer.usage.tracker import UsageTracker
organization, spool, url, stop = sys.argv[1:]
collector = Collector(load_catalog([]), SYSTEM_CLOCK, batch_events_max=10)
tracker = UsageTracker(
    organization, None, lambda owner, body: collector.admit_one(owner, "usage", body).payload, Path(spool),
    connect(url), segment_bytes=1 << 20, quota_bytes=1 << 28,
)
tracked = 0
while not Path(stop).exists():
    tracker.track("m", "q", 1 + tracked % 3)
    tracked += 1
    sys.stdout.write(f"{tracked}\\n")
    sys.stdout.flush()
    time.sleep(0.002)
tracker.close()
"""


class Trackers:
    """Processes that track until they are told to stop; each says after each track how many it has made."""

    def __init__(self, shop: Any, folder: Path, count: int) -> None:
        self._stop = folder / "stop"
        self._said = [folder / f"said{number}" for number in range(count)]
        self._processes = []
        for said in self._said:
            with said.open("wb") as out:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", TRACK, shop.organization_id, str(shop.feed.spool), shop.valkey.url,
                         str(self._stop)],
                        stdout=out,
                    )
                )  # fmt: skip

    def made(self) -> int:
        """Tracks made by all."""
        return sum(self._last(said) for said in self._said)

    def go_on(self, more: int = 60) -> None:
        """Wait until some more are made."""
        before = self.made()
        wait_until(lambda: self.made() >= before + more, f"{more} more tracks")

    def kill_one(self) -> None:
        self._processes[0].send_signal(signal.SIGKILL)
        self._processes[0].wait()

    def end(self) -> tuple[int, int]:
        """Stop all; the least and the most that they may have tracked: one that was killed may not have said all."""
        self._stop.touch()
        codes = [process.wait(60) for process in self._processes]
        killed = sum(code == -signal.SIGKILL for code in codes)
        assert codes.count(0) == len(codes) - killed
        total = sum(sum(1 + n % 3 for n in range(self._last(said))) for said in self._said)
        return total, total + 3 * killed

    def _last(self, said: Path) -> int:
        lines = said.read_bytes().split(b"\n")[:-1]
        return int(lines[-1]) if lines else 0


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    folder = tmp_path / "v"
    folder.mkdir()
    with running_valkey(folder) as server:
        yield server


@pytest.fixture
def own_shop(feed: Any, own_valkey: EmbeddedValkey) -> Iterator[Shop]:
    shop = Shop(feed, own_valkey)
    yield shop
    shop.close()


def pid_of(server: EmbeddedValkey) -> int:
    process = server._find_running()
    assert process is not None
    return process.pid


def finish(shop: Shop, least: int, most: int) -> None:
    shop.feed.load()
    assert shop.job().run(shop.today).success
    [value] = shop.table().values()
    stored = shop.feed.one("SELECT sum(amount)::bigint FROM events.usage_records")
    assert least <= value == stored <= most
    assert shop.counter(f"usage:m:{shop.today}:q") == value


@pytest.mark.parametrize("empty", [True, False], ids=["with nothing", "with what was on its disk"])
def test_the_server_is_killed_and_comes_back(own_shop: Shop, tmp_path: Path, empty: bool) -> None:
    trackers = Trackers(own_shop, tmp_path, 2)
    trackers.go_on()
    own_shop.feed.load()
    assert own_shop.job().run(own_shop.today).success
    trackers.go_on()
    os.kill(pid_of(own_shop.valkey), signal.SIGKILL)
    trackers.go_on()  # while it is away
    own_shop.feed.load()
    away = own_shop.job().run(own_shop.today)
    assert (away.success, away.redis) == (True, "away")
    own_shop.valkey.stop()
    if empty:
        shutil.rmtree(own_shop.valkey.data)
    own_shop.valkey.start()
    key = f"usage:m:{own_shop.today}:q"
    known = own_shop.counter(key)
    wait_until(lambda: own_shop.counter(key) != known, "counting in Redis again")
    own_shop.feed.load()
    assert own_shop.job().run(own_shop.today).redis == "ok"
    trackers.go_on()
    least, most = trackers.end()
    assert least == most
    finish(own_shop, least, most)


def test_a_tracker_is_killed(own_shop: Shop, tmp_path: Path) -> None:
    trackers = Trackers(own_shop, tmp_path, 2)
    trackers.go_on()
    trackers.kill_one()
    trackers.go_on(30)
    finish(own_shop, *trackers.end())
