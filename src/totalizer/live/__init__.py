"""Live windows: totals of the last minute to the last day, from the journal and the database."""

from totalizer.live.ask import Ask, Asks
from totalizer.live.elsewhere import Elsewhere
from totalizer.live.engine import Limits, LiveWindows
from totalizer.live.follow import Follower
from totalizer.live.publish import Publisher
from totalizer.live.stored import StoredWindows
from totalizer.live.tail import Tails
from totalizer.live.view import Frame

__all__ = [
    "Ask", "Asks", "Elsewhere", "Follower", "Frame", "Limits", "LiveWindows", "Publisher", "StoredWindows", "Tails",
]  # fmt: skip
