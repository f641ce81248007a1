"""What callers tell Parrot beside OpenAI's fields: application, session, stage, urgency. Pure.

Hints stand in the body (``extra_body={"parrot": {...}}``) or in headers, ``x-parrot-session`` and
so on; the body wins. Headers may hold ASCII only, and bodies anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict, Field

from parrot_backend import protocol as wire
from parrot_backend.protocol import MAX_NAME_CHARS
from parrot_backend.server.openai.base import OpenAIModel, bad_field

_HEADER_PREFIX = "x-parrot-"
_MAX_LABEL_CHARS = 1024

_UNSTATED = wire.WireCriteria()

PerfWord = Literal["latency", "throughput"]


class Targets(OpenAIModel):
    """Urgency in seconds; any of them makes a call latency-sensitive."""

    deadline_s: float | None = Field(default=None, gt=0)
    ttft_s: float | None = Field(default=None, gt=0)
    tpot_s: float | None = Field(default=None, gt=0)


class ParrotHints(OpenAIModel):
    """The field ``parrot`` of a request; the words are those of ``parrot_session``."""

    model_config = ConfigDict(title="parrot")

    app: str | None = Field(default=None, max_length=MAX_NAME_CHARS)
    session: str | None = Field(default=None, max_length=_MAX_LABEL_CHARS)
    stage: str | None = Field(default=None, max_length=_MAX_LABEL_CHARS)
    perf: PerfWord | Targets | None = None
    metadata: dict[str, wire.Scalar] = Field(default_factory=dict, max_length=60)


@dataclass(frozen=True, slots=True)
class Hints:
    """All that is known of a call beside the call.

    Attributes:
        app: Name of the application.
        session: What belongs together, as the caller names it.
        stage: Which part of the program this is.
        user: OpenAI's field of that name.
        criteria: How urgent it is.
        metadata: Further labels.
    """

    app: str = ""
    session: str | None = None
    stage: str | None = None
    user: str | None = None
    criteria: wire.WireCriteria = _UNSTATED
    metadata: Mapping[str, wire.Scalar] = field(default_factory=dict)

    def labels(self) -> dict[str, wire.Scalar]:
        """Return the labels of the session that the server keeps."""
        named = {"session": self.session, "stage": self.stage, "user": self.user}
        return {**{k: v for k, v in named.items() if v is not None}, **self.metadata}


_NO_HINTS = Hints()


def hints_of(
    given: ParrotHints | None,
    headers: Mapping[str, str],
    *,
    user: str | None = None,
    session_id: str | None = None,
) -> Hints:
    """Return the hints of a request.

    Args:
        given: Those in its body.
        headers: All headers, with names in lower case.
        user: OpenAI's field.
        session_id: vLLM's field.

    Raises:
        RequestError: ``invalid_request``: a header is too long or has an unknown value.
    """
    told = {
        name: value
        for name in ("app", "session", "stage", "perf")
        if (value := headers.get(_HEADER_PREFIX + name)) is not None
    }
    if given is None and not told:
        if user is None and session_id is None:
            return _NO_HINTS
        return Hints(session=session_id, user=user)
    body = given or ParrotHints()
    for name, value in told.items():
        if len(value) > (MAX_NAME_CHARS if name == "app" else _MAX_LABEL_CHARS):
            raise bad_field(_HEADER_PREFIX + name, f"the header {_HEADER_PREFIX}{name} is too long")
    return Hints(
        app=body.app or told.get("app", ""),
        session=body.session or told.get("session") or session_id,
        stage=body.stage or told.get("stage"),
        user=user,
        criteria=_criteria(body.perf if body.perf is not None else told.get("perf")),
        metadata=body.metadata,
    )


def _criteria(perf: str | Targets | None) -> wire.WireCriteria:
    if perf is None:
        return _UNSTATED
    if perf == "latency":
        return wire.WireCriteria(kind="latency")
    if perf == "throughput":
        return wire.WireCriteria(kind="throughput")
    if isinstance(perf, Targets):
        return wire.WireCriteria(deadline_s=perf.deadline_s, ttft_s=perf.ttft_s, tpot_s=perf.tpot_s)
    header = f"{_HEADER_PREFIX}perf"
    raise bad_field(header, f"the header {header} is 'latency' or 'throughput', not {perf!r}")
