"""An identity provider for tests: key pairs, the documents it publishes, and tokens, good and forged."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

SECRET = "a shared secret of more than 32 bytes"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class KeyPair:
    """One signing key with its name."""

    def __init__(self, kid: str, kind: str = "RS256", bits: int = 2048) -> None:
        self.kid, self.kind = kid, kind
        self.private: Any = (
            rsa.generate_private_key(65537, bits) if kind == "RS256" else ec.generate_private_key(ec.SECP256R1())
        )

    @property
    def pem(self) -> bytes:
        """The public key."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return bytes(self.private.public_key().public_bytes(serialization.Encoding.PEM, form))

    @property
    def private_pem(self) -> bytes:
        form = serialization.PrivateFormat.PKCS8
        return bytes(self.private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))

    @property
    def jwk(self) -> dict[str, Any]:
        algorithm: Any = RSAAlgorithm if self.kind == "RS256" else ECAlgorithm
        return {**json.loads(algorithm.to_jwk(self.private.public_key())), "kid": self.kid, "use": "sig"}


def jwks(*pairs: KeyPair) -> bytes:
    """The document that publishes keys."""
    return json.dumps({"keys": [pair.jwk for pair in pairs]}).encode()


class Issuer:
    """A web server with a document of keys.

    Attributes:
        document: what it answers with; None: 503.
        asked: how often.
    """

    def __init__(self, document: bytes | None) -> None:
        self.document, self.asked = document, 0
        self.url = ""


@contextmanager
def issuer(document: bytes | None) -> Iterator[Issuer]:
    """An issuer on a free port."""
    state = Issuer(document)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            body = state.document
            self.send_response(200 if body is not None else 503)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/keys.json"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
