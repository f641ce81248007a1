"""What happens to engines while they are simulated, read from words. Pure.

``TIME:ENGINE[:DOWN_S]`` is a failure: from TIME on, for DOWN_S seconds or for good, the engine is
gone with all that it ran and held. ``ENGINE:FACTOR[:FROM_S-TO_S]`` is a straggler: its steps take
FACTOR times as long, always, from FROM_S on, or until TO_S. Engines are counted from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from parrot_backend.sim.spec import Fault
from parrot_backend.simulate.exits import UsageError

_FAIL, _STRAGGLER = "--fail", "--straggler"
#: Slower engines have stopped, which is infinity; numbers near the largest would overflow.
_MAX_FACTOR = 1e6
_MAX_DIGITS = 9
_FORMS = {_FAIL: "TIME:ENGINE[:DOWN_S]", _STRAGGLER: "ENGINE:FACTOR[:FROM_S-TO_S]"}


@dataclass(frozen=True, slots=True)
class _Span:
    """What an engine is, from one time on until another, in seconds; infinity for good.

    Attributes:
        option: Which option says so.
        word: As it was given.
        factor: How much slower its steps are; None while it is gone.
    """

    option: str
    word: str
    engine: int
    from_s: float
    to_s: float
    factor: float | None = None


def faults_of(
    fails: Sequence[str], stragglers: Sequence[str], fewest_engines: int
) -> tuple[Fault, ...]:
    """Return what happens to engines, in order of time.

    Args:
        fails: Failures.
        stragglers: Engines that are slow.
        fewest_engines: Of the settings to be simulated; each of them must have these engines.

    Raises:
        UsageError: A word is none of these forms, has a value that cannot be, or contradicts
            another.
    """
    outages = [_outage(word) for word in fails]
    slow = [_slowdown(word) for word in stragglers]
    for span in (*outages, *slow):
        if span.engine >= fewest_engines:
            have = f"{fewest_engines} engine{'' if fewest_engines == 1 else 's'}, counted from 0"
            raise _wrong(span, f"there is no engine {span.engine} in a setting with {have}")
    _check_apart(outages)
    _check_apart(slow)
    return tuple(sorted(_faults(outages, slow), key=_moment))


def _faults(outages: Sequence[_Span], slow: Sequence[_Span]) -> Iterable[Fault]:
    for gone in outages:
        yield Fault(gone.from_s, gone.engine, "lost")
        if gone.to_s < math.inf:
            yield Fault(gone.to_s, gone.engine, "joins")
            # It comes back as fast as new, unless it is slow at that time, too.
            for one in slow:
                if one.engine == gone.engine and one.from_s < gone.to_s < one.to_s:
                    yield Fault(gone.to_s, one.engine, "slow", one.factor or 1.0)
    for one in slow:
        yield Fault(one.from_s, one.engine, "slow", one.factor or 1.0)
        if one.to_s < math.inf:
            yield Fault(one.to_s, one.engine, "slow", 1.0)


def _moment(fault: Fault) -> tuple[float, int, int]:
    """At one moment what ends goes before what begins, and an engine joins before it is slow."""
    order = {"joins": 0, "slow": 1 + (fault.factor != 1.0), "lost": 3}
    return fault.time_s, order[fault.kind], fault.engine


def _outage(word: str) -> _Span:
    time, engine, *rest = _parts(_FAIL, word)
    from_s = _seconds(_FAIL, word, time)
    down_s = math.inf if not rest else _seconds(_FAIL, word, rest[0])
    if not from_s + down_s > from_s:
        raise _bad(_FAIL, word, "the engine must be gone for longer than 0 s")
    return _Span(_FAIL, word, _engine(_FAIL, word, engine), from_s, from_s + down_s)


def _slowdown(word: str) -> _Span:
    engine, factor_word, *rest = _parts(_STRAGGLER, word)
    factor = _number(_STRAGGLER, word, factor_word)
    if not (1.0 < factor <= _MAX_FACTOR or factor == math.inf):
        must = f"its factor must be above 1, and at most {_MAX_FACTOR:.0f} or inf"
        raise _bad(_STRAGGLER, word, f"a straggler is slower: {must}")
    from_s, to_s = 0.0, math.inf
    if rest:
        first, dash, last = rest[0].partition("-")
        from_s = _seconds(_STRAGGLER, word, first)
        to_s = _seconds(_STRAGGLER, word, last) if dash else math.inf
        if not from_s < to_s:
            raise _bad(_STRAGGLER, word, "it must begin before it ends")
    number = _engine(_STRAGGLER, word, engine)
    return _Span(_STRAGGLER, word, number, from_s, to_s, factor)


def _check_apart(spans: Sequence[_Span]) -> None:
    """Check that nothing is said twice of one engine at one time.

    Raises:
        UsageError: It is.
    """
    ordered = sorted(spans, key=lambda span: (span.engine, span.from_s))
    for one, other in pairwise(ordered):
        if one.engine == other.engine and other.from_s < one.to_s:
            raise _wrong(other, f"engine {one.engine} has {one.word} at that time already")


def _parts(option: str, word: str) -> list[str]:
    parts = word.split(":")
    if not 2 <= len(parts) <= 3:
        raise _bad(option, word, "these are not two or three parts")
    return parts


def _engine(option: str, word: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise _bad(option, word, f"an engine is a whole number from 0 on, not {text!r}")
    return int(text)


def _seconds(option: str, word: str, text: str) -> float:
    value = _number(option, word, text)
    if not 0.0 <= value < math.inf:
        raise _bad(option, word, f"a time is at least 0 s, and not without end: {text!r}")
    return value


def _number(option: str, word: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _bad(option, word, f"{text!r} is no number") from None


def _wrong(span: _Span, why: str) -> UsageError:
    return UsageError(f"{span.option} {span.word}: {why}")


def _bad(option: str, word: str, why: str) -> UsageError:
    return UsageError(f"{option} must be {_FORMS[option]}, not {word!r}: {why}")
