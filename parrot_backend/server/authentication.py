"""ASGI middleware that finds out whose a request is, and refuses those of nobody.

It stands before everything that reads a body. Where it does not stand, all requests are one
tenant's.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from parrot_backend.errors import RequestError
from parrot_backend.metrics.prometheus import PrometheusMetrics
from parrot_backend.server.body_limit import discard_body
from parrot_backend.server.engine_requests import DEFAULT_TENANT
from parrot_backend.server.error_handlers import error_response
from parrot_backend.server.key_book import KeyBook

#: What probes and Prometheus ask; nothing of any tenant is told there. All else needs a key, paths
#: that do not exist as well.
OPEN_PATHS = frozenset(("/health", "/ready", "/metrics"))

_TENANT = "parrot.tenant"


class Authentication:
    """Middleware.

    Args:
        app: What comes next.
        keys: Who is let through.
        metrics: Counts the refusals.
    """

    def __init__(self, app: ASGIApp, keys: KeyBook, metrics: PrometheusMetrics) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on with its tenant."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        key = _bearer_of(scope)
        tenant = None if key is None else self._keys.tenant_of(key)
        if tenant is None:
            await self._refuse(scope, receive, send)
            return
        await self._app({**scope, _TENANT: tenant}, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Missing, wrong and revoked keys have one answer, which tells nothing of any.
        error = RequestError(
            "invalid_api_key", "send a key of this server: Authorization: Bearer KEY"
        )
        self._metrics.count_error(error.code)
        await discard_body(receive)
        reply = error_response(error, scope["path"], {"WWW-Authenticate": "Bearer"})
        await reply(scope, receive, send)


def tenant_of(request: Request) -> str:
    """Return whose a request is."""
    tenant: str = request.scope.get(_TENANT, DEFAULT_TENANT)
    return tenant


def _bearer_of(scope: Scope) -> str | None:
    """Return the key that a request was sent with, None if there is not exactly one."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, key = given[0].decode("latin-1").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None
