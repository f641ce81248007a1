"""What a user asks of a value when getting it.

``LATENCY`` and ``THROUGHPUT`` are the criteria of the paper; ``Criteria(deadline_s=..., ttft_s=...,
tpot_s=...)`` states targets in seconds, which make the value latency-sensitive.
"""

from __future__ import annotations

from parrot_backend.protocol import WireCriteria

#: Criteria with targets.
Criteria = WireCriteria
#: The user waits for this value: as soon as possible.
LATENCY = WireCriteria(kind="latency")
#: Nobody waits for this value alone: as many as possible.
THROUGHPUT = WireCriteria(kind="throughput")


def adds_nothing(told: WireCriteria | None, asked: WireCriteria) -> bool:
    """Tell whether the server, knowing ``told``, would do nothing else for ``asked``.

    The server keeps the stronger of two wishes: latency over throughput, and every target.
    """
    if told is None or (asked.kind == "latency" and told.kind == "throughput"):
        return False
    targets = asked.model_dump(exclude={"kind"}, exclude_none=True)
    known = told.model_dump()
    return all(known[name] == target for name, target in targets.items())
