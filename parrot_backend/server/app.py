"""The ASGI application: ``create_app`` puts the service, the routes and the middleware together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from parrot_backend import __version__
from parrot_backend.server.authentication import Authentication
from parrot_backend.server.body_limit import BodyLimit
from parrot_backend.server.clock import Clock, MonotonicClock
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.error_handlers import InternalErrors, install_error_handlers
from parrot_backend.server.key_book import KeyBook
from parrot_backend.server.openai.placing import CallPlacer
from parrot_backend.server.routes import create_router
from parrot_backend.server.service import Service
from parrot_backend.server.supervisor import EngineSlot


def create_app(
    settings: ServerSettings, slots: Sequence[EngineSlot], clock: Clock | None = None
) -> FastAPI:
    """Return an application with a server of its own, at ``app.state.service``.

    Its lifespan opens the engines in the background, so ``/health`` answers at once and ``/ready``
    when the first engine has joined; at the end it drains and closes them.

    Raises:
        KeyFileError: What should be the file of API keys is none.
        OSError: That file cannot be read, or the recording that was asked for cannot be made.
    """
    keys = None if settings.api_keys is None else KeyBook(settings.api_keys)
    service = Service(settings, slots, clock or MonotonicClock())
    app = FastAPI(title="Parrot", version=__version__, lifespan=_lifespan)
    app.state.service = service
    app.state.placer = CallPlacer(service, discovers=settings.discovery)
    app.include_router(create_router())
    install_error_handlers(app, service.metrics)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, metrics=service.metrics)
    if keys is not None:
        app.add_middleware(Authentication, keys=keys, metrics=service.metrics)
    app.add_middleware(InternalErrors, metrics=service.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.start()
    try:
        yield
    finally:
        await service.stop()
