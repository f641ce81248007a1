"""The core's commands as requests of engines. Pure."""

from __future__ import annotations

from parrot_backend.core.commands import FillPrefix, StageRequest, StartRequest
from parrot_backend.core.criteria import UNANNOTATED
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineRequest

#: Requests of tenants other than this one get a salt that keeps prefix caches apart.
DEFAULT_TENANT = "default"


def engine_request(command: StartRequest) -> EngineRequest:
    """Return an attempt that begins now."""
    return EngineRequest(
        attempt=command.attempt,
        session=command.session,
        model=command.model,
        parts=command.parts,
        sampling=command.sampling,
        objective=command.objective,
        cache_salt=_cache_salt(command.tenant),
        tenant=command.tenant,
        remaining=command.remaining,
        prefixes=command.prefixes,
        beginnings=command.beginnings,
        retain=command.retain,
        chat=command.chat,
        quiet=command.quiet,
    )


def fill_request(command: FillPrefix) -> EngineRequest:
    """Return a fill of leading parts."""
    return EngineRequest(
        attempt=command.attempt,
        session=command.session,
        model=command.model,
        parts=command.parts,
        sampling=Sampling(max_tokens=1),
        objective=UNANNOTATED,
        cache_salt=_cache_salt(command.tenant),
        tenant=command.tenant,
        prefixes=command.prefixes,
        retain=command.retain,
        chat=command.chat,
        fill_parts=command.num_known,
    )


def staged_request(command: StageRequest) -> EngineRequest:
    """Return an attempt that waits within the engine."""
    return EngineRequest(
        attempt=command.attempt,
        session=command.session,
        model=command.model,
        parts=command.parts,
        sampling=command.sampling,
        objective=command.objective,
        cache_salt=_cache_salt(command.tenant),
        tenant=command.tenant,
        remaining=command.remaining,
        after=command.after,
        gap=command.gap,
        max_gap_tokens=command.max_gap_tokens,
        chat=command.chat,
        quiet=command.quiet,
    )


def _cache_salt(tenant: str) -> str | None:
    return None if tenant == DEFAULT_TENANT else tenant
