"""Kills a sending process again and again, at random, and then asks the server what it has counted.

totalizer up
TOTALIZER_URL=http://127.0.0.1:3000 TOTALIZER_API_KEY=$(cat .totalizer/api-key) python examples/edge/kill_sender.py 200
"""

import http.client
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

from totalizer.edge import FlushError, HttpSink, SmartBatchAggregator

URL, KEY = os.environ["TOTALIZER_URL"], os.environ["TOTALIZER_API_KEY"]
#: Seconds a sender lives at most before it is killed.
LIFE_S_MAX = 0.25
#: Seconds the server may take to load and roll up what it has.
PATIENCE_S = 120


def send(run: str, first: int, acknowledged: int, last: int | None) -> None:
    """In the child: send entry after entry, and tell the parent of each that is safe."""
    aggregator = SmartBatchAggregator(
        sink=HttpSink(URL, KEY, timeout_s=10), data_path=f"{run}/aggregated", batch_size=20, max_age_ms=100
    )
    number = first
    while last is None or number <= last:
        aggregator.add({
            "id": f"{run}-{number}", "userId": run, "action": "sent", "timestamp": time.time_ns() // 1_000_000,
        })  # fmt: skip
        os.write(acknowledged, struct.pack("q", number))
        number += 1
    try:
        aggregator.shutdown()
    except FlushError as error:  # kept in a file, see recover()
        print(error, file=sys.stderr)


def sender(run: str, first: int, last: int | None) -> int:
    """Start a sender, kill it unless it shall end at `last`; the number of the last entry it was told is safe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            send(run, first, writing, last)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)  # the parent's end is not the child's
    os.close(writing)
    if last is None:
        time.sleep(random.uniform(0, LIFE_S_MAX))
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended not in (0, -signal.SIGKILL):
        sys.exit(f"a sender failed by itself, after entry {first - 1 + len(told) // 8}")
    whole = len(told) // 8
    return struct.unpack_from("q", told, (whole - 1) * 8)[0] if whole else first - 1


def recover(run: str) -> None:
    """Deliver what was put aside while the server did not answer; the recovery daemon does this by itself."""
    command = [sys.executable, "-m", "totalizer", "bridge", "aggregate-recover", "--data-path", f"{run}/aggregated"]
    deadline = time.monotonic() + PATIENCE_S
    while subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0 and time.monotonic() < deadline:
        time.sleep(0.5)


def counted(run: str) -> int | None:
    """The server's total of this run; None if it is not settled yet."""
    query = {
        "event_type": "time_entries", "aggregation_window": "total", "start_date": "1971-01-01", "user_id": run,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{URL}/api/metrics/aggregated?{urllib.parse.urlencode(query)}", headers={"Authorization": f"Bearer {KEY}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            document = json.load(answer)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return sum(row["entries"] for row in document["data"]) if document["complete"] else None


def main(kills: int) -> int:
    """Kill `kills` senders; 0 if the server's total is exactly what was acknowledged."""
    run = f"run-{time.time_ns()}"
    # The first entry is sent from here, so that what a sender imports is there before it is forked.
    with open(os.devnull, "wb", buffering=0) as nobody:
        send(run, 0, nobody.fileno(), 0)
    safe = 0
    for _ in range(kills):
        safe = sender(run, safe + 1, None)
    safe = sender(run, safe + 1, safe + 10)
    recover(run)
    deadline, total = time.monotonic() + PATIENCE_S, None
    while total != safe + 1 and time.monotonic() < deadline:
        total = counted(run)
        time.sleep(0.2)
    print(f"{kills} kills, {safe + 1} entries acknowledged, {total} counted by the server")
    return 0 if total == safe + 1 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
