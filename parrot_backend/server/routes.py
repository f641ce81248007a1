"""All routes of the server, and what they share: the service, replies, and reading JSON.

Routes parse, call the service and serialise; they decide nothing. Replies are serialised once, by
pydantic, straight into the response; ``response_model`` is there for the OpenAPI schema.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from parrot_backend import protocol as wire
from parrot_backend.metrics.prometheus import CONTENT_TYPE
from parrot_backend.server.http_io import (
    ERROR_REPLIES,
    ServiceDependency,
    StrictJsonRoute,
    json_reply,
)
from parrot_backend.server.openai.routes import router as openai_router
from parrot_backend.server.routes_sessions import router as sessions_router
from parrot_backend.server.routes_variables import router as variables_router
from parrot_backend.server.views import engines_to_views

_operations = APIRouter(responses=ERROR_REPLIES, tags=["operations"])


def create_router() -> APIRouter:
    """Return all routes."""
    router = APIRouter(route_class=StrictJsonRoute)
    router.include_router(sessions_router, prefix="/v1")
    router.include_router(variables_router, prefix="/v1")
    router.include_router(_operations)
    router.include_router(openai_router, prefix="/v1")
    return router


@_operations.get("/health")
async def health() -> dict[str, str]:
    """Answer as long as the server lives."""
    return {"status": "ok"}


@_operations.get("/ready")
async def ready(service: ServiceDependency) -> dict[str, str]:
    """Answer 200 when an engine serves and new work is taken, 503 otherwise."""
    service.check_ready()
    return {"status": "ready"}


@_operations.get("/v1/engines", response_model=wire.EngineList)
async def engines(service: ServiceDependency) -> Response:
    """Return the live engines, with what they have learnt of themselves."""
    states = service.coordinator.engines.values()
    views = engines_to_views(states, service.call_overheads.of, service.supervisor.loads())
    return json_reply(views)


@_operations.get("/metrics", response_class=Response)
async def metrics(service: ServiceDependency) -> Response:
    """Return all metrics for Prometheus."""
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
