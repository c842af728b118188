"""Finds the route of a request by the segments of its path.

Starlette tries the pattern of one route after the other; with the seventy of the service that took longer than all
else the service itself does for a read. The routes and their order are as they were declared; only the way to them
is another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


class Way(msgspec.Struct, frozen=True):
    """A route, as one of the ways a path can lead.

    Attributes:
        order: its place among all routes: of two that fit, the first counts.
        names: of its parameters, as they come in the path.
    """

    order: int
    route: Route
    names: tuple[str, ...]


class Shape(msgspec.Struct):
    """The paths that have words and parameters at the same places.

    Attributes:
        length: how many segments they have.
        words: gets what stands at the places of words out of the segments of a path.
        places: of the parameters; the last takes the rest of the path, slashes too, where it is ``open``.
        ways: by words and by method.
    """

    length: int
    words: Callable[[Sequence[str]], Any]
    places: tuple[int, ...]
    open: bool
    ways: dict[Any, dict[str, Way]]

    def values(self, segments: Sequence[str]) -> tuple[str, ...] | None:
        """What a path has in place of the parameters; None where one has nothing, which only an open one may."""
        if self.open:
            *places, last = self.places
            values = tuple([segments[place] for place in places])
            return (*values, "/".join(segments[last:])) if all(values) else None
        values = tuple([segments[place] for place in self.places])
        return values if all(values) else None


class Router(APIRouter):
    """A router of flat routes, without mounts, redirects or sockets.

    A path with a slash at its end is another path, and nobody is sent on from one to the other: where to would be what
    the request says its host is.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(redirect_slashes=False, **options)
        self._indexed = 0
        self._shapes: dict[int, list[Shape]] = {}
        self._open: list[Shape] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().app(scope, receive, send)
            return
        ways = self.find(_path(scope))
        if not ways:
            raise HTTPException(404)
        method = scope["method"]
        fit = [(methods[method], values) for methods, values in ways if method in methods]
        if not fit:
            scope["route"] = next(iter(ways[0][0].values())).route
            allowed = {method for methods, _ in ways for method in methods}
            allowed |= {"HEAD"} if "GET" in allowed else set()  # the edge answers it as GET
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        way, values = fit[0] if len(fit) == 1 else min(fit, key=lambda found: found[0].order)
        scope["route"], scope["endpoint"] = way.route, way.route.endpoint
        scope["path_params"] = {**scope.get("path_params", {}), **dict(zip(way.names, values, strict=True))}
        await way.route.app(scope, receive, send)

    def find(self, path: str) -> list[tuple[dict[str, Way], tuple[str, ...]]]:
        """Where a path can lead: its routes by method, with the values of their parameters."""
        if self._indexed != len(self.routes):
            self._index()
        segments = path.split("/")
        return list(self._fits(segments))

    def _fits(self, segments: list[str]) -> Iterator[tuple[dict[str, Way], tuple[str, ...]]]:
        length = len(segments)
        for shape in (*self._shapes.get(length, ()), *self._open):
            if shape.length <= length:
                ways = shape.ways.get(shape.words(segments))
                if ways is not None:
                    values = shape.values(segments)
                    if values is not None:
                        yield ways, values

    def _index(self) -> None:
        """Take the routes as they are now.

        Raises:
            TypeError: one is no plain route, or has a parameter that is not a whole segment or the end of the path.
        """
        shapes: dict[tuple[int, tuple[int, ...], bool], Shape] = {}
        for order, route in enumerate(self.routes):
            if not isinstance(route, Route) or not route.methods:
                raise TypeError(f"{route}: the service has plain routes alone")
            segments = route.path.split("/")
            places = tuple(place for place, segment in enumerate(segments) if "{" in segment)
            names = tuple(segments[place][1:-1].removesuffix(":path") for place in places)
            is_open = segments[-1].endswith(":path}")
            if [segments[place] for place in places] != [
                f"{{{name}:path}}" if is_open and place == len(segments) - 1 else f"{{{name}}}"
                for name, place in zip(names, places, strict=True)
            ] or set(names) != route.param_convertors.keys():
                raise TypeError(f"{route.path}: a parameter is a whole segment, or the end of the path")
            words = itemgetter(*(place for place in range(len(segments)) if place not in places))
            name = len(segments), places, is_open
            shape = shapes.setdefault(name, Shape(len(segments), words, places, is_open, {}))
            ways = shape.ways.setdefault(words(segments), {})
            for method in route.methods:
                ways.setdefault(method, Way(order, route, names))
        self._shapes, self._open = {}, []
        for shape in shapes.values():
            (self._open if shape.open else self._shapes.setdefault(shape.length, [])).append(shape)
        self._indexed = len(self.routes)


def _path(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
