"""Whether a suite has teeth: its tests, run one by one on a store that breaks a promise, and on one that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from holdfast.testing.handles import Closing, Connecting, Handles, opened


def otherwise(source: str, *edits: tuple[str, str]) -> str:
    """A script with something else in place of something; each is there to be replaced."""
    for before, after in edits:
        assert before in source, before
        source = source.replace(before, after)
    return source


async def run(suite: type[Handles[Any]], test: str, values: Mapping[str, Any] | None = None, **gives: Any) -> None:
    """Run a test of a suite as pytest would; every handle that it opened is closed at the end.

    Args:
        values: what its parametrised arguments have, by their names; those of other tests may be among them.
        gives: ``connect``, and where the suite wants more, such as ``narrow``, those.
    """
    method = getattr(suite(), test)
    wanted = signature(method).parameters
    made: list[Closing] = []

    def kept(connect: Connecting[Closing]) -> Connecting[Closing]:
        async def connecting() -> Closing:
            made.append(await opened(connect))
            return made[-1]

        return connecting

    given = {**(values or {}), **{name: kept(connect) for name, connect in gives.items()}}
    given = {name: value for name, value in given.items() if name in wanted}
    try:
        if "stores" in wanted:
            given["stores"] = (await opened(kept(gives["connect"])), await opened(kept(gives["connect"])))
        await method(**given)
    finally:
        for handle in made:
            await handle.close()
