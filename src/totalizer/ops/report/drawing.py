"""Text and shapes of pages, as SVG, in points."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from unicodedata import east_asian_width
from xml.sax.saxutils import escape

INK, SOFT, LINE, BAR, PART = "#1c1d21", "#5c606b", "#dfe1e6", "#3b66d6", "#e4eafa"
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
#: Widths of letters in parts of their height, a little generous: nothing is measured.
_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!()[]{}·- "), frozenset("mwMW%@—…≈")
#: Heavier letters are so much wider.
BOLD = 1.07
#: What XML cannot hold.
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Block(NamedTuple):
    """A part of a page that is not divided.

    Attributes:
        height: points.
        svg: drawn from its own upper left corner.
    """

    height: float
    svg: str


def text(
    x: float, y: float, words: str, size: float, *, width: float, color: str = INK, bold: bool = False,
    end: bool = False,
) -> str:  # fmt: skip
    """A line of text, cut to a width.

    Args:
        x, y: where it begins, or ends; on the base line.
        words: what it says.
        size: height of the letters.
        width: at most.
        color: of the letters.
        bold: True for heavier ones.
        end: True if it ends at x.
    """
    shown = fitting(words, width / (size * (BOLD if bold else 1)))
    more = (' font-weight="700"' if bold else "") + (' text-anchor="end"' if end else "")
    place = f'x="{x:g}" y="{y:g}" font-family="{_FONT}" font-size="{size:g}" fill="{color}"{more}'
    return f"<text {place}>{escape(shown)}</text>"


def box(x: float, y: float, width: float, height: float, *, fill: str = "none", stroke: str = "none") -> str:
    """A rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{stroke}"/>'


def moved(svg: str, x: float, y: float) -> str:
    """The same somewhere else."""
    return f'<g transform="translate({x:g},{y:g})">{svg}</g>'


def sheet(width: float, height: float, svg: str) -> str:
    """A whole white page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">{box(0, 0, width, height, fill="#fff")}{svg}</svg>'
    )


def fitting(words: str, ems: float) -> str:
    """Words on one line, cut where they would be longer than so many times the height of their letters."""
    line = " ".join(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", words).split())
    if length(line) <= ems:
        return line
    kept, used = [], _letter("…")
    for letter in line:
        used += _letter(letter)
        if used > ems:
            break
        kept.append(letter)
    return "".join(kept).rstrip() + "…"


def wrapped(words: str, ems: float) -> Iterator[str]:
    """Words as lines of at most that length; a word that is longer is a line of its own."""
    line = ""
    for word in words.split():
        longer = f"{line} {word}" if line else word
        if line and length(longer) > ems:
            yield line
            longer = word
        line = longer
    yield line


def length(line: str) -> float:
    """How long words on one line are about, in heights of their letters."""
    return sum(map(_letter, line))


def _letter(letter: str) -> float:
    if letter in _NARROW:
        return 0.34
    if letter in _WIDE or east_asian_width(letter) in "WF":
        return 1.02
    return 0.72 if letter.isupper() else 0.556
