"""The hot path: a request in, its events durable in the journal, the answer out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from totalizer.collect import Admission, Collector
from totalizer.errors import JournalError, JournalFailed, JournalFull, Refusal, Refused
from totalizer.journal import Journal
from totalizer.web import problem
from totalizer.web.asgi_bridge import read_body
from totalizer.web.encoding import check_encoding, gunzip
from totalizer.web.identity import Authenticator

PREFIX = "/api/metrics/"
BATCH = PREFIX + "batch"
#: Told to senders while the journal cannot take more.
RETRY_AFTER_S = 5

_JSON_HEADERS = [("content-type", "application/json")]
_JSON_TYPES = ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")


class JournalWaiters:
    """Wakes the requests of a journal group, on the event loop they wait on."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake on this loop from now on."""
        self._loop = loop

    def on_commit(self, tokens: list[object], error: JournalError | None) -> None:
        """Called by the journal's thread once a group, with the futures of its requests."""
        assert self._loop is not None, "a request waits before the event loop is known"
        self._loop.call_soon_threadsafe(_resolve, tokens, error)


def _resolve(futures: list[Any], error: JournalError | None) -> None:
    for future in futures:
        if future.done():  # the client has gone away
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


class Ingest:
    """The ingest routes.

    Args:
        authenticator: who is it?
        collector: is it right?
        journal: is it durable?
        body_bytes_max: longest body.
    """

    def __init__(
        self, authenticator: Authenticator, collector: Collector, journal: Journal, *, body_bytes_max: int
    ) -> None:
        self._authenticator, self._collector, self._journal = authenticator, collector, journal
        self._body_bytes_max = body_bytes_max
        #: Path → route of single events; None for the batch.
        self.routes: dict[str, str | None] = {PREFIX + route: route for route in collector.routes()}
        self.routes[BATCH] = None

    async def __call__(self, scope: Any, proto: Any) -> None:
        """Answer one POST to one of `routes`: 202 only when its events are on disk."""
        try:
            headers = scope.headers
            authorization = headers.get("authorization")
            principal = self._authenticator.remembered(authorization, "ingest")
            if principal is None:
                principal = await self._authenticator.authenticate(authorization, "ingest")
            _check_content_type(headers.get("content-type"))
            packed = check_encoding(headers.get("content-encoding"))
            body = await read_body(scope, proto, self._body_bytes_max)
            if packed:
                body = gunzip(body, self._body_bytes_max)
            answer, durable = self._admit(principal.organization_id, scope.path, body)
            await durable
        except (Refused, JournalFailed) as error:
            proto.response_bytes(*problem.response(_refusal(error)))
        else:
            proto.response_bytes(202, _JSON_HEADERS, answer)

    async def take(self, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """The same for a request that another server has read.

        Args:
            path: one of `routes`.
            headers: by their names in lower case.
            body: as it was sent, at most as long as that server lets bodies be.

        Raises:
            Refused: it is not accepted.
        """
        principal = await self._authenticator.authenticate(headers.get("authorization"), "ingest")
        _check_content_type(headers.get("content-type"))
        if check_encoding(headers.get("content-encoding")):
            body = gunzip(body, self._body_bytes_max)
        answer, durable = self._admit(principal.organization_id, path, body)
        try:
            await durable
        except JournalFailed as error:
            raise _refusal(error) from None
        return answer

    def _admit(self, organization_id: str, path: str, body: bytes) -> tuple[bytes, asyncio.Future[None]]:
        """The answer to a request, and the future that is done when it may be given."""
        route = self.routes[path]
        if route is None:
            batch = self._collector.admit_batch(organization_id, body)
            payload, answer = batch.payload, _batch_answer(batch)
        else:
            payload, event_id = self._collector.admit_one(organization_id, route, body)
            answer = f'{{"accepted":1,"rejected":0,"id":"{event_id}"}}'.encode()
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._journal.append(payload, durable)
        except JournalFull as error:
            raise Refused(Refusal.JOURNAL_FULL, str(error), retry_after_s=RETRY_AFTER_S) from None
        return answer, durable


def _refusal(error: Refused | JournalFailed) -> Refused:
    if isinstance(error, Refused):
        return error
    detail = f"nothing was accepted, since it could not be made durable: {error}"
    return Refused(Refusal.JOURNAL_FAILED, detail, retry_after_s=RETRY_AFTER_S)


def _check_content_type(content_type: str | None) -> None:
    if content_type in _JSON_TYPES:
        return
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(
            Refusal.UNSUPPORTED_MEDIA_TYPE,
            f"content type {content_type!r} is not taken; send application/json",
        )


def _batch_answer(admission: Admission) -> bytes:
    if not admission.items:
        return f'{{"accepted":{admission.accepted},"rejected":0,"items":[]}}'.encode()
    items = admission.items
    return msgspec.json.encode({"accepted": admission.accepted, "rejected": len(items), "items": items})
