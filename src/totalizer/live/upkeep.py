"""What keeps live windows within their memory: which are forgotten, and in what order."""

from __future__ import annotations

from collections.abc import Mapping

from totalizer.live.feed import Feed
from totalizer.live.view import GONE
from totalizer.telemetry import logger

#: A window nobody has asked for this long is forgotten, and so are frames kept for who may come back.
IDLE_S = 120.0


def memory_bytes(feeds: Mapping[str, Feed]) -> int:
    """What windows and events on their way take, roughly."""
    return sum(feed.bytes for feed in feeds.values())


def forget_idle(feed: Feed, now: float) -> None:
    """Drop windows and views that nobody has asked for in a while; `now` in monotonic seconds."""
    for key, pane in list(feed.panes.items()):
        for ask, view in list(pane.views.items()):
            if not view.listeners and now - view.left_at > IDLE_S:
                del pane.views[ask]
        if not pane.watched and pane.reading is None and now - pane.asked_at > IDLE_S:
            del feed.panes[key]


def make_room(feeds: Mapping[str, Feed], memory_bytes_max: int) -> None:
    """Drop windows until the rest fits: those nobody watches first, of these the one asked for the longest ago."""
    while memory_bytes(feeds) > memory_bytes_max:
        panes = [
            (pane.watched, pane.asked_at, feed, key)
            for feed in feeds.values()
            for key, pane in feed.panes.items()
            if pane.ring is not None
        ]
        if not panes:
            return
        _, _, feed, key = min(panes, key=lambda each: each[:2])
        pane = feed.panes.pop(key)
        logger().warning("a live window makes room", organization=feed.organization_id, window="/".join(key))
        for view in pane.views.values():
            for listener in list(view.listeners):
                listener(GONE)
