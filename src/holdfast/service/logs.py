"""What the service tells of itself as it goes: one line an event, JSON for programs, columns for a person's terminal.

A line names what happened, to which session, by whom, in which request. It never holds a title, content, the key of an
item, a token or a query string; an exception is told of by its type and where it came from, never by its message, for
messages quote what they were given.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, TextIO

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from holdfast.model.lease import Lease
from holdfast.model.session import Header
from holdfast.ports.observer import CLOSED, OPENED, Observer

REQUEST: ContextVar[str] = ContextVar("holdfast_request", default="")
"""The id of the request that is being served."""

EVENTS: Mapping[str, str] = {
    "create": "session_created",
    "lock": "session_locked",
    "take-over": "session_taken_over",
    "unlock": "session_unlocked",
    "publish-begin": "session_publishing",
    "publish-failed": "session_publish_failed",
    "publish": "session_published",
    "rollback": "session_rolled_back",
    "reopen": "session_reopened",
    "discard": "session_discarded",
    "expire": "session_expired",
    "revive": "session_revived",
    "purge": "session_purged",
    "touch": "session_touched",
    "extend": "session_extended",
    "suspend": "session_suspended",
    "warn": "session_warned",
    "label": "session_labelled",
    "grant": "session_granted",
    "rename": "session_renamed",
    "taken": "lease_taken",
    "renewed": "lease_renewed",
    "released": "lease_released",
}
"""The event of each operation; every other operation is a commit and a ``session_updated``."""

UPDATED = "session_updated"

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_QUIET = frozenset({"touch", "renewed"})  # heartbeats
_LOUD = frozenset({"publish-failed"})
_SLOW = 1.0  # seconds; a store that takes longer to answer is worth a line
_MOST_LINE = 4_096  # bytes: what a pipe takes whole (PIPE_BUF), so that lines of several processes do not mix
_MOST_TEXT, _MOST_LISTED = 300, 30
_KNOWN = ("holdfast", "uvicorn", "asyncio")  # whose own words are let through, but not what is put into them

_encode = msgspec.json.Encoder().encode
_Fields = MutableMapping[str, Any]


class Logs(Observer):
    """Writes the lines of one process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``: what is below it is not written.
        stream: standard error by default. One that is a terminal gets columns in place of JSON.
    """

    def __init__(self, level: str = "info", stream: TextIO | BinaryIO | None = None) -> None:
        self._lines = Lines(sys.stderr if stream is None else stream)
        self.debugging = level == "debug"
        wrapped = structlog.wrap_logger(
            self._lines,
            processors=[self._finish, _columns() if self._lines.is_terminal else _json],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            context_class=dict,
        )
        self.log: FilteringBoundLogger = wrapped.bind()
        self._by_level = {name: getattr(self.log, name) for name in _LEVELS}
        self._broken: set[str] = set()

    # -- what the engine tells -----------------------------------------------------------------------------------------

    def appended(self, header: Header, operation: str, actor: str, at: datetime) -> None:
        self._session(operation, header, actor, step=header.step, operation=operation)

    def leased(self, step: str, header: Header, actor: str, lease: Lease) -> None:
        self._session(step, header, actor, fence=lease.fence)

    def stored(self, tier: str, what: str, seconds: float) -> None:
        if seconds > _SLOW:
            self.log.warning("store_slow", tier=tier, operation=what, seconds=round(seconds, 3))

    def failed(self, what: str, code: str, session: str = "") -> None:
        self.log.warning(f"{what}_failed", code=code, **({"session": session} if session else {}))

    def broke(self, tier: str, state: str) -> None:
        """An outage is two lines, however long it lasts and however often the store is tried meanwhile."""
        if state == CLOSED:
            if tier in self._broken:
                self._broken.remove(tier)
                self.log.info("breaker_closed", tier=tier)
        elif state == OPENED and tier not in self._broken:
            self._broken.add(tier)
            self.log.warning("breaker_opened", tier=tier)
        else:
            self.log.debug("breaker_tried", tier=tier, state=state)

    # -- what the service tells ----------------------------------------------------------------------------------------

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; 0 is the status of one whose peer went away first."""
        if status >= 500:
            self.log.warning("request", method=method, route=route, status=status, ms=round(seconds * 1_000, 3))
        elif self.debugging:
            self.log.debug("request", method=method, route=route, status=status, ms=round(seconds * 1_000, 3))

    def crashed(self, error: BaseException, **fields: Any) -> None:
        """Something failed in a way nobody has foreseen."""
        self.log.error("crashed", **fields, **outline(error))

    def event(self, name: str, level: str = "info", **fields: Any) -> None:
        """Any other event of the service, such as ``service_started``."""
        self._by_level[level](name, **fields)

    @contextlib.contextmanager
    def adopting(self) -> Iterator[None]:
        """For as long as this lasts, what libraries log through ``logging`` becomes lines of ours too."""
        root, ours = logging.getLogger(), _Adopted(self)
        before, level = root.handlers[:], root.level
        own: list[tuple[logging.Logger, list[logging.Handler], bool]] = []
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logger = logging.getLogger(name)
            own.append((logger, logger.handlers[:], logger.propagate))
            logger.handlers, logger.propagate = [], True
        root.handlers = [ours]
        root.setLevel(logging.WARNING)
        try:
            yield
        finally:
            root.handlers = before
            root.setLevel(level)
            for logger, handlers, propagate in own:
                logger.handlers, logger.propagate = handlers, propagate

    def _session(self, what: str, header: Header, actor: str, **more: Any) -> None:
        level = "debug" if what in _QUIET else "warning" if what in _LOUD else "info"
        self._by_level[level](
            EVENTS.get(what, UPDATED),
            session=header.id,
            kind=header.kind,
            tenant=header.tenant,
            actor=actor,
            version=header.version,
            **more,
        )

    def _finish(self, logger: Any, level: str, fields: _Fields) -> _Fields:
        """The line as it is written: time, level and event first, every text fit to be shown anywhere."""
        line: dict[str, Any] = {"at": datetime.now(UTC), "level": level, "event": _fit(fields.pop("event"))}
        for name, value in fields.items():
            line[name] = value if type(value) is int or type(value) is float else _fit(value)
        request = REQUEST.get()
        if request:
            line["request"] = request
        if self._lines.dropped:
            line["dropped"] = self._lines.dropped
        return line


