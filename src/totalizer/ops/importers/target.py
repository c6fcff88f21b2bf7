"""Where an import sends: the server's address and the API key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from totalizer.errors import ConfigurationError
from totalizer.prepared import prepared


@prepared
class _State(msgspec.Struct):
    url: str


@dataclass(frozen=True)
class Target:
    """A server and the key to it.

    Attributes:
        url: base address, `http://host:port`, without a slash at the end.
        key: API key; never shown.
    """

    url: str
    key: str = field(repr=False)


def find_target(url: str | None, key: str | None, home: Path, variables: Mapping[str, str]) -> Target:
    """The server to send to: as given, else from the environment, else the stack that runs in `home`.

    The key kept in `home` belongs to the stack there and is never sent to another address.

    Args:
        url: value of `--url`.
        key: value of `--key`.
        home: data folder of a running stack.
        variables: the environment.

    Raises:
        ConfigurationError: no server is known, or no key for it, or one of them is malformed.
    """
    named = url or variables.get("TOTALIZER_URL")
    local = _local_url(home)
    address = named or local
    if address is None:
        raise ConfigurationError(
            f"no server to send to: nothing runs in {home}. Start one with `totalizer up`, or give --url "
            "and --key, or set TOTALIZER_URL and TOTALIZER_API_KEY"
        )
    address = _checked_url(address)
    secret = key or variables.get("TOTALIZER_API_KEY")
    if not secret and local is not None and address == local.rstrip("/"):
        secret = _read(home / "api-key")
    if not secret:
        raise ConfigurationError(f"no API key for {address}: give --key or set TOTALIZER_API_KEY")
    return Target(address, _checked_key(secret.strip()))


def _local_url(home: Path) -> str | None:
    file = home / "run" / "state.json"
    text = _read(file)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=_State).url
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{file} is damaged ({error}); start `totalizer up` again, or give --url") from error


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"the address {url!r} is not like http://host:port")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("the address may not hold a user, a query or a fragment; the key goes into --key")
    try:
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"the address {url!r} has no usable port: {error}") from error
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigurationError("the API key holds characters no key has; check --key or TOTALIZER_API_KEY")
    return key
