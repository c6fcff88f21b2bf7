"""Several PDF documents of one page each, joined.

What the chart library writes is plain: indirect objects one behind the other, each found through a table at the end
(ISO 32000-1, 7.5). Joining is giving them new numbers, and one catalog and one list of pages for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from totalizer.errors import OperationError

_OBJECT = re.compile(rb"(\d+) 0 obj\b(.*?)\bendobj\s*\Z", re.DOTALL)
_REFERENCE = re.compile(rb"\b(\d+) 0 R\b")
_TABLE = re.compile(rb"xref\s+0 (\d+)\s+(.*?)trailer", re.DOTALL)
_KIND = re.compile(rb"/Type /(\w+)")
#: Of the joined document: its catalog, its list of pages, what it is about. Others follow.
_CATALOG, _PAGES, _ABOUT, _FIRST = 1, 2, 3, 4


def joined(documents: Sequence[bytes], title: str) -> bytes:
    """One document with all their pages.

    Args:
        documents: as `vl_convert` writes them.
        title: of the whole.

    Raises:
        OperationError: one is not as it should be.
    """
    bodies: dict[int, bytes] = {}
    pages: list[int] = []
    for document in documents:
        shift = max([_FIRST - 1, *bodies])
        for number, body in _objects(document):
            head, stream, data = body.partition(b"stream")
            kind = _KIND.search(head)
            if kind and kind[1] in (b"Catalog", b"Pages"):
                continue
            if kind and kind[1] == b"Page":
                pages.append(number + shift)
                head = re.sub(rb"/Parent \d+ 0 R", b"/Parent PAGES", head)
            head = _renumbered(head, shift)
            bodies[number + shift] = head.replace(b"/Parent PAGES", b"/Parent %d 0 R" % _PAGES) + stream + data
    kids = b" ".join(b"%d 0 R" % page for page in pages)
    bodies[_CATALOG] = b"\n<< /Type /Catalog /Pages %d 0 R /Lang (en) >>\n" % _PAGES
    bodies[_PAGES] = b"\n<< /Type /Pages /Count %d /Kids [%s] >>\n" % (len(pages), kids)
    bodies[_ABOUT] = b"\n<< /Title <%s> /Producer (Totalizer) >>\n" % _text(title)
    return _written(bodies)


def _objects(document: bytes) -> Iterator[tuple[int, bytes]]:
    """The objects of a document: number and content."""
    table = _TABLE.search(document, document.rfind(b"\nxref"))
    if table is None:
        raise OperationError("the chart library wrote a PDF document without a table of its objects")
    places = sorted(int(line[:10]) for line in table[2].splitlines() if line.rstrip().endswith(b"n"))
    for start, end in zip(places, [*places[1:], table.start()], strict=True):
        found = _OBJECT.match(document[start:end].rstrip())
        if found is None:
            raise OperationError("the chart library wrote a PDF document that cannot be read")
        yield int(found[1]), found[2]


def _renumbered(head: bytes, shift: int) -> bytes:
    return _REFERENCE.sub(lambda found: b"%d 0 R" % (int(found[1]) + shift), head)


def _written(bodies: dict[int, bytes]) -> bytes:
    content, size = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), max(bodies) + 1
    # A number that nothing has is free.
    table = [b"0000000000 65535 f \n"] * size
    for number, body in sorted(bodies.items()):
        table[number] = b"%010d 00000 n \n" % len(content)
        content += b"%d 0 obj%sendobj\n" % (number, body)
    begins = len(content)
    content += b"xref\n0 %d\n%s" % (size, b"".join(table))
    content += b"trailer\n<< /Size %d /Root %d 0 R /Info %d 0 R >>\n" % (size, _CATALOG, _ABOUT)
    return bytes(content + b"startxref\n%d\n%%%%EOF\n" % begins)


def _text(words: str) -> bytes:
    """A text as PDF has it, in hexadecimal digits: UTF-16 with its mark."""
    return b"FEFF" + words.encode("utf-16-be", "replace").hex().encode()
