"""Where the keys of tokens come from, and how they are kept up to date: a file, or an issuer's address."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import urllib3

from totalizer.clock import Clock
from totalizer.errors import ConfigurationError, Refusal, Refused
from totalizer.telemetry import logger
from totalizer.web.identity_keyset import DOCUMENT_BYTES_MAX, VerifyingKey, read_keys

#: How often a file is looked at, and how old keys of an address get before they are fetched again.
FILE_LOOK_S, ADDRESS_AGE_S = 1.0, 300.0
#: Longest wait for an issuer.
FETCH_TIMEOUT_S: Final = 5.0
#: Keys tried for one token that names none.
TRIED_MAX: Final = 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Keys = tuple[VerifyingKey, ...]


class KeySource(Protocol):
    """Keys of tokens."""

    async def find(self, algorithm: str, kid: str | None) -> Keys:
        """The keys that a token with this header may be signed with; none, if it cannot be.

        Raises:
            Refused: 503, there are no keys yet and none can be had.
        """
        ...

    async def close(self) -> None:
        """End what goes on beside the requests."""
        ...


def key_source(place: str, clock: Clock, *, refresh_s: float) -> KeySource:
    """The keys behind a file's name or an address.

    Args:
        place: path, or https address; http for this machine only.
        clock: for the age of what is known.
        refresh_s: an address is asked at most this often.

    Raises:
        ConfigurationError: the file cannot be used, or the address is no https address.
    """
    if "://" not in place:
        return FileKeys(Path(place).expanduser(), clock)
    parts = urlsplit(place)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigurationError(f"TOTALIZER_JWT_KEYS={place}: use https, so that nobody else can answer")
    return AddressKeys(place, clock, refresh_s=refresh_s)


def matching(keys: Keys, algorithm: str, kid: str | None) -> Keys:
    """Those of an algorithm and a name; a key or a token without name matches any."""
    return tuple(
        key for key in keys if key.algorithm == algorithm and (kid is None or key.kid is None or key.kid == kid)
    )[:TRIED_MAX]


class FileKeys:
    """Keys of a file, read again when it changes; a change that cannot be read leaves the old ones in force.

    Raises:
        ConfigurationError: it cannot be used.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._looked_at = clock.monotonic()
        self._stamp = self._stamp_now()
        self._keys = self._read()

    async def find(self, algorithm: str, kid: str | None) -> Keys:
        if self._clock.monotonic() - self._looked_at >= FILE_LOOK_S:
            self._looked_at = self._clock.monotonic()
            self._read_if_changed()
        return matching(self._keys, algorithm, kid)

    async def close(self) -> None:
        """Nothing goes on."""

    def _read_if_changed(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            logger().error("the keys of tokens stay as they were", reason=str(error))
        else:
            logger().info("keys of tokens read", path=str(self._path), keys=len(self._keys))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Keys:
        try:
            with self._path.open("rb") as file:
                document = file.read(DOCUMENT_BYTES_MAX + 1)
        except OSError as error:
            raise ConfigurationError(f"TOTALIZER_JWT_KEYS={self._path}: cannot be read: {error.strerror}") from None
        return read_keys(document, f"TOTALIZER_JWT_KEYS={self._path}")


class AddressKeys:
    """Keys of an issuer's address, fetched with the first token; the last good ones stay while it is away.

    They are fetched again when they are old, and when a token names a key that is not among them, yet seldom enough
    that forged names cannot make this server knock at another's door.

    Args:
        url: of a JWKS document.
        clock: for the age of what is known.
        refresh_s: it is asked at most this often.
    """

    def __init__(self, url: str, clock: Clock, *, refresh_s: float) -> None:
        self._url, self._clock, self._refresh_s = url, clock, refresh_s
        self._keys: Keys = ()
        self._good_at = self._asked_at = float("-inf")
        self._asking = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None
        self._pool = urllib3.PoolManager(maxsize=1, retries=False, timeout=FETCH_TIMEOUT_S)

    async def find(self, algorithm: str, kid: str | None) -> Keys:
        found = matching(self._keys, algorithm, kid)
        if not found:
            await self._refresh()
            found = matching(self._keys, algorithm, kid)
        elif self._clock.monotonic() - self._good_at > ADDRESS_AGE_S and self._may_ask():
            # Good enough for this token: nobody waits for the new ones.
            self._renewing = asyncio.get_running_loop().create_task(self._refresh())
        if not self._keys:
            detail = "the token cannot be checked: the keys of its issuer cannot be fetched at present"
            raise Refused(Refusal.IDENTITY_UNAVAILABLE, detail, retry_after_s=5)
        return found

    async def close(self) -> None:
        """Wait for no answer any more."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        self._pool.clear()

    def _may_ask(self) -> bool:
        idle = self._renewing is None or self._renewing.done()
        return idle and self._clock.monotonic() - self._asked_at >= self._refresh_s

    async def _refresh(self) -> None:
        async with self._asking:  # who waits here finds what the one before it has fetched
            if self._clock.monotonic() - self._asked_at < self._refresh_s:
                return
            self._asked_at = self._clock.monotonic()
            try:
                async with asyncio.timeout(2 * FETCH_TIMEOUT_S):  # an answer may come byte by byte
                    self._keys = await asyncio.to_thread(self._fetch)
            except (urllib3.exceptions.HTTPError, ConfigurationError, TimeoutError) as error:
                reason = str(error) or "no answer in time"
                logger().warning("the issuer's keys cannot be fetched", url=self._url, reason=reason)
            else:
                self._good_at = self._asked_at

    def _fetch(self) -> Keys:
        answer = self._pool.request(
            "GET", self._url, preload_content=False, redirect=False, headers={"accept": "application/json"}
        )
        try:
            if answer.status != 200:
                raise ConfigurationError(f"{self._url}: status {answer.status}")
            return read_keys(answer.read(DOCUMENT_BYTES_MAX + 1), self._url)
        finally:
            answer.drain_conn()
            answer.release_conn()
