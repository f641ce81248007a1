"""Attempts of requests: their names, and the commands that begin them."""

from __future__ import annotations

from parrot_backend.core.commands import StartRequest
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request


def prefix_seed(request: Request) -> str:
    """Return what keeps prefixes apart that must not be shared: tenant, model, and tools.

    Templates put tools at the front, and may put their further arguments anywhere.
    """
    owner = f"{len(request.tenant)}:{request.tenant}/{request.model or ''}"
    in_prompt = request.chat.prompt_text
    return f"{len(owner)}:{owner}{in_prompt}" if in_prompt else owner


def next_attempt(request: Request) -> AttemptId:
    """Return the id of the attempt that comes next."""
    return AttemptId(f"{request.id}~{request.attempts + 1}")


def start_command(
    request: Request,
    attempt: AttemptId,
    engine: EngineId,
    retained: tuple[bytes, ...],
    reason: str,
) -> StartRequest:
    """Return the command that begins an attempt."""
    return StartRequest(
        engine=engine,
        attempt=attempt,
        node=request.id,
        session=request.session,
        tenant=request.tenant,
        model=request.model,
        parts=request.parts,
        sampling=request.sampling,
        objective=request.objective,
        remaining=request.remaining,
        prefixes=request.prefixes,
        beginnings=request.beginnings,
        retain=retained,
        reason=reason,
        chat=request.chat,
        quiet=request.quiet,
    )
