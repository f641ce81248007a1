"""What is recorded of an environment decides whether it is complete, built upon, or emptied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from scripts.environments.record import (
    is_ready,
    read_record,
    reason_to_start_afresh,
    write_record,
)
from scripts.environments.table import Environment

Make = Callable[[Environment], None]


def test_what_was_completed_is_ready(wanted: Environment, make_folder: Make) -> None:
    assert read_record(wanted) == {}
    make_folder(wanted)
    assert not is_ready(read_record(wanted), wanted)
    write_record(wanted, "ready")
    assert is_ready(read_record(wanted), wanted)
    assert reason_to_start_afresh(read_record(wanted), wanted) is None


def test_what_lost_its_libraries_is_not_ready(wanted: Environment, make_folder: Make) -> None:
    make_folder(wanted)
    write_record(wanted, "ready")
    (wanted.folder / "lib" / "python3.11").rmdir()
    assert not is_ready(read_record(wanted), wanted)
    reason = reason_to_start_afresh(read_record(wanted), wanted)
    assert reason == "it is not an environment of Python 3.11"


@pytest.mark.parametrize("state", ["installing", "failed"])
def test_what_was_not_completed_is_not_ready(
    wanted: Environment, make_folder: Make, state: str
) -> None:
    make_folder(wanted)
    write_record(wanted, state)
    assert not is_ready(read_record(wanted), wanted)


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ({"root": "/elsewhere"}, "it was made for another folder"),
        ({"python": "3.10"}, "it was made for another Python"),
        ({"engine": "vllm"}, "it was made for another engine"),
        ({"requirements": ()}, "it was made for other requirements"),
        ({"alone": ("old==1",)}, "it was made for other requirements"),
        # pip brings these up to date.
        ({"fingerprint": "f1"}, None),
        ({"extras": ("framework",)}, None),
    ],
)
def test_what_was_made_for_something_else(
    wanted: Environment, make_folder: Make, then: dict[str, object], reason: str | None
) -> None:
    make_folder(wanted)
    record = replace(wanted, **then)  # type: ignore[arg-type]
    made = {**read_back(record), "state": "ready"}
    assert not is_ready(made, wanted)
    assert reason_to_start_afresh(made, wanted) == reason


def test_an_interrupted_set_up_starts_afresh(wanted: Environment, make_folder: Make) -> None:
    make_folder(wanted)
    write_record(wanted, "installing")
    reason = reason_to_start_afresh(read_record(wanted), wanted)
    assert reason == "the last set-up was interrupted"


def test_a_folder_of_another_python_is_emptied(wanted: Environment, make_folder: Make) -> None:
    make_folder(replace(wanted, python="3.12"))
    reason = reason_to_start_afresh({}, wanted)
    assert reason == "it is not an environment of Python 3.11"


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_spoilt_record_says_nothing(wanted: Environment, make_folder: Make, text: str) -> None:
    make_folder(wanted)
    wanted.record.write_text(text)
    assert read_record(wanted) == {}


def read_back(environment: Environment) -> dict[str, object]:
    """Return the fields as JSON gives them back."""
    fields = {name: getattr(environment, name) for name in environment.__slots__}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
