"""The API page: static files of the package, the same for everybody, with nothing of anybody's work in them.

The page asks for everything else with the token of whoever opened it; so it needs none itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from fastapi import FastAPI, Request
from starlette.responses import Response

from holdfast.errors import RouteNotFoundError
from holdfast.service.conditions import is_known
from holdfast.service.routing import OPEN

INDEX = "index.html"

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        # No text ever becomes markup or code, not even by mistake.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The content security policy of the page: its own files, its own service, nothing inline."""

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@cache
def contents() -> Mapping[str, bytes]:
    """The files of the page, by name."""
    return {
        file.name: file.read_bytes()
        for file in files("holdfast.service").joinpath("page").iterdir()
        if PurePath(file.name).suffix in _MEDIA_TYPES
    }


def _sent(name: str, request: Request) -> Response:
    data = contents()[name]
    headers = {
        "etag": f'"{hashlib.sha256(data).hexdigest()[:32]}"',
        "cache-control": "no-cache",  # kept, and asked about each time: an upgrade is seen at once
        "content-security-policy": POLICY,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    if is_known(request.headers.get("if-none-match"), headers["etag"]):
        return Response(None, 304, headers=headers)
    return Response(data, headers=headers, media_type=_MEDIA_TYPES[PurePath(name).suffix])


async def index(request: Request) -> Response:
    """The page itself."""
    return _sent(INDEX, request)


async def part(name: str, request: Request) -> Response:
    """A script, the style or the icon of the page."""
    if name == INDEX or name not in contents():
        raise RouteNotFoundError(request.method, request.url.path)
    return _sent(name, request)


def mount(app: FastAPI) -> None:
    """Serve the page at ``/`` and its parts below ``/page/``; neither is in the OpenAPI document."""
    for path, handler in (("/", index), ("/page/{name}", part)):
        app.add_api_route(
            path,
            handler,
            methods=["GET", "HEAD"],
            response_class=Response,
            response_model=None,
            include_in_schema=False,
            openapi_extra={"x-holdfast-verb": OPEN},
        )
