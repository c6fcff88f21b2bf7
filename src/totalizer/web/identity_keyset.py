"""The keys that tokens are signed with: from PEM and JWKS documents (RFC 7517), in a file or behind an address."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK, PyJWTError

from totalizer.errors import ConfigurationError

#: Keys of one set; issuers have two or three.
KEYS_MAX: Final = 100
#: Bytes of a document of keys.
DOCUMENT_BYTES_MAX: Final = 1 << 20
#: Bits of the shortest RSA key that is taken (NIST SP 800-131A).
RSA_BITS_MIN: Final = 2048

_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


class VerifyingKey(NamedTuple):
    """A public key.

    Attributes:
        kid: its name; None if the document does not say.
        algorithm: RS256 or ES256, by what the key is and not by what a token says.
        key: for PyJWT.
    """

    kid: str | None
    algorithm: str
    key: Any


def read_keys(document: bytes, where: str) -> tuple[VerifyingKey, ...]:
    """The usable keys of a PEM or JWKS document, at least one.

    Args:
        document: its bytes.
        where: it comes from, for messages.

    Raises:
        ConfigurationError: there is none in it, or it is something else.
    """
    if len(document) > DOCUMENT_BYTES_MAX:
        raise ConfigurationError(f"{where}: more than {DOCUMENT_BYTES_MAX} bytes is no set of keys")
    if b"-----BEGIN " in document:
        return _pem_keys(document, where)
    return _jwks_keys(document, where)


def _pem_keys(document: bytes, where: str) -> tuple[VerifyingKey, ...]:
    keys = []
    for block in _BLOCK.finditer(document):
        if b"PRIVATE" in block[1]:
            raise ConfigurationError(f"{where}: holds a private key; give the public one and keep the other secret")
        try:
            if block[1] == b"CERTIFICATE":
                public: Any = x509.load_pem_x509_certificate(block[0]).public_key()
            else:
                public = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(f"{where}: a PEM block cannot be read: {error}") from None
        keys.append(VerifyingKey(None, _algorithm(public, where), public))
    if not keys or len(keys) > KEYS_MAX:
        raise ConfigurationError(f"{where}: has {len(keys)} PEM public keys; use 1 to {KEYS_MAX}")
    return tuple(keys)


def _algorithm(key: Any, where: str) -> str:
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    raise ConfigurationError(f"{where}: a key is neither RSA of {RSA_BITS_MIN} bits or more nor EC P-256")


def _jwks_keys(document: bytes, where: str) -> tuple[VerifyingKey, ...]:
    try:
        items = json.loads(document)["keys"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise ConfigurationError(f'{where}: is neither PEM nor a JSON object with "keys"') from None
    if not isinstance(items, list) or len(items) > KEYS_MAX:
        raise ConfigurationError(f'{where}: "keys" is no list of at most {KEYS_MAX}')
    keys = tuple(key for item in items if (key := _jwk(item, where)) is not None)
    if not keys:
        raise ConfigurationError(f"{where}: has no key for RS256 or ES256")
    return keys


def _jwk(item: Any, where: str) -> VerifyingKey | None:
    """One key of a set; None for keys that are for something else: RFC 7517 §5 has them ignored.

    A symmetric key is one of those: who publishes it publishes a forger's tool.
    """
    if not isinstance(item, dict) or item.get("use", "sig") != "sig" or item.get("kty") not in ("RSA", "EC"):
        return None
    public = {name: value for name, value in item.items() if name in ("kty", "n", "e", "crv", "x", "y")}
    kid = item.get("kid")
    try:
        key = PyJWK.from_dict(public, algorithm="RS256" if item["kty"] == "RSA" else "ES256").key
        algorithm = _algorithm(key, where)
    except (PyJWTError, ConfigurationError, ValueError, TypeError, AttributeError, KeyError):
        return None
    if item.get("alg", algorithm) != algorithm:
        return None
    return VerifyingKey(kid if isinstance(kid, str) else None, algorithm, key)
