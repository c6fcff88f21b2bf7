"""The routes that ask: totals, dashboards, events, the catalog."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.params import Parameter

from totalizer.catalog import Catalog, EventType
from totalizer.collect.bodies import UNDECODABLE, bad_json
from totalizer.errors import Refusal, Refused
from totalizer.query.dashboard import Dashboard, parse_dashboard, show
from totalizer.query.listing import Listing, list_events, parse_listing
from totalizer.query.run import QueryService, Reply, minute_after
from totalizer.query.state import State
from totalizer.web.described import asked
from totalizer.web.described.forms import Form
from totalizer.web.described.operation import described
from totalizer.web.gate import enter
from totalizer.web.identity import Authenticator
from totalizer.web.query_schema import query_schema

#: An answer may be kept by who asked, and asked for again by its tag.
_CACHE_CONTROL = "private, no-cache"
_NOT_KEPT = "no-store"
_UNLESS_KNOWN = {304: Form(None, None, "As the tag in If-None-Match says it is known.")}

Asked = Request[Any, Any, Any]
Text = str | None


class QueryRoutes(msgspec.Struct, frozen=True):
    """What the routes work with."""

    authenticator: Authenticator
    queries: QueryService


def query_routes(services: QueryRoutes) -> list[Any]:
    """The handlers."""
    catalog = services.queries.catalog
    listed = [_listing(services, event_type) for event_type in catalog.event_types.values() if event_type.route]
    return [_aggregated(services), _query(services), _dashboard(services), _catalog(services), *listed]


def _aggregated(services: QueryRoutes) -> Any:
    @get(
        "/api/metrics/aggregated", summary="Totals by window and group",
        **described(asked.TAG, "query", _UNLESS_KNOWN | {200: asked.TOTALS}, asked=asked.TOTALS_ASKED),
    )  # fmt: skip
    async def aggregated(
        request: Asked,
        event_type: Annotated[Text, Parameter(description="What to count; command_executions by default.")] = None,
        start_date: Annotated[Text, Parameter(description="RFC 3339 time or date; a day before the end.")] = None,
        end_date: Annotated[Text, Parameter(description="RFC 3339 time, excluded, or date, included; now.")] = None,
        aggregation_window: Annotated[
            Text, Parameter(description="1m, 5m, 15m, 1h, 1d, 1w, 1mo, 1q, 1y or total; 1h.")
        ] = None,
        week_start: Annotated[Text, Parameter(description="With 1w: the day weeks begin with; monday.")] = None,
        fiscal_start: Annotated[Text, Parameter(description="With 1mo, 1q, 1y: month and day, such as 04-06.")] = None,
        anchor: Annotated[Text, Parameter(description="With 1mo, 1q, 1y: a day that a cycle begins with.")] = None,
        rolling: Annotated[Text, Parameter(description="Windows of so many days, each ending with a day: 7d.")] = None,
        group_by: Annotated[list[str] | None, Parameter(description="Dimensions to divide by.")] = None,
        measures: Annotated[list[str] | None, Parameter(description="Numbers to answer; all by default.")] = None,
        order: Annotated[list[str] | None, Parameter(description="window or a measure; -: largest first.")] = None,
        fill: Annotated[Text, Parameter(description="Windows without events: none, zero or null; none.")] = None,
        compare: Annotated[Text, Parameter(description="previous: the period before, beside each row.")] = None,
        time_zone: Annotated[Text, Parameter(description="IANA zone of days; the organisation's own.")] = None,
        limit: Annotated[Text, Parameter(description="Rows at most, 1 to 10000; 1000.")] = None,
        cursor: Annotated[Text, Parameter(description="next_cursor of the page before.")] = None,
        exact: Annotated[Text, Parameter(description="true: refuse rather than tell stale numbers.")] = None,
        explain: Annotated[Text, Parameter(description="true: say how the answer was found.")] = None,
    ) -> Response[bytes]:  # fmt: skip
        """Exact totals. Any other parameter filters by the dimension of its name, such as `status=success`."""
        principal = await enter(services.authenticator, request)
        parse = services.queries.by_parameters(_parameters(request))
        return _sent(await services.queries.reply(principal.organization_id, parse, _etags(request)))

    return aggregated


def _query(services: QueryRoutes) -> Any:
    # The body is read by hand: its errors name members.
    body = Form(query_schema(), asked.QUERY)
    answers = _UNLESS_KNOWN | {200: asked.TOTALS}

    @post(
        "/api/metrics/query", status_code=200, summary="Ask for anything",
        **described(asked.TAG, "query", answers, body=body),
    )  # fmt: skip
    async def query(request: Asked) -> Response[bytes]:
        """Exact totals of several metrics, filtered, divided, in order, filled, beside another period."""
        principal = await enter(services.authenticator, request)
        content = _object(await request.body())
        parse = services.queries.by_body(content)
        return _sent(await services.queries.reply(principal.organization_id, parse, _etags(request)))

    return query


def _dashboard(services: QueryRoutes) -> Any:
    queries = services.queries

    @get(
        "/api/metrics/dashboard", summary="Everything at a glance",
        **described(asked.TAG, "query", _UNLESS_KNOWN | {200: asked.DASHBOARD}, asked={"time_range": "1d"}),
    )  # fmt: skip
    async def dashboard(
        request: Asked,
        time_range: Annotated[Text, Parameter(description="1h, 6h, 12h, 1d, 7d, 30d, 90d or 1y; 1d.")] = None,
        event_type: Annotated[list[str] | None, Parameter(description="What to show; all that has events.")] = None,
        time_zone: Annotated[Text, Parameter(description="IANA zone of days; the organisation's own.")] = None,
    ) -> Response[bytes]:
        """Totals beside those before, their course, what is most frequent. Other parameters filter: `team_id=…`."""
        principal = await enter(services.authenticator, request)
        organization_id, parameters = principal.organization_id, _parameters(request)

        def resolve(state: State) -> tuple[Dashboard, str, bool]:
            board = parse_dashboard(queries.catalog, parameters, state, minute_after(state.now))
            return board, state.version(board.event_types), True

        async def answer(connection: Any, state: State, board: Dashboard) -> Any:
            planner = queries.planner(connection, organization_id, state)
            return await show(connection, queries.catalog, organization_id, state, board, planner)

        return _sent(await queries.kept(organization_id, resolve, answer, _etags(request)))

    return dashboard


def _listing(services: QueryRoutes, event_type: EventType) -> Any:
    queries = services.queries

    @get(
        f"/api/metrics/{event_type.route}", summary=f"Single events, the latest first: {event_type.title}",
        name=f"list {event_type.name}",
        **described(asked.TAG, "query", _UNLESS_KNOWN | {200: asked.events_of(event_type)}, asked=asked.RANGE),
    )  # fmt: skip
    async def events(
        request: Asked,
        start_date: Annotated[Text, Parameter(description="RFC 3339 time or date; a day before the end.")] = None,
        end_date: Annotated[Text, Parameter(description="RFC 3339 time, excluded, or date, included; now.")] = None,
        time_zone: Annotated[Text, Parameter(description="IANA zone of dates; the organisation's own.")] = None,
        limit: Annotated[Text, Parameter(description="Events at most, 1 to 10000; 100.")] = None,
        cursor: Annotated[Text, Parameter(description="next_cursor of the page before.")] = None,
    ) -> Response[bytes]:
        """Events that are stored. Any other parameter filters by the dimension of its name."""
        principal = await enter(services.authenticator, request)
        organization_id, parameters = principal.organization_id, _parameters(request)

        def resolve(state: State) -> tuple[Listing, str, bool]:
            now = minute_after(state.now)
            listing = parse_listing(event_type, parameters, now, state.own_zone, organization_id)
            return listing, state.version([event_type.name]), True

        async def answer(connection: Any, state: State, listing: Listing) -> Any:
            return await list_events(connection, event_type, organization_id, state, listing)

        return _sent(await queries.kept(organization_id, resolve, answer, _etags(request)))

    return events


def _catalog(services: QueryRoutes) -> Any:
    content = _content(services.queries.catalog)

    @get("/api/catalog", summary="What can be asked about", **described(asked.TAG, "query", asked.CATALOG))
    async def catalog(request: Asked) -> dict[str, Any]:
        """Event types and rollups with their dimensions and measures."""
        await enter(services.authenticator, request)
        return content

    return catalog


def _content(catalog: Catalog) -> dict[str, Any]:
    return {
        "event_types": [
            {"name": kind.name, "title": kind.title, "route": f"/api/metrics/{kind.route}", "time": kind.time_wire,
             "fields": [msgspec.to_builtins(field) for field in kind.fields]}
            for kind in catalog.event_types.values()
        ],
        "rollups": [
            {"name": rollup.name, "title": rollup.title, "event_type": rollup.event_type,
             "subject": catalog.event_types[rollup.event_type].subject_field,
             "dimensions": rollup.dimensions, "measures": [measure.name for measure in rollup.measures]}
            for rollup in catalog.rollups.values()
        ],
    }  # fmt: skip


def _parameters(request: Asked) -> dict[str, list[str]]:
    return {key: request.query_params.getall(key) for key in request.query_params}


def _etags(request: Asked) -> str | None:
    return request.headers.get("if-none-match")


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body or b"{}")
    except UNDECODABLE as error:
        raise bad_json(error) from None
    if not isinstance(content, dict):
        raise Refused(Refusal.BAD_JSON, "the body must be an object")
    return content


def _sent(reply: Reply) -> Response[bytes]:
    headers = {"cache-control": _CACHE_CONTROL if reply.etag else _NOT_KEPT}
    if reply.etag is not None:
        headers["etag"] = reply.etag
    if reply.body is None:
        return Response(b"", status_code=304, headers=headers)
    return Response(reply.body, media_type=MediaType.JSON, headers=headers)
