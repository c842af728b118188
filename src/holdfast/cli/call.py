"""One run of a command: who asks, of which home or service, and how the answer is to be given."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, cast

import typer
from msgspec.structs import replace

from holdfast.cli.coercion import Command
from holdfast.model.access import Principal

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.settings import Settings

P = ParamSpec("P")

SHORTEST_PREFIX = 6
"""Characters of a session id below which it is not guessed at."""

FULL_ID = 32
"""Characters from which on a session id is taken as it stands: 128 bits or more in hexadecimal."""

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document; errors too, on standard error.")]
Home = Annotated[
    Path | None, typer.Option("--home", metavar="PATH", help="Where the data is kept, instead of the setting.")
]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who asks; the operating-system user by default.")]
Tenant = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="The tenant to work in; 'local' by default.")
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The service to ask, instead of a home; HOLDFAST_URL by default."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="PATH", help="Who asks it: a file with a token; else HOLDFAST_TOKEN."),
]

SessionId = Annotated[
    str, typer.Argument(metavar="SESSION", help="The session's id, or its first 6 characters or more.")
]
Expected = Annotated[
    int | None,
    typer.Option(
        metavar="VERSION",
        help="The version you saw. Without it, the version this command reads just before it writes: nothing is ever"
        " overwritten unseen between those two, but what changed before this command started is not noticed.",
    ),
]
Rebase = Annotated[
    bool, typer.Option("--rebase", help="Land on a newer version, too, if the items concerned are unchanged.")
]
ChangeId = Annotated[
    str | None, typer.Option(metavar="ID", help="Sending the same change again under the same id changes nothing.")
]
Group = Annotated[str | None, typer.Option(metavar="NAME", help="Commits that share a group are undone as one.")]


class Call:
    """What a command is given besides its own arguments.

    Attributes:
        json: answer with one JSON document.
        who: the principal that asks; a service goes by the token, and ``me`` says who that is.
        rest: arguments that the command did not declare, for one that reads them itself.
        engine: open while the command runs, unless it asked for none; over a service, what speaks to it.
    """

    engine: Engine

    def __init__(
        self,
        *,
        json: bool,
        home: Path | None,
        asker: str | None,
        tenant: str | None,
        url: str | None = None,
        token_file: Path | None = None,
    ) -> None:
        self.json, self.home = json, home
        self.asker, self.tenant = asker, tenant
        self.url, self.token_file = url, token_file
        self.rest: list[str] = []

    def over(self, **again: Any) -> Call:
        """The same with what was said again after the command: the later word counts."""
        return Call(**{name: said or getattr(self, name) for name, said in again.items()})

    @property
    def address(self) -> str | None:
        """The service to ask, None for the home. A home that was named goes before a service of the environment.

        Raises:
            typer.BadParameter: what was said goes with a home alone.
        """
        import os

        address = self.url or (None if self.home else os.environ.get("HOLDFAST_URL"))
        if address is not None:
            for option, said in (("--home", self.home), ("--as", self.asker), ("--tenant", self.tenant)):
                if said is not None:
                    raise typer.BadParameter(f"{option} is for a home; a service goes by the token of who asks it.")
        return address or None

    @property
    def who(self) -> Principal:
        from holdfast.settings.user import LOCAL_TENANT, system_user

        return Principal(id=self.asker or system_user(), tenant=self.tenant or LOCAL_TENANT)

    @property
    def admin(self) -> Principal:
        """The same person as admin of the tenant and operator: who may open the files of an embedded home is both."""
        return replace(self.who, roles=frozenset({"admin", "operator"}))

    def token(self) -> str | None:
        """What the token file holds, None if none is named."""
        if self.token_file is None:
            return None
        with files():
            return self.token_file.read_text(encoding="ascii", errors="replace").strip()

    async def me(self) -> Principal:
        """Who asks, as whoever decides knows it: a service goes by the token."""
        from holdfast.cli.remote import Remote

        engine: object = self.engine
        return await engine.whoami() if isinstance(engine, Remote) else self.who

    def settings(self) -> Settings:
        """The settings, with ``--home`` in place of theirs."""
        import os

        from holdfast.settings import Settings

        given = {name: value for name, value in os.environ.items() if name not in ("HOLDFAST_URL", "HOLDFAST_TOKEN")}
        return Settings.load(given if self.home is None else {**given, "HOLDFAST_HOME": str(self.home)})

    async def session(self, text: str) -> str:
        """The id of the session that a whole id or a unique beginning of one names.

        Raises:
            SessionNotFoundError: none that this principal may see begins so.
            typer.BadParameter: too short, or more than one begins so.
        """
        from holdfast.errors import SessionNotFoundError

        if len(text) >= FULL_ID:
            return text
        if len(text) < SHORTEST_PREFIX:
            raise typer.BadParameter(f"{text!r} is too short: give at least {SHORTEST_PREFIX} characters of the id.")
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await self.engine.find(self.who, after=cursor, limit=200)
            ids = (*(header.id for header in page.headers), *page.unreadable)
            found += [one for one in ids if one.startswith(text)]
            cursor = page.cursor
            if cursor is None:
                break
        if not found:
            raise SessionNotFoundError(text)
        if len(found) > 1:
            raise typer.BadParameter(f"{text!r} is the beginning of {len(found)} sessions: {', '.join(found[:4])}.")
        return found[0]

    async def version(self, session: str, expected: int | None, change_id: str | None) -> int:
        """The version to name in a write: the one given, or the one the session stands at now.

        Raises:
            typer.BadParameter: a change id without a version. What may be sent again must name the version that it was
                meant for: the second time, the session stands at another.
        """
        if expected is not None:
            return expected
        if change_id is not None:
            raise typer.BadParameter("a --change-id needs --expected: what may be sent again names its version.")
        return (await self.engine.header(session, self.who)).version


@contextmanager
def files() -> Iterator[None]:
    """Around reading or writing a file that the command line named: what is wrong with it is a usage error."""
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(f"{error.filename or 'the file'}: {error.strerror or error}.") from None


def command(
    app: typer.Typer,
    name: str | None = None,
    *,
    engine: bool = True,
    context: dict[str, Any] | None = None,
    cls: type[Command] = Command,
    runner: Callable[[Coroutine[Any, Any, None]], None] | None = None,
) -> Callable[[Callable[Concatenate[Call, P], Awaitable[None]]], Callable[Concatenate[Call, P], Awaitable[None]]]:
    """Register a coroutine as a command. It is called with a ``Call``, the engine open, and its declared arguments.

    Every command gets ``--json`` and the hidden ``--home``, ``--as``, ``--tenant``, ``--url`` and ``--token-file``, so
    that these may stand before the command or after it.

    Args:
        engine: without one, the command is about this machine, and a service cannot be asked for it.
        runner: what runs the coroutine, in place of ``asyncio.run``.
    """

    def register(
        work: Callable[Concatenate[Call, P], Awaitable[None]],
    ) -> Callable[Concatenate[Call, P], Awaitable[None]]:
        own = list(inspect.signature(work, eval_str=True).parameters.values())[1:]
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *_COMMON,
        ]

        def run(**given: Any) -> None:
            import asyncio

            context = given.pop("ctx")
            common = {option.name: given.pop(option.name) for option in _COMMON}
            call: Call = context.obj.over(**common)
            call.rest = list(context.args)
            (runner or asyncio.run)(_with_engine(call, work, given) if engine else _without(call, work, given))

        run.__doc__, run.__name__, run.__module__ = work.__doc__, getattr(work, "__name__", "run"), work.__module__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, context_settings=context, cls=cls)(run)
        return work

    return register


async def _with_engine(call: Call, work: Callable[..., Awaitable[None]], given: dict[str, Any]) -> None:
    address = call.address
    if address is not None:
        from holdfast.cli.remote import remote

        async with remote(address, call.token()) as engine:
            call.engine = cast("Engine", engine)
            await work(call, **given)
        return
    from holdfast.compose import open_engine

    async with open_engine(call.settings()) as call.engine:
        await work(call, **given)


async def _without(call: Call, work: Callable[..., Awaitable[None]], given: dict[str, Any]) -> None:
    if call.url is not None:
        raise typer.BadParameter("this command works on this machine, not on a service: leave --url out.")
    await work(call, **given)


def _hidden(option: str, metavar: str) -> Any:
    return typer.Option(option, metavar=metavar, hidden=True)


_COMMON = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, default, annotation in (
        ("json", False, Json),
        ("home", None, Annotated[Path | None, _hidden("--home", "PATH")]),
        ("asker", None, Annotated[str | None, _hidden("--as", "NAME")]),
        ("tenant", None, Annotated[str | None, _hidden("--tenant", "NAME")]),
        ("url", None, Annotated[str | None, _hidden("--url", "URL")]),
        ("token_file", None, Annotated[Path | None, _hidden("--token-file", "PATH")]),
    )
)
