"""What can be done on the page. Each is a form; each ends on the page again, which says what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, post
from litestar.response import Redirect
from psycopg_pool import AsyncConnectionPool

from totalizer.alerts.shown import END_SILENCE, SILENCE
from totalizer.errors import Refusal, Refused
from totalizer.store.tenant import writing_as
from totalizer.web.alert_routes import Silence
from totalizer.web.audit import actor_of
from totalizer.web.job_routes import ask_for_run, checked, no_job
from totalizer.web.operator.door import PATH, Door, require
from totalizer.web.operator.session import OperatorSession
from totalizer.web.quarantine import Quarantine

#: What became of something, as the page says it. The address carries the word before the colon, and a name.
SAID: Final = {
    "loaded": "Event {} is stored.",
    "duplicate": "Event {} was stored before; it is not counted twice.",
    "conflict": "Event {} is not stored: one with its id and other contents is there.",
    "quarantined": "Event {} was refused again; the table says why.",
    "dropped": "Event {} is dropped for good.",
    "asked": "A run of {} is asked for. The next scheduler or worker that looks begins it.",
    "silenced": "Alerts of {} are silenced.",
    "ended": "Silence {} has ended.",
}

Request_ = Request[Any, Any, Any]
#: Does something for somebody, with the fields of the form; returns a word of SAID and a name.
Act = Callable[[OperatorSession, dict[str, str]], Awaitable[tuple[str, str]]]


def said(word: str | None, name: str | None) -> str | None:
    """The sentence of an address; None if it has none."""
    sentence = SAID.get(word or "")
    return None if sentence is None else sentence.format((name or "")[:63])


class Actions:
    """What can be done.

    Args:
        door: knows who asks.
        pool: connections as the app role.
        quarantine: changes what is in quarantine.
    """

    def __init__(self, door: Door, pool: AsyncConnectionPool[Any], quarantine: Quarantine) -> None:
        self._door, self._pool, self._quarantine = door, pool, quarantine

    async def retry(self, session: OperatorSession, letter_id: int) -> tuple[str, str]:
        """Try an event again."""
        require(session, "quarantine_replay")
        retried = await self._quarantine.replay(session, letter_id, {})
        return retried.status, str(letter_id)

    async def drop(self, session: OperatorSession, letter_id: int) -> tuple[str, str]:
        """Remove an event for good."""
        require(session, "quarantine_replay")
        await self._quarantine.drop(session, letter_id)
        return "dropped", str(letter_id)

    async def run(self, session: OperatorSession, job: str) -> tuple[str, str]:
        """Ask for a run of a job."""
        require(session, "jobs_run")
        number = await ask_for_run(self._pool, session, checked(job))
        if number is None:
            raise no_job(job)
        return "asked", job

    async def silence(self, session: OperatorSession, fields: dict[str, str]) -> tuple[str, str]:
        """Silence the alerts of a rule."""
        require(session, "alerts_silence")
        wanted = _silence(fields)
        by = f"organisation {session.organization_id}, {session.title}"
        async with writing_as(self._pool, session.organization_id, actor_of(session)) as connection:
            await connection.execute(SILENCE.encode(), [wanted.rule, wanted.for_s, wanted.reason, by])
        return "silenced", wanted.rule

    async def end_silence(self, session: OperatorSession, number: int) -> tuple[str, str]:
        """End a silence."""
        require(session, "alerts_silence")
        async with writing_as(self._pool, session.organization_id, actor_of(session)) as connection:
            done = await connection.execute(END_SILENCE.encode(), [number, None])
        if done.rowcount == 0:
            raise Refused(Refusal.NOT_FOUND, f"there is no silence {number} now")
        return "ended", str(number)

    async def do(self, request: Request_, anchor: str, act: Act) -> Response[Any]:
        """Check who asks and the form, do it, and lead back to the page.

        Raises:
            Refused: it cannot be done.
        """
        visit = await self._door.visit(request)
        if visit is None:
            return Redirect(PATH, status_code=303)
        fields = await self._door.form(request, visit.session.nonce)
        word, name = await act(visit.session, fields)
        return Redirect(f"{PATH}?{urlencode({'said': word, 'of': name})}#{anchor}", status_code=303)


def action_routes(actions: Actions) -> list[Any]:
    """The routes of the forms."""

    @post("/quarantine/{letter_id:int}/retry")
    async def retry(request: Request_, letter_id: int) -> Response[Any]:
        return await actions.do(request, "quarantine", lambda who, _: actions.retry(who, letter_id))

    @post("/quarantine/{letter_id:int}/drop")
    async def drop(request: Request_, letter_id: int) -> Response[Any]:
        return await actions.do(request, "quarantine", lambda who, _: actions.drop(who, letter_id))

    @post("/jobs/{name:str}/run")
    async def run(request: Request_, name: str) -> Response[Any]:
        return await actions.do(request, "jobs", lambda who, _: actions.run(who, name))

    @post("/alerts/silence")
    async def silence(request: Request_) -> Response[Any]:
        return await actions.do(request, "alerts", actions.silence)

    @post("/alerts/silences/{number:int}/end")
    async def end(request: Request_, number: int) -> Response[Any]:
        return await actions.do(request, "alerts", lambda who, _: actions.end_silence(who, number))

    return [retry, drop, run, silence, end]


def _silence(fields: dict[str, str]) -> Silence:
    wanted = {name: fields.get(name, "") for name in ("rule", "for_s", "reason")}
    try:
        return msgspec.convert(wanted, Silence, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(Refusal.BAD_REQUEST, f"this cannot be silenced: {error}") from None
