"""The API page: its files reach anybody, safely, and hold nothing that a strict policy would not let run (S12, S23)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from html.parser import HTMLParser

import httpx2
import pytest
from fastapi import FastAPI

from holdfast.service.app import create_app
from holdfast.service.routes import page
from holdfast.settings import Settings

PARTS = sorted(page.contents())


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody without a token. The engine is not even open: the page has no need of it."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://holdfast.test") as client:
        yield client


def address(part: str) -> str:
    return "/" if part == page.INDEX else f"/page/{part}"


# -- how it is served -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
async def test_each_part_is_served_to_anybody_under_the_strict_policy(stranger: httpx2.AsyncClient, part: str) -> None:
    answer = await stranger.get(address(part))
    assert answer.status_code == 200
    assert answer.content == page.contents()[part]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = dict(one.split(" ", 1) for one in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    for source in ("script-src", "style-src", "img-src", "connect-src"):
        assert policy[source] == "'self'"
    for nothing in ("frame-ancestors", "base-uri", "form-action"):
        assert policy[nothing] == "'none'"


@pytest.mark.parametrize(
    ("part", "media"),
    [
        ("index.html", "text/html"),
        ("page.js", "text/javascript"),
        ("page.css", "text/css"),
        ("favicon.svg", "image/svg+xml"),
    ],
)
async def test_a_part_has_the_media_type_a_browser_insists_on(
    stranger: httpx2.AsyncClient, part: str, media: str
) -> None:
    assert (await stranger.get(address(part))).headers["content-type"].split(";")[0] == media


@pytest.mark.parametrize("part", PARTS)
async def test_what_the_browser_has_already_is_not_sent_again(stranger: httpx2.AsyncClient, part: str) -> None:
    tag = (await stranger.get(address(part))).headers["etag"]
    assert tag.startswith('"')
    again = await stranger.get(address(part), headers={"if-none-match": f'"older", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "content-security-policy" in again.headers
    assert (await stranger.get(address(part), headers={"if-none-match": '"older"'})).status_code == 200


async def test_parts_have_tags_of_their_own(stranger: httpx2.AsyncClient) -> None:
    tags = {(await stranger.get(address(part))).headers["etag"] for part in PARTS}
    assert len(tags) == len(PARTS)


@pytest.mark.parametrize("part", ["index.html", "none.js", "..%2fapp.py", "%2e%2e/app.py", "__init__.py", ""])
async def test_nothing_else_is_served_beside_them(stranger: httpx2.AsyncClient, part: str) -> None:
    answer = await stranger.get(f"/page/{part}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "route-not-found"


async def test_the_page_cannot_be_written_to(stranger: httpx2.AsyncClient) -> None:
    assert (await stranger.post("/")).status_code == 405


def test_the_page_is_open_and_not_in_the_document(app: FastAPI) -> None:
    assert not [path for path in app.openapi()["paths"] if path == "/" or path.startswith("/page")]
    handlers = {page.index, page.part}
    found = [route for route in walked(app) if getattr(route, "endpoint", None) in handlers]
    assert len(found) == len(handlers)
    for route in found:
        assert getattr(route, "openapi_extra", None) == {"x-holdfast-verb": "open"}


def walked(app: FastAPI) -> Iterator[object]:
    for route in app.routes:
        yield route
        yield from getattr(getattr(route, "original_router", None), "routes", ())


# -- what it consists of ----------------------------------------------------------------------------------------------

FORBIDDEN = {
    ".js": (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc",
        r"\beval\b|\bFunction\s*\(|set(?:Timeout|Interval)\(\s*[\"'`]",
        r"\blocalStorage\b|\bdocument\.cookie\b",
        r"\.style\b|cssText|javascript:|https?:|[\"'`]//",
    ),
    ".css": (r"url\(", r"@import", r"https?:", r"expression\("),
    ".svg": (r"<script", r"\bon\w+=", r"\bhref", r"style="),
    ".html": (r"https?:", r"javascript:"),
}
"""What a part may not have in it: markup made of text, code made of text, a token that outlives its tab, anything from
elsewhere.
"""


class Page(HTMLParser):
    """Reads the page: what it links to, and what in it is inline."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self._within = tag
        self.links += [value for name in ("src", "href") if (value := named.get(name)) and not value.startswith("#")]
        self.inline += [name for name in named if name.startswith("on") or name == "style"]
        if tag in ("style", "iframe", "object", "embed", "base") or (tag == "script" and "src" not in named):
            self.inline.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script" and data.strip():
            self.inline.append(data)


