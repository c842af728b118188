"""Problem documents back into the errors they were made of: same class, same sentence, same facts."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_origin, get_type_hints

import msgspec

from holdfast import errors
from holdfast.errors import HoldfastError, ServiceError
from holdfast.model.change import Conflict

_RENAMED = {"status": "session_status"}
"""Facts whose names RFC 9457 has taken, and what they are called in a problem document."""

_LISTS: Mapping[Any, Any] = {Sequence: list[Conflict], Iterable: list[str]}
"""What the lists hold that errors take."""


def error_of(data: bytes, status: int) -> HoldfastError:
    """The error behind the body of an answer; ``ServiceError`` if it is no problem of ours, or one of a newer service.

    Args:
        status: the status of the answer, for what is not understood.
    """
    try:
        problem = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ServiceError(f"The service answered with status {status}, and not as Holdfast does.")
    return rebuilt(problem, status)


def rebuilt(problem: Mapping[str, Any], status: int = 500) -> HoldfastError:
    """The error behind a problem document."""
    code, detail, request = (problem.get(name) for name in ("code", "detail", "request"))
    kind = _kinds().get(code) if isinstance(code, str) else None
    if kind is None:
        said = f": {detail}" if isinstance(detail, str) else ""
        return ServiceError(f"The service answered with status {status}{said}", request if _is_text(request) else None)
    error = _made(kind, problem)
    if isinstance(detail, str):
        error.args = (detail,)
    return error


def _made(kind: type[HoldfastError], problem: Mapping[str, Any]) -> HoldfastError:
    """An error from its facts, or without them if they are not those it takes here."""
    hints = _arguments(kind.code)
    told = {name: problem[there] for name in hints if (there := _RENAMED.get(name, name)) in problem}
    try:  # what an older service does not tell yet may be left out
        return kind(**{name: _typed(hints[name], value) for name, value in told.items()})
    except (TypeError, ValueError):  # msgspec's ValidationError is a ValueError
        bare = kind.__new__(kind)
        for name in hints:
            setattr(bare, name, None)
        return bare


def _typed(hint: Any, value: Any) -> Any:
    return msgspec.convert(value, _LISTS.get(get_origin(hint), hint))


@cache
def _arguments(code: str) -> dict[str, Any]:
    """What an error is made of: the names and types of its arguments, which are those of its facts."""
    made = _kinds()[code].__init__
    hints = get_type_hints(made) if inspect.isfunction(made) else {}  # else it is that of Exception itself
    return {name: hint for name, hint in hints.items() if name != "return"}


@cache
def _kinds() -> dict[str, type[HoldfastError]]:
    """Every error of the tree by its code."""
    return {kind.code: kind for kind in _tree(HoldfastError) if kind.__module__ == errors.__name__}


def _tree(kind: type[HoldfastError]) -> Iterator[type[HoldfastError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
