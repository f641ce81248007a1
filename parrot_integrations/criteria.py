"""What a user asks of a value when getting it.

``LATENCY`` and ``THROUGHPUT`` are the criteria of the paper; ``Criteria(deadline_s=..., ttft_s=...,
tpot_s=...)`` states targets in seconds, which make the value latency-sensitive. ``UNSTATED``, the
default, is served like latency, but an engine runs as many such calls together as it has room for.
"""

from __future__ import annotations

from parrot_backend.protocol import WireCriteria

#: Criteria with targets.
Criteria = WireCriteria
#: Nothing is said of this value.
UNSTATED = WireCriteria()
#: The user waits for this value, and for each of its tokens.
LATENCY = WireCriteria(kind="latency")
#: Nobody waits for this value alone: as many as possible.
THROUGHPUT = WireCriteria(kind="throughput")

_BY_URGENCY = ("latency", "unstated", "throughput")


def adds_nothing(told: WireCriteria | None, asked: WireCriteria) -> bool:
    """Tell whether the server, knowing ``told``, would do nothing else for ``asked``.

    The server keeps the stronger of two wishes: latency over what is unstated, that over
    throughput, and every target.
    """
    if told is None:
        return False
    known, targets = _targets(told), _targets(asked)
    # With a target, the server takes a value for one that latency was asked for.
    is_urgent = bool(known) or _BY_URGENCY.index(told.kind) <= _BY_URGENCY.index(asked.kind)
    return is_urgent and all(known.get(name) == target for name, target in targets.items())


def _targets(criteria: WireCriteria) -> dict[str, float]:
    return criteria.model_dump(exclude={"kind"}, exclude_none=True)
