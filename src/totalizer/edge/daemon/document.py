"""Results as JSON documents: the keys that files on disk and monitoring have always had."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def document(value: DataclassInstance) -> dict[str, Any]:
    """A dataclass as a dict with camelCase keys: `average_recovery_time_ms` becomes `averageRecoveryTime`.

    The documented keys carry no unit; a time or duration in them is in milliseconds. Members that are None are left
    out.
    """
    members = {one.name: getattr(value, one.name) for one in fields(value)}
    return {_key(name): _plain(member) for name, member in members.items() if member is not None}


def camel(name: str) -> str:
    """A name of ours as a key of a document: `batch_id` becomes `batchId`."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return document(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _key(name: str) -> str:
    return camel(name.removesuffix("_ms"))
