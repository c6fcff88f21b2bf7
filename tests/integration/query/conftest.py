"""Asking a test's database as the API does, without HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from totalizer.query.cache import AnswerCache
from totalizer.query.completeness import LocalJournals
from totalizer.query.cost import QueryLimits
from totalizer.query.run import QueryService, Reply, configure_reader
from totalizer.store.roles import Role


class Asker:
    """Asks as organisations.

    Args:
        feed: the way into the database.
        database: it.
        catalog: what can be asked about.
        limits: of queries.
        cache: of answers.
    """

    def __init__(
        self,
        feed: Any,
        database: Any,
        catalog: Any,
        limits: QueryLimits | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self._feed, self._database, self._catalog = feed, database, catalog
        self.limits, self.cache = limits, cache

    def __call__(self, organization: str, **parameters: Any) -> dict[str, Any]:
        """The answer to request parameters."""
        many = {name: value if isinstance(value, list) else [str(value)] for name, value in parameters.items()}
        return self.body_of(self.together([(organization, many, None)], by_parameters=True)[0])

    def post(self, organization: str, etag: str | None = None, **content: Any) -> dict[str, Any]:
        """The answer to a body."""
        return self.body_of(self.reply(organization, content, etag))

    def reply(self, organization: str, content: Mapping[str, Any], etags: str | None = None) -> Reply:
        """The whole answer to a body."""
        return self.together([(organization, dict(content), etags)])[0]

    def together(
        self, questions: list[tuple[str, dict[str, Any], str | None]], *, by_parameters: bool = False
    ) -> list[Reply]:
        """The answers to bodies or parameters that are asked at once."""
        return asyncio.run(self._together(questions, by_parameters))

    @staticmethod
    def body_of(reply: Reply) -> dict[str, Any]:
        """The answer's members."""
        assert reply.body is not None
        return dict(json.loads(reply.body))

    async def _together(
        self, questions: list[tuple[str, dict[str, Any], str | None]], by_parameters: bool
    ) -> list[Reply]:
        async with AsyncConnectionPool(
            self._database.dsn(Role.APP), min_size=1, max_size=len(questions), configure=configure_reader, open=False,
            kwargs={"options": "-c timezone=UTC"},
        ) as pool:  # fmt: skip
            service = QueryService(pool, self._catalog, LocalJournals(self._feed.spool), self.limits, self.cache)

            async def one(organization: str, content: dict[str, Any], etags: str | None) -> Reply:
                parse = service.by_parameters(content) if by_parameters else service.by_body(content)
                return await service.reply(organization, parse, etags)

            return await asyncio.gather(*(one(*question) for question in questions))


@pytest.fixture
def ask(feed: Any, database: Any, catalog: Any) -> Asker:
    """Asks as an organisation; parameters as in a request."""
    return Asker(feed, database, catalog)
