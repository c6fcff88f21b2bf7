"""Results as JSON documents: the keys that files on disk and monitoring have always had."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def document(value: Any) -> Any:
    """A dataclass as a dict with camelCase keys: `average_recovery_time_ms` becomes `averageRecoveryTime`.

    The documented keys carry no unit; a time or duration in them is in milliseconds. Members that are None are left
    out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        members = {one.name: getattr(value, one.name) for one in fields(value)}
        return {_key(name): document(member) for name, member in members.items() if member is not None}
    if isinstance(value, list | tuple):
        return [document(item) for item in value]
    return value


def _key(name: str) -> str:
    head, *rest = name.removesuffix("_ms").split("_")
    return head + "".join(word.capitalize() for word in rest)
