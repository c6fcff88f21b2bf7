"""Another API process on a running stack's database and Redis, as on another machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from support import RunningStack, free_port, wait_until

HTTP = urllib3.PoolManager(retries=False, timeout=30)


@contextmanager
def second_api(running: RunningStack, folder: Path, **settings: str) -> Iterator[str]:
    """Its address. It has a data folder and a journal of its own, which nobody loads.

    Args:
        running: whose database and Redis.
        folder: an empty one.
        settings: by variable, stronger than what follows from the stack.
    """
    port, log_path = free_port(), folder / "serve.log"
    state = json.loads((running.home / "run" / "state.json").read_text())
    environment = {
        **os.environ, "DATABASE_URL": state["dsn"], "REDIS_URL": state["redis_url"], "PORT": str(port),
        "TOTALIZER_SECRET": (running.home / "secret").read_text().strip(), "TOTALIZER_HOME": str(folder / "home"),
        "RATE_LIMIT_MAX_REQUESTS": "0", **settings,
    }  # fmt: skip
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "totalizer", "serve"], env=environment, cwd=folder, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, log_path.read_text()
        try:
            return bool(HTTP.request("GET", url + "/health/ready").status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    try:
        wait_until(ready, "the second API")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
