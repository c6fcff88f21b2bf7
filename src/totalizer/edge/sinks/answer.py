"""What an answer to a batch request means: taken, with a fate for each event; or what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import msgspec

from totalizer.edge.event_of import EVENT_TYPE
from totalizer.errors import STATUS_OF

#: Statuses that another attempt may change. 409: the same request is still under way.
RETRIED = frozenset({408, 409, 425, 429})
#: Statuses that speak of the address or the key, not of the batch: somebody can mend these.
MISDIRECTED = frozenset({401, 403, 404, 405, 407, 421, 426})
#: Statuses about a request's size or content as a whole: its halves end at the event at fault.
HALVED = frozenset({400, 413, 422})
#: Codes of single events that another attempt may change.
_RETRIED_CODES = {refusal.value for refusal, status in STATUS_OF.items() if status >= 500} | {"rate_limited"}
#: Characters of a server's words that are passed on.
_WORDS_MAX = 500
_CODE_MAX = 100


class Reply(NamedTuple):
    """An answer, read to its end.

    Attributes:
        status: of HTTP.
        retry_after_s: seconds the server asks to be left alone for; None if it does not say.
        body: as it came.
    """

    status: int
    retry_after_s: float | None
    body: bytes


class NoReply(Exception):
    """No answer, or not a whole one; the message says what happened, without secrets."""


class Act(Enum):
    """What to do after an answer."""

    GO_ON = "the events have their fates"
    WAIT = "try again later"
    HALVE = "send the halves"
    GIVE_UP = "never again"
    WITHOUT_KEY = "send again without an Idempotency-Key"


class ItemRefusal(msgspec.Struct, frozen=True):
    """An event that was not taken: its place in the request, the server's word for the reason, and its sentence."""

    index: int
    code: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """An answer, understood.

    Attributes:
        act: what to do.
        reason: why, for people.
        code: the server's word for the reason; empty if it has none.
        refused: events refused for good.
        later: places of events to send again: now if `now`, else later.
        now: nothing was wrong with those, they were only in bad company.
    """

    act: Act
    reason: str = ""
    code: str = ""
    refused: tuple[ItemRefusal, ...] = ()
    later: tuple[int, ...] = ()
    now: bool = False


class _Item(msgspec.Struct):
    event_type: str
    index: int
    code: str = "rejected"
    message: str = ""
    status: str | int = ""


class _Answer(msgspec.Struct):
    """The members that matter: of an acceptance, or of a problem document (RFC 9457)."""

    accepted: int | None = None
    rejected: int = 0
    items: list[_Item] = []
    type: str = ""
    title: str = ""
    detail: str = ""
    code: str = ""


class _NotOursError(Exception):
    """The answer does not fit the request."""


_decode = msgspec.json.Decoder(_Answer).decode


def verdict(status: int, body: bytes, count: int) -> Verdict:
    """What an answer means. Never raises: nonsense means that nobody knows, so the same is sent again later.

    Args:
        status: of HTTP.
        body: of the answer.
        count: events of the request.
    """
    answer = _decoded(body)
    words = _words(answer)
    said = f"it answers {status}: {words}" if words else f"it answers {status}"
    if status == 202:
        return _taken(answer, count)
    if status in RETRIED or status >= 500:
        return Verdict(Act.WAIT, said)
    if status in (401, 403):
        return Verdict(Act.WAIT, f"{said}; check api_key, the entries are kept")
    if status in MISDIRECTED:
        return Verdict(Act.WAIT, f"{said}; check the url, the entries are kept")
    if 300 <= status < 400:
        return Verdict(Act.WAIT, f"{said} and sends elsewhere; give the address it sends to as url")
    if status == 413:
        return Verdict(Act.HALVE, said, (answer and answer.code) or "body_too_large")
    if answer is None or not words or not 400 <= status < 500:
        return Verdict(Act.WAIT, f"{said}, in a way that is not Totalizer's; check the url")
    return _refused(status, answer, said, count)


def _refused(status: int, answer: _Answer, said: str, count: int) -> Verdict:
    """A problem document about the request itself."""
    if answer.items:
        # None of them was taken; those it does not name may be good ones.
        return _fates(answer, count, now=True)
    if status == 422 and "idempotency" in f"{answer.type} {answer.title} {answer.detail} {answer.code}".lower():
        return Verdict(Act.WITHOUT_KEY, said)
    if status in HALVED:
        return Verdict(Act.HALVE, said, _code(answer.code, status))
    return Verdict(Act.GIVE_UP, said, _code(answer.code, status))


def _taken(answer: _Answer | None, count: int) -> Verdict:
    """A 202: believed only if it accounts for every event that was sent."""
    if answer is None or answer.accepted is None:
        return Verdict(Act.WAIT, "its answer 202 is not Totalizer's: there is no count of accepted events in it")
    if answer.rejected != len(answer.items) or answer.accepted + answer.rejected != count:
        return Verdict(
            Act.WAIT, f"its answer is wrong: {answer.accepted} accepted, {answer.rejected} rejected and "
            f"{len(answer.items)} named, of {count} sent",
        )  # fmt: skip
    return _fates(answer, count, now=False)


def _fates(answer: _Answer, count: int, *, now: bool) -> Verdict:
    try:
        named = _by_index(answer.items, count)
    except _NotOursError as error:
        return Verdict(Act.WAIT, str(error))
    refused = tuple(
        ItemRefusal(index, item.code[:_CODE_MAX], item.message[:_WORDS_MAX])
        for index, item in sorted(named.items())
        if not _retryable(item)
    )
    later = [index for index, item in sorted(named.items()) if _retryable(item)]
    reason = f"{named[later[0]].code}: {named[later[0]].message}"[:_WORDS_MAX] if later else _words(answer)
    if not now:
        return Verdict(Act.GO_ON, reason, refused=refused, later=tuple(later))
    if not refused:
        return Verdict(Act.WAIT, reason)
    again = tuple(sorted(set(range(count)) - {item.index for item in refused}))
    return Verdict(Act.GO_ON, reason, refused=refused, later=again, now=True)


def _by_index(items: list[_Item], count: int) -> dict[int, _Item]:
    named: dict[int, _Item] = {}
    for item in items:
        if item.event_type != EVENT_TYPE or not 0 <= item.index < count or item.index in named:
            place = f"{item.event_type[:40]} {item.index}"
            raise _NotOursError(f"its answer is wrong: it speaks of event {place}, of {count} sent")
        named[item.index] = item
    return named


def _retryable(item: _Item) -> bool:
    status = str(item.status)
    retried = status.isascii() and status.isdigit() and (int(status[:9]) in RETRIED or int(status[:9]) >= 500)
    return retried or item.code in _RETRIED_CODES


def _decoded(body: bytes) -> _Answer | None:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _words(answer: _Answer | None) -> str:
    return "" if answer is None else (answer.detail or answer.title or answer.code)[:_WORDS_MAX]


def _code(code: str, status: int) -> str:
    return code[:_CODE_MAX] or f"http_{status}"
