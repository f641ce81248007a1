"""Parameters of routes that name a session or a variable: those of others are not there.

A route that takes its ids from here cannot show or change what is another tenant's: such an id is
answered as one that never was.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from parrot_backend.core.ids import SessionId, VariableId, session_of
from parrot_backend.server.authentication import tenant_of
from parrot_backend.server.service import Service


async def _tenant(request: Request) -> str:
    return tenant_of(request)


async def _own_session(session_id: str, request: Request) -> SessionId:
    """Return the id of a session of the caller's.

    Raises:
        RequestError: ``unknown_session``.
    """
    service: Service = request.app.state.service
    return service.coordinator.session(SessionId(session_id), tenant_of(request)).id


async def _own_variable(variable_id: str, request: Request) -> VariableId:
    """Return the id of a variable whose session is the caller's.

    Raises:
        RequestError: ``unknown_session``.
    """
    service: Service = request.app.state.service
    variable = VariableId(variable_id)
    service.coordinator.session(session_of(variable), tenant_of(request))
    return variable


Tenant = Annotated[str, Depends(_tenant)]
OwnSession = Annotated[SessionId, Depends(_own_session)]
OwnVariable = Annotated[VariableId, Depends(_own_variable)]