def faults(parts: Mapping[str, str]) -> list[str]:
    """What in the parts of a page the policy would not let run, or would let run and should not."""
    found = []
    for name, text in parts.items():
        ending = name[name.rindex(".") :]
        if ending == ".html":
            found += Page(text).inline
        said = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        found += [match.group() for rule in FORBIDDEN[ending] for match in re.finditer(rule, said)]
    return found


def shipped() -> dict[str, str]:
    return {name: data.decode() for name, data in page.contents().items()}


def test_nothing_in_the_page_is_inline_or_from_elsewhere() -> None:
    assert faults(shipped()) == []


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("index.html", "<script>alert(1)</script>"),
        ("index.html", '<p onclick="x()">'),
        ("index.html", '<p style="color: red">'),
        ("index.html", "<style>p { color: red }</style>"),
        ("index.html", '<img src="https://elsewhere.example/x.png">'),
        ("page.js", "main.innerHTML = answer;"),
        ("page.js", "eval(answer);"),
        ("page.js", 'import "https://elsewhere.example/x.js";'),
        ("page.js", "localStorage.setItem(name, token);"),
        ("page.css", '@import "more.css";'),
        ("page.css", "body { background: url(x.png); }"),
        ("favicon.svg", "<script/>"),
    ],
)
def test_what_does_not_belong_into_the_page_would_be_found(part: str, wrong: str) -> None:
    parts = shipped()
    parts[part] += wrong
    assert len(faults(parts)) >= 1


def test_every_part_is_used_and_every_used_part_is_there() -> None:
    parts = shipped()
    reached = {page.INDEX}
    waiting = [page.INDEX]
    while waiting:
        name = waiting.pop()
        text = parts[name]
        links = [link.removeprefix("page/") for link in Page(text).links] if name == page.INDEX else []
        links += re.findall(r'(?:from|import) "\./([\w.]+)"', text) if name.endswith(".js") else []
        waiting += [link for link in links if link not in reached]
        reached.update(links)
    assert reached == set(parts)


def test_every_route_the_page_names_itself_is_in_the_document(app: FastAPI) -> None:
    named = {route for text in shipped().values() for route in re.findall(r'"(/(?:v1/[\w/{}]+|openapi\.json))', text)}
    assert {"/openapi.json", "/v1/sessions"} <= named
    assert named <= set(app.openapi()["paths"])


def test_what_the_start_panel_draws_of_a_session_is_in_its_schema(app: FastAPI) -> None:
    text = shipped()["sessions.js"]
    schemas = app.openapi()["components"]["schemas"]
    drawn = set(re.findall(r"\bsession\.(\w+)", text))
    assert {"id", "title", "version", "status"} <= drawn <= set(schemas["Session"]["properties"])
    assert set(re.findall(r"\bpage\.(\w+)", text)) == {"sessions", "cursor"} <= set(schemas["Page"]["properties"])


def test_what_the_page_of_a_session_draws_of_it_is_in_its_schema(app: FastAPI) -> None:
    text = shipped()["session.js"]
    schemas = app.openapi()["components"]["schemas"]
    drawn = set(re.findall(r"\bsession\.(\w+)", text))
    assert {"id", "title", "version", "status", "items"} <= drawn <= set(schemas["Whole"]["properties"])
    drawn = set(re.findall(r"\bitem\.(\w+)", text))
    assert {"key", "version", "body"} <= drawn <= set(schemas["Item"]["properties"])


def test_what_the_page_of_a_session_offers_to_go_on_with_is_in_the_document(app: FastAPI) -> None:
    text = shipped()["session.js"]
    (path,) = re.findall(r'const PATH = "([^"]+)"', text)
    offered = re.findall(r'\["([A-Z]+)", "([^"]*)"\]', text)
    assert len(offered) >= 3
    paths = app.openapi()["paths"]
    assert [f"{method} {end}" for method, end in offered if method.lower() not in paths[path + end]] == []


def test_each_route_that_misses_a_tag_takes_one_where_the_page_marks_it_as_needed(app: FastAPI) -> None:
    """The page asks for `If-Match` wherever the document tells of a 428 (R05); so the document has to be right."""
    for path, methods in app.openapi()["paths"].items():
        for method, said in methods.items():
            headers = {one["name"]: one for one in said.get("parameters", ()) if one["in"] == "header"}
            refused = "Without it a write is refused" in headers.get("If-Match", {}).get("description", "")
            assert ("428" in said["responses"]) == refused, (method, path)