class Lines:
    """A stream that takes whole lines. A reader that has stopped reading is not waited for: the line is dropped, and
    the next that is written says how many were.
    """

    def __init__(self, stream: TextIO | BinaryIO) -> None:
        self.dropped = 0
        self.is_terminal = False
        self._write: Callable[[bytes], object]
        self._ready: Callable[[int], object] | None = None
        self._writing = threading.Lock()  # two threads may not ask at once whether there is room
        try:
            number = stream.fileno()
            self.is_terminal = stream.isatty()
        except (OSError, ValueError, AttributeError):  # not a file, as in a test
            buffer: Any = getattr(stream, "buffer", stream)
            self._write = buffer.write
        else:
            self._write = lambda line: os.write(number, line)
            if hasattr(select, "poll"):
                poll = select.poll()
                poll.register(number, select.POLLOUT)
                self._ready = poll.poll

    def write(self, line: bytes) -> None:
        try:
            with self._writing:
                if self._ready is not None and not self._ready(0):
                    raise BlockingIOError
                self._write(line)
                self.dropped = 0
        except (OSError, ValueError):  # nobody reads any more, or it was closed: what was to be told is lost
            self.dropped += 1

    debug = info = warning = error = write


class _Adopted(logging.Handler):
    """Takes what libraries log, and lets through of it what can hold nothing of anybody's."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.name.startswith(_KNOWN) and isinstance(record.msg, str):
            numbers = isinstance(record.args, tuple) and all(type(one) in (int, float) for one in record.args)
            fields["said"] = (record.getMessage() if numbers else record.msg).partition("\n")[0]
        if record.exc_info is not None and record.exc_info[1] is not None:
            fields |= outline(record.exc_info[1])
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self._logs.event("library", level, **fields)


def outline(error: BaseException) -> dict[str, Any]:
    """An exception by its type, the types of what it came from, and the places it passed: nothing it was given."""
    told: dict[str, Any] = {"error": _named(error), "trace": _places(error.__traceback__)}
    causes: list[str] = []
    seen, cause = {id(error)}, _cause(error)
    while cause is not None and id(cause) not in seen and len(causes) < _MOST_LISTED:
        seen.add(id(cause))
        causes.append(f"{_named(cause)} at {(_places(cause.__traceback__) or ['?'])[-1]}")
        cause = _cause(cause)
    if isinstance(error, BaseExceptionGroup):
        causes += [f"{_named(one)} at {(_places(one.__traceback__) or ['?'])[-1]}" for one in _leaves(error)]
    if causes:
        told["causes"] = causes[:_MOST_LISTED]
    return told


def _named(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


def _places(trace: TracebackType | None) -> list[str]:
    """Module, line and function of each frame, the innermost last."""
    places = []
    while trace is not None:
        frame = trace.tb_frame
        places.append(f"{frame.f_globals.get('__name__', '?')}:{trace.tb_lineno} {frame.f_code.co_qualname}")
        trace = trace.tb_next
    return places[-_MOST_LISTED:]


def _fit(value: Any) -> Any:
    """A value that may stand in a line: text without control characters, cut to length; of what else there is, its
    type.
    """
    if isinstance(value, str):
        text = value if len(value) <= _MOST_TEXT else value[:_MOST_TEXT] + "…"
        if text.isprintable():
            return text
        return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_fit(one) for one in value[:_MOST_LISTED]]
    return f"<{type(value).__name__}>"


def _json(logger: Any, level: str, line: _Fields) -> bytes:
    data = _encode(line)
    if len(data) >= _MOST_LINE:
        data = _encode({**{name: _cut(value) for name, value in line.items()}, "cut": True})
    if len(data) >= _MOST_LINE:
        data = _encode({**{name: line[name] for name in ("at", "level", "event")}, "cut": True})
    return data + b"\n"


def _cut(value: Any) -> Any:
    """A value shortened so that ten of them fit into a line: of a list its end, where a trace comes from."""
    if isinstance(value, str):
        return value[:100]
    return [_cut(one) for one in value[-8:]] if isinstance(value, list) else value


def _columns() -> Callable[[Any, str, _Fields], bytes]:
    render = structlog.dev.ConsoleRenderer(colors=True, sort_keys=False)

    def columns(logger: Any, level: str, line: _Fields) -> bytes:
        line["timestamp"] = f"{line.pop('at').astimezone():%H:%M:%S}"
        return (str(render(logger, level, line)) + "\n").encode()

    return columns
