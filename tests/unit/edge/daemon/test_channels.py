"""Alerts over HTTP to a real receiver, by apprise; and where their addresses must not appear."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support import free_port
from totalizer.edge.daemon import Alert, CronRecoveryDaemon
from totalizer.edge.daemon.channels import AppriseChannel
from totalizer.edge.folder import Folders
from totalizer.errors import ConfigurationError

SECRET = "s3cr3t-t0ken"


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[dict[str, Any]] = []
        self.status = 200
        self.url = f"json://user:{SECRET}@127.0.0.1:{self.server_port}/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    """Answers as it is told to."""

    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_alert_arrives(make: Callable[..., CronRecoveryDaemon], receiver: Receiver, folders: Folders) -> None:
    daemon = make(alert_urls=[receiver.url])
    alert = {"severity": "critical", "message": "High failure rate detected", "details": {"failureRate": 0.15}}
    assert daemon.send_alert(alert)
    assert daemon.send_alert(alert)
    [received] = receiver.received
    assert received["type"] == "failure"
    assert received["title"].startswith("[critical] Totalizer recovery daemon on ")
    assert str(folders.data) in received["title"]
    assert received["message"] == "High failure rate detected\nfailureRate: 0.15"


def test_only_what_is_critical_reaches_a_pager(make: Callable[..., CronRecoveryDaemon], receiver: Receiver) -> None:
    daemon = make(alert_urls_critical=[receiver.url])
    assert daemon.send_alert(Alert("warning", "slow"))
    assert receiver.received == []
    assert daemon.send_alert(Alert("critical", "down"))
    assert len(receiver.received) == 1


def test_a_receiver_that_refuses_or_is_away(make: Callable[..., CronRecoveryDaemon], receiver: Receiver) -> None:
    receiver.status = 500
    daemon = make(alert_urls=[receiver.url, f"json://127.0.0.1:{free_port()}"])
    assert not daemon.send_alert(Alert("critical", "down"))
    receiver.status = 200
    assert daemon.send_alert(Alert("critical", "down"))
    assert len(receiver.received) == 2


def test_findings_become_alerts_and_go_when_they_are_over(
    make: Callable[..., CronRecoveryDaemon], receiver: Receiver, folders: Folders
) -> None:
    daemon = make(alert_urls=[receiver.url])
    path = folders.errors / "batch_x.failed.json"
    path.write_text("nonsense")
    daemon._check_and_alert()
    daemon._check_and_alert()
    path.unlink()
    daemon._check_and_alert()
    told = [message["message"] for message in receiver.received if "cannot be read" in message["message"]]
    assert told[0] == "files that cannot be read as batches: 1"
    assert told[1].startswith("resolved: files that cannot be read as batches: 1")
    assert len(told) == 2


@pytest.mark.parametrize("status", [200, 500])
def test_addresses_are_in_no_log_and_no_file(
    make: Callable[..., CronRecoveryDaemon], receiver: Receiver, folders: Folders, status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    receiver.status = status
    daemon = make(alert_urls=[receiver.url], alert_urls_critical=[f"json://{SECRET}@127.0.0.1:{free_port()}/{SECRET}"])
    daemon.send_alert(Alert("critical", "down"))
    assert len(receiver.received) == 1
    assert "alert" in caplog.text
    files = [path.read_text() for path in folders.data.parent.rglob("*") if path.is_file()]
    assert len(files) > 1
    shown = [caplog.text, repr(vars(daemon)), *files]
    assert [text for text in shown if SECRET in text] == []


def test_others_may_use_apprise_beside_it(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert AppriseChannel("alert_urls[0]", receiver.url, "info", "x").send(Alert("info", "m"))
    logging.getLogger("apprise").info("somebody else's line")
    assert "somebody else's line" in caplog.text


@pytest.mark.parametrize("url", [f"nosuchservice://{SECRET}", f"slack://{SECRET}", "json://"])
def test_an_address_that_apprise_does_not_know(
    make: Callable[..., CronRecoveryDaemon], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigurationError, match=r"alert_urls\[1\]: apprise does not know") as caught:
        make(alert_urls=["json://127.0.0.1", url])
    assert SECRET not in str(caught.value) + caplog.text


def test_details_of_any_type_are_logged(make: Callable[..., CronRecoveryDaemon], folders: Folders) -> None:
    assert make().send_alert(Alert("warning", "odd", {"path": folders.data, "bytes": b"x", "set": {1}}))
    [line] = (folders.logs / "recovery.log").read_text().splitlines()
    assert json.loads(line)["details"]["path"] == str(folders.data)
