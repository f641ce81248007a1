"""Parrot's native front end: programs built on LLMs, with semantic variables as futures.

A semantic function is a prompt with typed places; calling it records a call and returns futures.
The first ``get`` sends the whole graph to the server in one request, so that the server can
schedule the program instead of single calls. Importing this package needs no server and no engine.

    import parrot_integrations as P

    @P.SemanticFunction
    def Summarise(text: P.SemanticVariable):
        \"\"\"Summarise in one sentence: {{input:text}}
        Summary: {{output:summary}}\"\"\"

    print(Summarise("...").get(perf=P.LATENCY))

The server is found by ``PARROT_BASE_URL`` (and ``PARROT_API_KEY``), or given to ``program``.
"""

from parrot_backend.protocol import Sampling, Usage
from parrot_integrations._program import Program
from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.client import ParrotClient
from parrot_integrations.criteria import LATENCY, THROUGHPUT, UNSTATED, Criteria
from parrot_integrations.errors import (
    ConnectionFailed,
    NotConfigured,
    ParrotError,
    ProgramError,
    RequestRejected,
    Saturated,
    ServerFailed,
    StreamRestarted,
    ValueCancelled,
    ValueFailed,
    WaitTimeout,
)
from parrot_integrations.functions import SemanticFunction, TemplateFunction
from parrot_integrations.gathering import aget_all, get_all
from parrot_integrations.scope import current_program, program, reset
from parrot_integrations.settings import ClientSettings
from parrot_integrations.transforms import format, join
from parrot_integrations.variable import SemanticVariable

__all__ = [
    "LATENCY",
    "THROUGHPUT",
    "UNSTATED",
    "AsyncParrotClient",
    "ClientSettings",
    "ConnectionFailed",
    "Criteria",
    "NotConfigured",
    "ParrotClient",
    "ParrotError",
    "Program",
    "ProgramError",
    "RequestRejected",
    "Sampling",
    "Saturated",
    "SemanticFunction",
    "SemanticVariable",
    "ServerFailed",
    "StreamRestarted",
    "TemplateFunction",
    "Usage",
    "ValueCancelled",
    "ValueFailed",
    "WaitTimeout",
    "aget_all",
    "current_program",
    "format",
    "get_all",
    "join",
    "program",
    "reset",
]
