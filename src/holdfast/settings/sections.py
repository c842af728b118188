"""The settings of the service: how it listens, and whom it believes. Times in seconds, sizes in bytes."""

from __future__ import annotations

import msgspec


class Service(msgspec.Struct, frozen=True):
    """How the service listens, and what it puts up with; what each one means stands in ``SETTINGS``."""

    host: str = "127.0.0.1"
    port: int = 8420
    origins: tuple[str, ...] = ()
    body_bytes: int = 10_000_000
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    send_seconds: float = 20.0
    idle_seconds: float = 75.0
    stop_seconds: float = 4.0
    heartbeat: float = 15.0
    connections: int = 10_000
    streams: int = 100
    rate: int = 500
    burst: int = 1_000
    log: str = "info"


class Auth(msgspec.Struct, frozen=True):
    """Whom the service believes; what each one means stands in ``SETTINGS``."""

    issuer: str | None = None
    audience: str | None = None
    family: str = "RS"
    keys: str | None = None
    secret: str | None = None
    type: str = "at+jwt"
    leeway: float = 60.0
    lifetime: float = 86_400.0
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"
