"""How many engines of which kinds, read from words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from parrot_backend.sim.engine_choice import EngineChoice, calibrated, published
from parrot_backend.simulate.exits import UsageError

MAX_ENGINES = 10_000

_KIND = re.compile(r"([0-9]{1,9})x(.+)")

#: A kind whose name ends so is a file of ``parrot calibrate``.
_FILE_ENDING = ".json"

#: What all engines of a mixed fleet serve.
_MODEL = "model"


def is_mixed(word: str) -> bool:
    """Tell whether engines are given by kind: ``6xa100-7b,2xa6000-7b``."""
    return any(_KIND.fullmatch(part.strip()) for part in word.split(","))


def mixed_engines(word: str) -> tuple[EngineChoice, ...]:
    """Return the engines of a mixed fleet, one for each position.

    Args:
        word: Numbers and kinds; a kind is a published engine, or a calibration file.

    Raises:
        UsageError: A part is not of this form, or there are too many engines.
        EngineChoiceError: There is no such engine.
        CalibrationError: A file cannot be used.
    """
    engines: list[EngineChoice] = []
    for part in word.split(","):
        found = _KIND.fullmatch(part.strip())
        if found is None:
            raise UsageError(
                f"--engines: {part.strip()!r} beside kinds of engines must be NUMBERxENGINE, like "
                "2xa100-7b"
            )
        number, name = int(found[1]), found[2]
        if not number:
            raise UsageError(f"--engines: there must be at least 1 {name}, not 0")
        if len(engines) + number > MAX_ENGINES:
            raise UsageError(f"--engines: at most {MAX_ENGINES}, not {len(engines) + number}")
        choice = calibrated(Path(name)) if name.endswith(_FILE_ENDING) else published(name)
        # Jobs name no model: engines with one of their own name would get none.
        engines += [replace(choice, spec=replace(choice.spec, model=_MODEL))] * number
    return tuple(engines)


def numbers_of(word: str) -> tuple[list[int], bool]:
    """Return numbers of engines in rising order, and whether some are given as a range.

    Raises:
        UsageError: They are no numbers, or too many engines.
    """
    engines = set[int]()
    has_range = False
    for part in word.split(","):
        first, dash, last = part.strip().partition("-")
        if dash and first:
            has_range = True
            low, high = _whole(first), _whole(last)
            if high < low:
                raise UsageError(f"--engines: there is nothing from {low} to {high}")
        else:
            low = high = _whole(part)
        if high > MAX_ENGINES:
            raise UsageError(f"--engines: at most {MAX_ENGINES}, not {high}")
        engines.update(range(low, high + 1))
    return sorted(engines), has_range


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(
            "--engines must be whole numbers like 4, 1,2,4 or 1-16, or kinds like "
            f"6xa100-7b,2xa6000-7b, not {word!r}"
        ) from None
