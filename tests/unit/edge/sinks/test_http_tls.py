"""Batches over TLS: only to a server whose certificate is trusted."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from standin_server import KEY, StandinServer, standin_server
from support import unavailable
from totalizer.edge.batch import Batch
from totalizer.edge.sinks.http import HttpSink
from totalizer.errors import SinkUnavailable

BATCH = Batch("1_abcdef", 1, ({"id": "e0", "userId": "u", "action": "a", "timestamp": 1_757_066_400_000},))


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    if shutil.which("openssl") is None:
        unavailable("there is no openssl to make a certificate with")
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *named, "-out", made, "-keyout", key], check=True, capture_output=True)
    return made, key


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Path]:
    return certificate(tmp_path, "own")


@pytest.fixture
def server(own: tuple[Path, Path]) -> Iterator[StandinServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own)
    with standin_server(context) as server:
        yield server


def test_a_server_that_the_bundle_vouches_for_is_sent_to(server: StandinServer, own: tuple[Path, Path]) -> None:
    sink = HttpSink(server.url, KEY, timeout_s=10, ca_bundle=own[0])
    assert sink.deliver(BATCH).accepted == 1
    assert sink.deliver(BATCH).accepted == 1
    assert server.connections == 1
    sink.close()


def test_a_server_nobody_vouches_for_gets_neither_key_nor_batch(server: StandinServer, tmp_path: Path) -> None:
    other, _ = certificate(tmp_path, "other")
    for bundle in (None, other):
        sink = HttpSink(server.url, KEY, timeout_s=10, ca_bundle=bundle)
        with pytest.raises(SinkUnavailable, match=r"certificate.*ca_bundle"):
            sink.deliver(BATCH)
        sink.close()
    assert server.requests == []


def test_a_slow_answer_over_tls_is_given_up(server: StandinServer, own: tuple[Path, Path]) -> None:
    server.script = ["drip head"]
    sink = HttpSink(server.url, KEY, timeout_s=0.5, ca_bundle=own[0])
    with pytest.raises(SinkUnavailable, match="in time"):
        sink.deliver(BATCH)
    sink.close()


def test_a_plain_server_that_is_spoken_to_in_tls() -> None:
    with standin_server() as plain:
        sink = HttpSink(plain.url.replace("http:", "https:"), KEY, timeout_s=2)
        with pytest.raises(SinkUnavailable):
            sink.deliver(BATCH)
        sink.close()
        assert plain.requests == []
