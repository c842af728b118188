"""Replicas of the service on one Redis, one PostgreSQL and one cold tier: processes that can be killed, held still and
started again, and so can what they share.

Each replica has a home of its own, with nothing in it but the token of local mode, which is the same in all. What they
share is named by their settings. Needs the [server], [redis] and [postgres] extras.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from msgspec.structs import replace

from holdfast.ports.hot import HotStore
from holdfast.service.auth.local import NAME as TOKEN_FILE
from holdfast.settings import Settings
from holdfast.settings.sections import Auth, Service
from holdfast.testing.doors import BUSY, Door
from holdfast.testing.issuer import Issuer
from holdfast.testing.objects import object_server
from holdfast.testing.peers import running
from holdfast.testing.postgres import PostgresServer, postgres_server
from holdfast.testing.proxy import Proxy
from holdfast.testing.servers import RedisServer, redis_server
from holdfast.testing.serving import Served, served, variables_of

_TRIES = 10


class Fleet:
    """So many replicas, and the servers they share.

    Attributes:
        settings: of a replica, with a home that is nobody's: ``open_engine(fleet.settings)`` is one more on the fleet.
        redis, postgres: the servers themselves.
        to_redis, to_postgres: the proxies by which the replicas come to them; None in a fleet without.
        doors: where each replica is and what opens it. After a restart it is elsewhere: the door is changed.
    """

    def __init__(
        self,
        settings: Settings,
        redis: RedisServer,
        postgres: PostgresServer,
        proxies: tuple[Proxy | None, Proxy | None] = (None, None),
        *,
        token: str,
        wrap: str | None = None,
        environ: dict[str, str] | None = None,
    ) -> None:
        self.settings, self.redis, self.postgres = settings, redis, postgres
        self.to_redis, self.to_postgres = proxies
        self.doors: list[Door] = []
        self._token, self._wrap, self._environ = token, wrap, environ or {}
        self._running: dict[int, tuple[Served, contextlib.AsyncExitStack]] = {}
        self._paused: set[int] = set()

    def __getitem__(self, which: int) -> Served:
        """A replica that runs."""
        return self._running[which][0]

    def home(self, which: int) -> Path:
        return self.settings.home.with_name(f"replica-{which}")

    @property
    def up(self) -> list[int]:
        """The replicas that run, those that are held still among them."""
        return sorted(self._running)

    async def start(self, which: int) -> Served:
        """Start a replica that does not run, and wait until it can be spoken to."""
        home = self.home(which)
        given = {**variables_of(replace(self.settings, home=home)), **self._environ}
        stack = contextlib.AsyncExitStack()
        try:
            one = await stack.enter_async_context(served(given, home=home, wrap=self._wrap))
        except BaseException:
            await stack.aclose()
            raise
        self._running[which] = one, stack
        door = self.doors[which]
        door.address, door.token = one.address, self._token
        return one

    async def kill(self, which: int) -> None:
        """End a replica at once, as a crash would (SIGKILL)."""
        await self._end(which, signal.SIGKILL)

    async def stop(self, which: int) -> int:
        """Tell a replica to stop (SIGTERM) and wait until it has; its exit code."""
        return await self._end(which, signal.SIGTERM)

    async def restart(self, which: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End a replica with a signal and start another in its place; again, where it does not come up at first, as
        when a server it needs is down.
        """
        await self._end(which, how)
        for _ in range(_TRIES - 1):
            with contextlib.suppress(RuntimeError):
                await self.start(which)
                return
        await self.start(which)

    def pause(self, which: int) -> None:
        """Hold a replica still (SIGSTOP): its connections stand, and nothing is answered."""
        self[which].process.send_signal(signal.SIGSTOP)
        self._paused.add(which)

    def go_on(self, which: int) -> None:
        """Let it run again."""
        self[which].process.send_signal(signal.SIGCONT)
        self._paused.discard(which)

    async def restart_redis(self, down: float = 0.0) -> None:
        """Kill Redis (SIGKILL), and start it again on its file after so many seconds."""
        self.redis.kill()
        await asyncio.sleep(down)
        await asyncio.to_thread(self.redis.start)

    async def restart_postgres(self, down: float = 0.0) -> None:
        """Kill every process of PostgreSQL, and start it again after so many seconds."""
        await asyncio.to_thread(self.postgres.kill)
        await asyncio.sleep(down)
        await asyncio.to_thread(self.postgres.start)

    async def close(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End every replica that runs."""
        await asyncio.gather(*(self._end(which, how) for which in self.up))

    async def _end(self, which: int, how: signal.Signals) -> int:
        one, stack = self._running[which]
        if which in self._paused and how is not signal.SIGKILL:
            self.go_on(which)
        try:
            code = await one.stop(how)
        finally:
            self._running.pop(which, None)
            self._paused.discard(which)
            await stack.aclose()
        return code


@contextlib.asynccontextmanager
async def fleet(
    folder: Path,
    replicas: int = 4,
    *,
    proxied: bool = False,
    issuer: Issuer | None = None,
    s3: bool = False,
    postgres: PostgresServer | None = None,
    service: Service = BUSY,
    wrap: str | None = None,
    **environ: str,
) -> AsyncIterator[Fleet]:
    """Start the servers and the replicas; at the end of the block everything is killed.

    Args:
        folder: where Redis, the homes, the keys and the sinks are; each in a folder of its own.
        proxied: put a proxy of this process before Redis and before PostgreSQL. It costs this process time.
        issuer: whose tokens the replicas believe; without one they are in local mode.
        s3: let the cold tier be a bucket of moto's, for which the environment must have credentials
            (``give_credentials``); a directory that they share, if not.
        postgres: a server that runs already, in place of one of its own: a schema that nobody has used.
        wrap: as of ``served``, for every replica.
        environ: more ``HOLDFAST_*`` variables for every replica.
    """
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server(folder / "redis"))
        kept = postgres or stack.enter_context(postgres_server())
        hot, warm, cold = redis.url, kept.fresh_url(), None
        if s3:
            objects = stack.enter_context(object_server(folder / "objects"))
            objects.make("holdfast")
            cold = objects.url("holdfast/cold")
        to_redis = to_postgres = None
        if proxied:
            to_redis = await stack.enter_async_context(Proxy("127.0.0.1", redis.port).listening())
            to_postgres = await stack.enter_async_context(Proxy("127.0.0.1", kept.port).listening())
            hot = f"redis://127.0.0.1:{to_redis.port}"
            warm = warm.replace(f":{kept.port}/", f":{to_postgres.port}/")
        settings = settings_of(folder, hot, warm, cold, service=service, issuer=issuer)
        token = secrets.token_urlsafe(32) if issuer is None else issuer.token("root", roles=["admin", "operator"])
        ran = Fleet(settings, redis, kept, (to_redis, to_postgres), token=token, wrap=wrap, environ=environ)
        stack.push_async_callback(ran.close)
        for which in range(replicas):
            ran.doors.append(Door("", token))
            if issuer is None:
                give_token(ran.home(which), token)
        started = await asyncio.gather(*(ran.start(which) for which in range(replicas)), return_exceptions=True)
        for one in started:  # all of them are through with it: none is left halfway
            if isinstance(one, BaseException):
                raise one
        yield ran


def settings_of(
    folder: Path,
    hot: str,
    warm: str,
    cold: str | None = None,
    *,
    service: Service = BUSY,
    issuer: Issuer | None = None,
) -> Settings:
    """Settings of one more on the tiers: a home in a folder, and beside it the keys and sinks that all share."""
    folder.mkdir(parents=True, exist_ok=True)
    return Settings(
        home=folder / "desk",
        hot=hot,
        warm=warm,
        cold=cold or (folder / "cold").as_uri(),
        key_file=folder / "keys.json",
        sinks={
            "vectors": f"vectors://{folder / 'vectors.sqlite'}",
            "directory": f"directory://{folder / 'published'}",
        },
        service=service,
        auth=Auth() if issuer is None else issuer.auth(issuer.publish(folder / "issuer.json")),
    )


def give_token(home: Path, token: str) -> None:
    """Put the token of local mode into a home that is not there yet."""
    home.mkdir(parents=True, mode=0o700, exist_ok=True)
    with open(os.open(home / TOKEN_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(f"{token}\n")


@contextlib.asynccontextmanager
async def inside(
    folder: Path, hot: str, warm: str, many: int, wrap: Callable[[HotStore], HotStore]
) -> AsyncIterator[list[Door]]:
    """So many services of this process on the tiers, each with an engine of its own around what ``wrap`` makes of the
    hot store: for what is broken on purpose.
    """
    from holdfast.service.app import create_app

    settings = settings_of(folder, hot, warm)
    give_token(settings.home, token := secrets.token_urlsafe(32))
    async with contextlib.AsyncExitStack() as stack:
        doors = []
        for _ in range(many):
            address = await stack.enter_async_context(running(create_app(settings, wrap=wrap), BUSY))
            doors.append(Door(address, token))
        yield doors


__all__ = ["Fleet", "fleet", "give_token", "inside", "settings_of"]
