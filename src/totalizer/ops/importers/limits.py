"""Text that outgrows its field is cut for the fields where that is normal: paths, subjects, user agents."""

from __future__ import annotations

from typing import Any

from totalizer.catalog import FieldType, load_catalog


class TextLimits:
    """How many characters each text field of one event type may have.

    Args:
        lengths: the most characters, by the field's key.
    """

    def __init__(self, lengths: dict[str, int]) -> None:
        self._lengths = lengths

    def cut(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The same fields, texts that are too long cut to their limit, in place."""
        for name, length in self._lengths.items():
            value = fields.get(name)
            if value is not None and len(value) > length:
                fields[name] = value[:length]
        return fields


def text_limits(event_type: str) -> TextLimits:
    """The limits that the shipped catalog sets for one of its event types."""
    fields = load_catalog().event_types[event_type].fields
    return TextLimits({field.key: field.length_max for field in fields if field.type is FieldType.TEXT})
