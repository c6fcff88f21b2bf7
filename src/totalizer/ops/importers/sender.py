"""Batches over HTTP: kept-alive connections, the same bytes on every retry, and the answer for each event.

An event carries its id, so a batch whose answer was lost can be sent again: the server stores it once.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import urllib3

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.ops.importers.batch import BATCH_EVENTS_MAX, Item, Refused, by_type, encode_request
from totalizer.ops.importers.stop import Stop
from totalizer.ops.importers.target import Target
from totalizer.prepared import prepared

#: Requests under way at once: enough to keep the server's disk busy while the next batch is read.
IN_FLIGHT_MAX = 3
#: Seconds to wait for a connection and for an answer.
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10.0, 60.0
#: Seconds before the first retry; doubled each time up to the longest.
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.25, 30.0
#: Seconds of failing after which an import gives up, unless told otherwise.
GIVE_UP_AFTER_S = 600.0
#: Seconds between two sentences about a server that does not answer.
NOTICE_INTERVAL_S = 5.0
#: Answers that another attempt may change.
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Answers about the request's size or content as a whole: sent again in halves, they end at the event at fault.
HALVED = frozenset({400, 413, 422})

_PATH = "/api/metrics/batch"


class StoppedError(Exception):
    """A stop was asked for before the server had answered."""


class _ItemAnswer(msgspec.Struct):
    event_type: str
    index: int
    code: str = "rejected"
    message: str = ""


@prepared
class _Answer(msgspec.Struct):
    """The members of an answer that matter here: of an acceptance, or of a problem document (RFC 9457)."""

    accepted: int | None = None
    rejected: int = 0
    items: list[_ItemAnswer] = []
    detail: str = ""
    title: str = ""


class _Reply(NamedTuple):
    status: int
    retry_after_s: float | None
    body: bytes


class Sender:
    """Sends batches to one server. `send` may be called from several threads.

    Args:
        target: server and key.
        stop: ends waiting; asked for by `close` too.
        notice: called with one sentence when the server cannot be reached, from any thread.
        give_up_after_s: seconds of failing, counted for each batch, before the import fails.
        clock: for those seconds.
    """

    def __init__(
        self,
        target: Target,
        stop: Stop,
        notice: Callable[[str], None],
        *,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.stop = stop
        self.events_max = BATCH_EVENTS_MAX
        self._url = target.url + _PATH
        self._headers = {
            "Authorization": f"Bearer {target.key}",
            "Content-Type": "application/json",
            "User-Agent": "totalizer-import",
        }
        self._told_at: float | None = None
        self._notice, self._give_up_after_s, self._clock = notice, give_up_after_s, clock
        self._pool = urllib3.PoolManager(
            maxsize=IN_FLIGHT_MAX, block=True, timeout=urllib3.Timeout(CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)
        )
        self._threads = ThreadPoolExecutor(IN_FLIGHT_MAX, thread_name_prefix="import-sender")

    def submit(self, items: Sequence[Item]) -> Future[list[Refused]]:
        """Send in the background. The result, or what it raises, is that of `send`."""
        return self._threads.submit(self.send, items)

    def send(self, items: Sequence[Item]) -> list[Refused]:
        """Send events until the server has decided on each.

        Args:
            items: at least one, at most `events_max`.

        Returns:
            the events it refused; all others are durable there.

        Raises:
            OperationError: the server refuses all that is sent, or could not be reached for too long.
            StoppedError: a stop was asked for; the events may or may not have arrived.
        """
        groups = by_type(items)
        reply = self._post(encode_request(groups))
        answer = self._decode(reply)
        if reply.status == 202:
            return self._refusals(groups, answer)
        if answer.items:
            # Nothing was accepted; what the answer does not name is asked about by itself.
            refused = self._refusals(groups, answer)
            named = {refusal.line.number for refusal in refused}
            rest = [item for item in items if item.line.number not in named]
            return refused + (self.send(rest) if rest else [])
        if reply.status not in HALVED:
            raise OperationError(self._explain(reply.status, answer))
        reason = answer.detail or answer.title or f"HTTP status {reply.status}"
        if len(items) == 1:
            return [Refused(items[0].line, reason)]
        return self._send_halves(items, reason)

    def close(self) -> None:
        """Stop, wait for requests under way and close the connections."""
        self.stop.ask()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._pool.clear()

    def _send_halves(self, items: Sequence[Item], reason: str) -> list[Refused]:
        """Send the two halves of what was refused as a whole.

        Raises:
            OperationError: not one event of it was accepted, so it is not the events that are wrong.
        """
        middle = len(items) // 2
        refused = self.send(items[:middle]) + self.send(items[middle:])
        if len(refused) == len(items) >= BATCH_EVENTS_MAX:
            raise OperationError(f"{self._url} refuses all that is sent: {reason}")
        if not refused:  # nothing was wrong with the events: there were too many of them
            self.events_max = max(1, min(self.events_max, middle))
        return refused

    def _post(self, body: bytes) -> _Reply:
        """One request, repeated until its answer is one to act on."""
        failing_since: float | None = None
        pause_s = BACKOFF_FIRST_S
        while True:
            try:
                reply = self._request(body)
                if reply.status not in RETRIED:
                    return reply
                problem, asked_s = f"the server answers {reply.status}", reply.retry_after_s
            except urllib3.exceptions.HTTPError as error:
                problem, asked_s = self._unreachable(error), None
            if failing_since is None:
                failing_since = self._clock.monotonic()
            wait_s = asked_s if asked_s is not None else pause_s * random.uniform(0.5, 1.0)
            self._wait(problem, wait_s, failing_since)
            pause_s = min(pause_s * 2, BACKOFF_MAX_S)

    def _request(self, body: bytes) -> _Reply:
        response = self._pool.request(
            "POST", self._url, body=body, headers=self._headers, retries=False, redirect=False
        )
        return _Reply(response.status, _seconds(response.headers.get("Retry-After")), response.data)

    def _unreachable(self, error: urllib3.exceptions.HTTPError) -> str:
        """What kept a request from being answered.

        Raises:
            OperationError: another attempt cannot help.
        """
        if isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError):
            raise OperationError(f"the certificate of {self._url} cannot be trusted: {error}") from error
        return f"no answer ({type(error).__name__})"

    def _wait(self, problem: str, wait_s: float, failing_since: float) -> None:
        left_s = failing_since + self._give_up_after_s - self._clock.monotonic()
        if self.stop.asked:
            raise StoppedError
        if left_s <= 0:
            raise OperationError(
                f"{self._url}: {problem}, for {self._give_up_after_s:.0f} s now. What was acknowledged is "
                "remembered: start the same import again when the server is back"
            )
        wait_s = min(wait_s, left_s)
        self._tell(f"{self._url}: {problem}; next attempt in {wait_s:.1f} s")
        if self.stop.wait(wait_s):
            raise StoppedError

    def _tell(self, sentence: str) -> None:
        now = self._clock.monotonic()
        if self._told_at is None or now - self._told_at >= NOTICE_INTERVAL_S:
            self._told_at = now
            self._notice(sentence)

    def _decode(self, reply: _Reply) -> _Answer:
        try:
            answer = msgspec.json.decode(reply.body, type=_Answer)
        except msgspec.DecodeError as error:
            if reply.status == 202:
                raise OperationError(f"{self._url} gave an answer that is not Totalizer's: {error}") from error
            return _Answer()
        if reply.status == 202 and answer.accepted is None:
            raise OperationError(f"{self._url} gave an answer that is not Totalizer's: no 'accepted' in it")
        return answer

    def _refusals(self, groups: dict[str, list[Item]], answer: _Answer) -> list[Refused]:
        if answer.rejected > len(answer.items):
            raise OperationError(f"{self._url} refused {answer.rejected} events and named {len(answer.items)} of them")
        refused = []
        for item in answer.items:
            group = groups.get(item.event_type, [])
            if not 0 <= item.index < len(group):
                raise OperationError(f"{self._url} refused an event that was not sent: {item}")
            refused.append(Refused(group[item.index].line, f"{item.code}: {item.message}"))
        return refused

    def _explain(self, status: int, answer: _Answer) -> str:
        detail = answer.detail or answer.title or "no reason given"
        if status == 401:
            return f"{self._url} does not accept the API key: {detail}"
        if 300 <= status < 400:
            return f"{self._url} sends elsewhere (status {status}); give the address it redirects to as --url"
        return f"{self._url} answered {status}: {detail}"


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds; None if there is none, or it is a date."""
    return float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else None
