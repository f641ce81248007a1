"""Hints that a request carries: what they are, and how they are read from untrusted values.

They arrive in ``SamplingParams.extra_args["parrot"]`` as a dict, or as JSON. A hint only changes
when and where something is computed, never the result, so a malformed field is ignored and
reported, and the request is served with the fields that are sound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from parrot_backend.core.request_class import RequestClass as RequestClass

#: A request with more boundaries is taken for one without any.
MAX_PREFIXES = 1024

_V = TypeVar("_V")

# An attempt's name holds the names of its session and its call.
_MAX_TEXT_CHARS = 1024
_MAX_SHOWN_CHARS = 80
_MAX_JSON_CHARS = 2**16
_MAX_UNKNOWN_REPORTED = 8
# Decades. A bound refuses infinity, NaN and integers too large for a float all at once.
_MAX_S = 1e9
# JSON can spell them, and msgpack, in which reports are told, cannot.
_SURROGATES = re.compile("[\ud800-\udfff]")


_CLASSES = {request_class.name.lower(): request_class for request_class in RequestClass}


@dataclass(frozen=True, slots=True)
class PrefixHint:
    """One boundary of the prompt.

    Attributes:
        key: Names the text before the boundary: the same key means the same prefix, on any request.
        tokens: Length of that text.
    """

    key: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Hints:
    """What the application says of one request.

    Attributes:
        name: The caller's name of the request, by which its hints are changed later.
        deadline_s: When it should be done, on the engine's clock.
        tpot_s: Target time per output token.
        group: Task group that it belongs to.
        path_length: Longest remaining path through the application after it, in requests.
        prefix_group: Requests with an equal one share a prefix of the prompt.
        tenant: Whose request it is.
        prefixes: Boundaries of the prompt, shortest first.
        retain: Keys of ``prefixes`` whose KV is to be kept for requests to come.
        after: Name of a request whose output goes into the prompt of this one, which waits for it.
        gap_at: After how many tokens of the prompt it goes there.
    """

    request_class: RequestClass = RequestClass.THROUGHPUT
    name: str | None = None
    deadline_s: float | None = None
    tpot_s: float | None = None
    group: str | None = None
    path_length: int = 0
    prefix_group: str | None = None
    tenant: str = ""
    prefixes: tuple[PrefixHint, ...] = ()
    retain: frozenset[str] = frozenset()
    after: str | None = None
    gap_at: int = 0


class ParsedHints(NamedTuple):
    """The hints that could be read, and what was wrong with the rest, one text per problem."""

    hints: Hints | None
    problems: tuple[str, ...]


def parse_hints(raw: object, now_s: float) -> ParsedHints:
    """Read the hints of a new request; it never raises.

    Args:
        raw: What the request carries; None if it carries no hints. A text is taken for JSON,
            because vLLM's HTTP server takes no dict here.
        now_s: The engine's clock, from which a slack counts.

    Returns:
        The hints, or None if there are none or if they are not a dict.
    """
    fields = _decoded(raw)
    if not isinstance(fields, dict):
        return ParsedHints(None, _problems_of_no_dict(fields))
    return changed_hints(Hints(), fields, now_s)


def changed_hints(hints: Hints, raw: object, now_s: float) -> ParsedHints:
    """Replace the given fields; it never raises.

    An explicit None removes a slack, a target, a group or a prefix group.

    Args:
        hints: The hints so far.
        raw: The fields to replace, as in ``parse_hints``.
        now_s: The engine's clock, from which a slack counts.
    """
    if not isinstance(raw, dict):
        return ParsedHints(hints, _problems_of_no_dict(raw))
    fields = _Fields(raw)
    prefixes = fields.read("prefixes", _prefixes, hints.prefixes)
    changed = Hints(
        request_class=fields.read("class", _request_class, hints.request_class),
        name=fields.read("name", _text, hints.name),
        deadline_s=fields.read("slack_s", _optional(_deadline_after(now_s)), hints.deadline_s),
        tpot_s=fields.read("tpot_s", _optional(_duration), hints.tpot_s),
        group=fields.read("group", _optional(_text), hints.group),
        path_length=fields.read("path_length", _count, hints.path_length),
        prefix_group=fields.read("prefix_group", _optional(_text), hints.prefix_group),
        tenant=fields.read("tenant", _text, hints.tenant),
        prefixes=prefixes,
        retain=fields.known_keys("retain", fields.read("retain", _keys, hints.retain), prefixes),
        after=fields.read("after", _optional(_text), hints.after),
        gap_at=fields.read("gap_at", _count, hints.gap_at),
    )
    return ParsedHints(changed, fields.all_problems())


class _MalformedError(ValueError):
    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {_shown(value)}")


class _Fields:
    """The fields of one dict, and what was found wrong with them while they were read."""

    def __init__(self, raw: dict[object, object]) -> None:
        self._raw = raw
        self._known: set[object] = set()
        self._problems: list[str] = []

    def read(self, field: str, parse: Callable[[object], _V], default: _V) -> _V:
        """Return the parsed field, or the default if it is absent or malformed."""
        self._known.add(field)
        if field not in self._raw:
            return default
        try:
            return parse(self._raw[field])
        except _MalformedError as error:
            self._problems.append(f"{field}: {error}")
            return default

    def known_keys(
        self, field: str, keys: frozenset[str], prefixes: tuple[PrefixHint, ...]
    ) -> frozenset[str]:
        """Return the keys that name a prefix; others are one problem of the field."""
        known = keys & {prefix.key for prefix in prefixes}
        if known != keys:
            stray = _shown(min(keys - known))
            self._problems.append(f"{field}: expected keys of prefixes, got {stray}")
        return known

    def all_problems(self) -> tuple[str, ...]:
        """Return what was wrong, with the first of the fields that nobody knows."""
        unknown = [key for key in self._raw if key not in self._known]
        shown = unknown[:_MAX_UNKNOWN_REPORTED]
        return (*self._problems, *(f"{_shown(key)}: unknown field" for key in shown))


def _decoded(raw: object) -> object:
    if not isinstance(raw, str) or len(raw) > _MAX_JSON_CHARS:
        return raw
    try:
        decoded: object = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    return decoded


def _problems_of_no_dict(raw: object) -> tuple[str, ...]:
    return () if raw is None else (f"hints: expected a dict, got {_shown(raw)}",)


def _shown(value: object) -> str:
    """Return a short text for a report; nothing here can be slow, long, or fail."""
    if type(value) is str:
        return repr(value[:_MAX_SHOWN_CHARS])[:_MAX_SHOWN_CHARS]
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int and abs(value) < _MAX_S:
        return repr(value)
    return type(value).__name__[:_MAX_SHOWN_CHARS]


def _optional(parse: Callable[[object], _V]) -> Callable[[object], _V | None]:
    return lambda value: None if value is None else parse(value)


def _request_class(value: object) -> RequestClass:
    request_class = _CLASSES.get(value) if isinstance(value, str) else None
    if request_class is None:
        raise _MalformedError(f"one of {', '.join(_CLASSES)}", value)
    return request_class


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARS or _SURROGATES.search(value):
        raise _MalformedError(f"a text of at most {_MAX_TEXT_CHARS} characters", value)
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _MalformedError("a number of seconds", value)
    if not -_MAX_S <= value <= _MAX_S:
        raise _MalformedError(f"at most {_MAX_S:.0e} seconds either way", value)
    return float(value)


def _duration(value: object) -> float:
    duration_s = _seconds(value)
    if duration_s < 0:
        raise _MalformedError("a duration of at least 0 seconds", value)
    return duration_s


def _deadline_after(now_s: float) -> Callable[[object], float]:
    return lambda slack_s: now_s + _seconds(slack_s)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _MalformedError("an integer of at least 0", value)
    return value


def _sequence(value: object) -> list[object] | tuple[object, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_PREFIXES:
        raise _MalformedError(f"a list of at most {MAX_PREFIXES} entries", value)
    return value


def _prefixes(value: object) -> tuple[PrefixHint, ...]:
    prefixes: list[PrefixHint] = []
    shortest_tokens = 1
    for pair in _sequence(value):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _MalformedError("pairs of key and tokens", pair)
        prefix = PrefixHint(_text(pair[0]), _count(pair[1]))
        if prefix.tokens < shortest_tokens:
            raise _MalformedError(f"at least {shortest_tokens} tokens in this place", prefix.tokens)
        shortest_tokens = prefix.tokens
        prefixes.append(prefix)
    return tuple(prefixes)


def _keys(value: object) -> frozenset[str]:
    return frozenset(_text(key) for key in _sequence(value))
