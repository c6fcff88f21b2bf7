"""The closed sets that users see."""

from __future__ import annotations

import pytest

import totalizer.errors as errors
from totalizer.errors import STATUS_OF, CatalogError, Refusal, Refused, TotalizerError

#: Those that cannot be made without saying more.
NEVER_BARE = {"Refused", "CatalogError", "ValidationError", "FlushError", "SinkUnavailable"}
CLASSES = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, TotalizerError)]


def test_every_refusal_has_a_status_a_client_understands() -> None:
    assert set(STATUS_OF) == set(Refusal)
    assert all(400 <= status < 600 for status in STATUS_OF.values())
    assert all(refusal.value == refusal.name.lower() for refusal in Refusal)


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind.__name__ not in NEVER_BARE])
def test_without_a_message_an_error_says_what_its_class_means(kind: type[TotalizerError]) -> None:
    assert str(kind()) == kind.__doc__
    assert str(kind("the disk is full")) == "the disk is full"


def test_the_tree_at_the_top_names_every_class() -> None:
    assert errors.__doc__ is not None
    for kind in CLASSES:
        assert kind.__name__ in errors.__doc__, f"{kind.__name__} is missing in the tree"


def test_a_refusal_carries_what_its_answer_needs() -> None:
    refused = Refused(Refusal.JOURNAL_FULL, "full", retry_after_s=5, items=[1])
    assert (refused.status, refused.retry_after_s, refused.extra, str(refused)) == (503, 5, {"items": [1]}, "full")


def test_a_catalog_error_names_file_key_and_reason() -> None:
    error = CatalogError("mine.toml", "event_type.x", "is missing")
    assert str(error) == "mine.toml: event_type.x: is missing"
    assert (error.file, error.key, error.reason) == ("mine.toml", "event_type.x", "is missing")
