"""What a route says of itself in the API's description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
)

from totalizer.errors import Refusal
from totalizer.web.described.forms import Form, integer, record, text
from totalizer.web.permissions import ACTIONS
from totalizer.web.problem import MEDIA_TYPE

#: Under which a route's action is kept with it: what its request is checked for, and what its description says.
ACTION: Final = "action"
#: Names of ways to say who one is, in the API's description.
KEY, BASIC = "key", "basic"

PROBLEM: Final = record(
    {
        "type": text("about:blank"),
        "title": text("The code, for people."),
        "status": integer("The HTTP status."),
        "code": text("Why, for programs.", *(refusal.value for refusal in Refusal)),
        "detail": text("Why, for people: what was wrong, with the value, and what to do."),
    },
    more=Schema(),
    description="A refusal (RFC 9457).",
)


def components() -> Components:
    """What routes refer to."""
    actions = "; ".join(f"`{name}`: {about}" for name, about in ACTIONS.items())
    return Components(
        security_schemes={
            KEY: SecurityScheme(
                type="http", scheme="bearer",
                description=f"An API key or a token. What a route needs is one of these: {actions}.",
            ),
            BASIC: SecurityScheme(type="http", scheme="basic", description="An API key as the user name."),
        },
    )  # fmt: skip


def described(
    tag: str, action: str | None, answers: Form | Mapping[int, Form], *, asked: Mapping[str, Any] | None = None,
    body: Form | Mapping[str, Form] | None = None, body_needed: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Arguments of a route's decorator: who may ask, and what the API's description says of it.

    Args:
        tag: under which it is listed.
        action: that who asks must be allowed, of permissions.ACTIONS; None: anybody may.
        answers: what it answers, by status; alone: with its usual status.
        asked: parameter → a value, all together an example of a request.
        body: what it takes, by media type.
        body_needed: False if it may be left out.
    """
    examples, bodies = asked or {}, {body.media_type: body} if isinstance(body, Form) else body

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            usual = min(int(status) for status in self.responses or {})
            told = {usual: answers} if isinstance(answers, Form) else answers
            self.responses = {str(status): _response(form) for status, form in sorted(told.items())}
            self.responses["default"] = _response(Form(PROBLEM, None, "A refusal.", MEDIA_TYPE))
            parameters = {each.name: each for each in self.parameters or () if isinstance(each, Parameter)}
            for name, example in examples.items():
                parameters[name].example = example
            if bodies is not None:
                content = {name: _content(form) for name, form in bodies.items()}
                self.request_body = RequestBody(content=content, required=body_needed)

    security = [] if action is None else [{KEY: [action]}, {BASIC: [action]}]
    return {"operation_class": Described, "opt": {ACTION: action}, "tags": [tag], "security": security}


def _response(form: Form) -> OpenAPIResponse:
    if form.schema is None:
        return OpenAPIResponse(description=form.description or "Done; there is nothing to add.")
    return OpenAPIResponse(description=form.description or "The answer.", content={form.media_type: _content(form)})


def _content(form: Form) -> OpenAPIMediaType:
    return _Content(schema=form.schema, example=form.example)


@dataclass
class _Content(OpenAPIMediaType):
    """Content whose example keeps its nulls; the framework leaves them out."""

    def to_schema(self) -> dict[str, Any]:
        shown = super().to_schema()
        return shown if self.example is None else shown | {"example": self.example}
