"""The chart library, from the package that is installed: made once, kept in the data folder, served from there.

Making it takes seconds and a hundred megabytes, so that a process of its own does it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from totalizer.edge.folder import write_file
from totalizer.errors import OperationError

#: Seconds that making it may take on a slow machine.
MADE_S_MAX = 120.0
#: What the page's own script calls.
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


class Library(NamedTuple):
    """The library.

    Attributes:
        packed: its script, with gzip.
        etag: what tells it from others.
    """

    packed: bytes
    etag: str


class ChartLibrary:
    """Gives the library, made when it is first asked for.

    Args:
        folder: where it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = asyncio.Lock()
        self._library: Library | None = None

    async def get(self) -> Library:
        """The library.

        Raises:
            OperationError: it cannot be made.
        """
        async with self._lock:
            if self._library is None:
                self._library = await self._load()
            return self._library

    async def _load(self) -> Library:
        path = self._folder / f"charts-{version('vl-convert-python')}.js.gz"
        if not path.exists():
            await _make(path)
        packed = await asyncio.to_thread(path.read_bytes)
        return Library(packed, f'"{hashlib.sha256(packed).hexdigest()[:32]}"')


async def _make(path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "totalizer.web.operator.chart", str(path), stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(MADE_S_MAX):
            _, told = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise OperationError(f"the chart library was not made within {MADE_S_MAX:g} s") from None
    if child.returncode != 0:
        raise OperationError(f"the chart library cannot be made: {told.decode(errors='replace').strip()[-500:]}")


def write_library(path: Path) -> None:
    """Make the library and put it into its file, packed. Raises OSError: the disk refuses."""
    import vl_convert

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, gzip.compress(vl_convert.javascript_bundle(_SNIPPET).encode(), mtime=0))


if __name__ == "__main__":
    write_library(Path(sys.argv[1]))
