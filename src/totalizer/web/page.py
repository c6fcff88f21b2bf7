"""The page at `/`: totals by day, live. Static files; the numbers come through the API with the reader's own key."""

from __future__ import annotations

from importlib import resources
from typing import Any

from litestar import Response, get

#: Nothing from anywhere else, nothing inline.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: The framework adds the charset of texts.
_FILES = {
    "/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"), "/page.css": ("page.css", "text/css"),
}  # fmt: skip


def page_routes() -> list[Any]:
    """The routes of the page's files."""
    return [_route(path, name, media_type) for path, (name, media_type) in _FILES.items()]


def _route(path: str, name: str, media_type: str) -> Any:
    content = (resources.files("totalizer.web") / "assets" / name).read_bytes()
    headers = {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }

    @get(path, include_in_schema=False, sync_to_thread=False, name=f"page {name}")
    def serve() -> Response[bytes]:
        return Response(content, media_type=media_type, headers=headers)

    return serve
