"""A stand-in for `python -m totalizer` under the supervisor: `standin.py serve` and so on.

Every start adds a line `name pid` to `<home>/starts`, another to `<home>/runs` as soon as it listens to signals, and
every graceful end one to `<home>/ends`. A file `<home>/fail-<name>` makes that part end at once with code 7;
`<home>/stubborn-<name>` makes it ignore SIGTERM.
"""

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from totalizer.ops.lifeline import watch_lifeline

HOME = Path(os.environ["TOTALIZER_HOME"])


def note(file: str, text: str) -> None:
    with open(HOME / file, "a") as out:
        out.write(text + "\n")


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = not (HOME / "not-ready").exists()
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"ready" if ready else b"database away")

    def log_message(self, *_arguments: object) -> None:
        return


def run(name: str) -> None:
    stop = threading.Event()
    if (HOME / f"stubborn-{name}").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
    watch_lifeline()
    if name == "serve":
        server = ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Health)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    note("runs", f"{name} {os.getpid()}")
    stop.wait()
    note("ends", name)


def main() -> int:
    name = sys.argv[1]
    note("starts", f"{name} {os.getpid()} {os.environ.get('DATABASE_URL', '-')} {os.environ.get('REDIS_URL', '-')}")
    if (HOME / f"fail-{name}").exists():
        print(f"{name} cannot go on: told so", file=sys.stderr)
        return 7
    if name == "keys":
        (HOME / "api-key").write_text("tz_standin\n")
    elif name != "migrate":
        run(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
