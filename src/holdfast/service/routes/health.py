"""Whether the service is alive and ready, and its figures."""

from __future__ import annotations

import msgspec
from fastapi import Request
from starlette.responses import Response

from holdfast.errors import PermissionDeniedError, StoppingError, UnavailableError
from holdfast.model.access import SERVICE_VERBS
from holdfast.service import answers
from holdfast.service.examples import METRICS
from holdfast.service.problems import version
from holdfast.service.routing import EVERY, OPEN, Routes
from holdfast.service.service import Who, service_of

routes = Routes("health", prefix="")

_ANYBODY = ("invalid-request", "request-too-large", "request-timeout", "service")
_OK = {"type": "object", "properties": {"status": {"type": "string"}}}
_SHOWN = {"status": "ok"}
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Health(msgspec.Struct, frozen=True):
    """Whether each part answers: ``ok``, or the code of the error."""

    status: str
    version: str
    tiers: dict[str, str]


@routes("GET", "/health/live", OPEN, answers=_OK, shows=_SHOWN, errors=_ANYBODY)
async def live() -> Response:
    """The process runs."""
    return answers.answer({"status": "ok"})


@routes("GET", "/health/ready", OPEN, answers=_OK, shows=_SHOWN, errors=(*_ANYBODY, "stopping", "unavailable"))
async def ready(request: Request) -> Response:
    """The service takes requests: 503 before it has opened and has the issuer's keys, and once it is told to stop."""
    service = service_of(request)
    if not service.is_open:
        raise StoppingError
    if not service.authenticator.is_ready:
        raise UnavailableError("The keys of the issuer cannot be had just now; try again.")
    return answers.answer({"status": "ok"})


@routes("GET", "/health", "whoami", answers=Health, errors=EVERY)
async def health(request: Request, who: Who) -> Response:
    """Each tier asked whether it answers."""
    tiers = await service_of(request).engine.health()
    status = "ok" if all(said == "ok" for said in tiers.values()) else "degraded"
    return answers.answer(Health(status, version(), tiers))


@routes(
    "GET",
    "/metrics",
    "metrics",
    answers={"type": "string"},
    shows=METRICS,
    content="text/plain",
    errors=(*EVERY, "permission-denied"),
)
async def metrics(request: Request, who: Who) -> Response:
    """The figures, for Prometheus; for operators."""
    if not who.roles & SERVICE_VERBS["metrics"]:
        raise PermissionDeniedError(who.id, "metrics", SERVICE_VERBS["metrics"])
    return Response(await service_of(request).meters.render(), media_type=_TEXT)
