"""How urgent a request is to an engine that orders and paces its own requests."""

from __future__ import annotations

from enum import IntEnum


class RequestClass(IntEnum):
    """What is wanted of a request, the most urgent first.

    Attributes:
        LATENCY: Somebody waits for it.
        TASK_GROUP: Member of a group whose completion as a group counts.
        THROUGHPUT: Nobody waits for it in particular.
        FILL: Prefill ahead of need, in spare capacity only.
    """

    LATENCY = 0
    TASK_GROUP = 1
    THROUGHPUT = 2
    FILL = 3
