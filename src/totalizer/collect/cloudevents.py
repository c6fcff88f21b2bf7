"""CloudEvents 1.0: from attributes to an event of a declared type, or of the generic one.

Attributes: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
JSON format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
HTTP binding: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import msgspec

from totalizer.catalog import EventType
from totalizer.collect.bodies import BOM, UNDECODABLE
from totalizer.collect.members import members, text

#: The event type of whatever is not declared; shipped in the catalog.
GENERIC = "events"
#: Attributes with a meaning of their own; all others are extensions.
_KNOWN = frozenset(
    ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "data_base64")
)
_NULL = msgspec.Raw(b"null")
_PREFIX = "ce-"

#: Attributes of one event, as they were written in JSON.
Attributes = Mapping[str, msgspec.Raw]
#: Fields of an event as they are sent to a route of ours.
Fields = dict[str, object]


def mapped(
    attributes: Attributes, event_types: Mapping[str, EventType], chosen: str | None = None
) -> tuple[EventType, Fields]:
    """The event type of a CloudEvent, and its fields.

    Its identity is its own `id` and `source`. Its `type` is the event type by its full name or by the part after the
    last dot; then `data` holds the fields, and the attributes `time`, `subject` and the extensions fill what `data`
    leaves out. Any other type is an event of the type `events`.

    Args:
        attributes: of the event, with `data` or `data_base64`.
        event_types: the declared ones, by name.
        chosen: name of the event type, whatever the attribute says.

    Raises:
        ValueError: it is no CloudEvent 1.0, or its data is not that of its type.
    """
    version = text(attributes.get("specversion"))
    if version != "1.0":
        raise ValueError(f"its specversion is {version!r}, not '1.0'")
    name = _required(attributes, "type")
    identity = {"id": _required(attributes, "id"), "source": _required(attributes, "source")}
    event_type = _type(name, event_types, chosen)
    if event_type.name == GENERIC and chosen is None:
        return event_type, _generic_fields(attributes) | identity
    return event_type, _declared_fields(attributes, event_type) | identity


def _type(name: str, event_types: Mapping[str, EventType], chosen: str | None) -> EventType:
    wanted = [chosen] if chosen else [name, name.rpartition(".")[2], GENERIC]
    for candidate in wanted:
        if candidate in event_types:
            return event_types[candidate]
    known = ", ".join(sorted(event_types))
    raise ValueError(f"no event type {wanted[0]!r} in the catalog (known: {known})")


def _required(attributes: Attributes, name: str) -> str:
    value = text(attributes.get(name))
    if not value:
        raise ValueError(f"its attribute {name!r} is missing or not a text")
    return value


def _extensions(attributes: Attributes) -> dict[str, msgspec.Raw]:
    return {name: value for name, value in attributes.items() if name not in _KNOWN and value != _NULL}


def _declared_fields(attributes: Attributes, event_type: EventType) -> Fields:
    fields: Fields = dict(_object(attributes))
    _fill(fields, event_type.time_wire, attributes.get("time"))
    subject = event_type.field(event_type.subject_field)
    _fill(fields, subject.key if subject else event_type.subject_field, attributes.get("subject"))
    keys = {field.key for field in event_type.fields}
    for name, value in _extensions(attributes).items():
        if name in keys or event_type.keep_unknown:
            _fill(fields, name, value)
    return fields


def _object(attributes: Attributes) -> dict[str, msgspec.Raw]:
    """The members of `data`, or of the JSON in `data_base64`; none if there is no data."""
    data, unpacked = _data(attributes)
    if unpacked is not None:
        data = msgspec.Raw(unpacked)
    if data is None:
        return {}
    try:
        return members(bytes(data))
    except ValueError as error:
        raise ValueError(f"its data is not a JSON object: {error}") from error


def _data(attributes: Attributes) -> tuple[msgspec.Raw | None, bytes | None]:
    """`data` as JSON, and what `data_base64` stands for; at most one of them."""
    data = attributes.get("data", _NULL)
    encoded = attributes.get("data_base64", _NULL)
    if encoded == _NULL:
        return (None if data == _NULL else data), None
    if data != _NULL:
        raise ValueError("it has both data and data_base64; send one of them")
    try:
        return None, base64.b64decode(text(encoded) or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"its data_base64 is not base64: {error}") from error


def _generic_fields(attributes: Attributes) -> Fields:
    fields: Fields = {"type": attributes["type"]}
    for name in ("subject", "time", "datacontenttype", "dataschema"):
        _fill(fields, name, attributes.get(name))
    if extensions := _extensions(attributes):
        fields["extensions"] = extensions
    data, unpacked = _data(attributes)
    if unpacked is not None:
        fields["data"] = _unpacked(unpacked, attributes)
    elif data is not None:
        # An object is kept as it is, any other value under a name, since a JSON column holds objects.
        fields["data"] = data if bytes(data).lstrip()[:1] == b"{" else {"value": data}
    return fields


def _unpacked(data: bytes, attributes: Attributes) -> object:
    if is_json(text(attributes.get("datacontenttype"))):
        try:
            return members(data)
        except ValueError:
            pass  # it is no JSON object whatever its type says: kept as bytes
    return {"base64": base64.b64encode(data).decode()}


def is_json(media_type: str | None) -> bool:
    """True for media types of JSON, and for none, which stands for JSON."""
    name = (media_type or "application/json").partition(";")[0].strip().lower()
    return name.endswith(("/json", "+json"))


def _fill(fields: Fields, key: str, value: msgspec.Raw | None) -> None:
    if value is not None and value != _NULL and fields.get(key, _NULL) == _NULL:
        fields[key] = value


def of_headers(headers: Iterable[tuple[str, str]], body: bytes) -> dict[str, msgspec.Raw]:
    """The attributes of an event in the binary mode of HTTP: attributes in headers, the data in the body.

    Args:
        headers: name in lower case, value.
        body: as sent, unpacked.

    Raises:
        ValueError: a header is not percent-encoded UTF-8, or the body is not what its content type says.
    """
    attributes: dict[str, msgspec.Raw] = {}
    content_type = None
    for name, value in headers:
        if name == "content-type":
            content_type = value
            attributes["datacontenttype"] = _json(value)
        elif name.startswith(_PREFIX):
            attributes[name.removeprefix(_PREFIX)] = _json(_header_text(name, value))
    if body:
        attributes |= _body(body, content_type)
    return attributes


def _header_text(name: str, value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    with contextlib.suppress(UnicodeError):  # it was text already, or is Latin-1
        # A server that reads headers as Latin-1 shows raw UTF-8 as such.
        value = value.encode("latin-1").decode("utf-8")
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError(f"its header {name} is not percent-encoded UTF-8: {error.reason}") from error


def _body(body: bytes, content_type: str | None) -> dict[str, msgspec.Raw]:
    if is_json(content_type):
        members_or_value = body.removeprefix(BOM)
        try:
            msgspec.json.decode(members_or_value)
        except UNDECODABLE as error:
            raise ValueError(f"its data is not JSON: {error}") from error
        return {"data": msgspec.Raw(members_or_value.strip())}
    if (content_type or "").lower().startswith("text/"):
        try:
            return {"data": _json(body.decode())}
        except UnicodeDecodeError:
            pass  # another character set: kept as bytes
    return {"data_base64": _json(base64.b64encode(body).decode())}


def _json(value: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
