"""What annotating keeps within bounds: beginnings told, work for choices, what is left."""

from __future__ import annotations

import random
import string
from dataclasses import replace

import pytest

from parrot_backend.core.discovery import matching, text_book
from parrot_backend.core.discovery.run_book import RunBook
from parrot_backend.core.events import Wanted
from parrot_backend.core.ids import NodeId, SessionId, VariableId
from tests.core.test_annotating import _BIG, _RUN, _UNSTATED, ask, chat, requests
from tests.helpers.builders import make_submission, var
from tests.helpers.compiled import needs_python
from tests.helpers.core_driver import CoreDriver


def _words(seed: int, num_chars: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=num_chars))


def test_of_many_beginnings_the_longest_are_told() -> None:
    driver, values = CoreDriver(_BIG), [_words(seed, 100) for seed in range(40)]
    for number, value in enumerate(values):
        ask(driver, f"v{number}", ["Say it."])
        driver.finish(f"v{number}", value)
    last = ask(driver, "last", ["You sum up.", " and ".join(values)])

    assert len(last.beginnings) == 32
    lengths = [beginning.boundary.tokens for beginning in last.beginnings]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 0.95 * last.prefixes[-1].tokens


def test_choices_of_one_prompt_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_python("functions cannot be replaced")
    looked: list[str] = []
    real = matching.find_matches

    def find_matches(prompt: str, *rest: object) -> object:
        looked.append(prompt)
        return real(prompt, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(text_book, "find_matches", find_matches)
    driver, value = CoreDriver(_BIG), _words(0, 300)
    ask(driver, "first", ["Say it."])
    driver.finish("first", value)
    looked.clear()
    prompt = f"Look: {value} What now?"
    names = [f"choice{number}" for number in range(8)]
    event = make_submission(
        *(chat(name, ["You look.", prompt], _RUN) for name in names),
        is_new=False,
        wanted=[Wanted(var(name), _UNSTATED) for name in names],
    )
    driver.send(replace(event, discovers=True))

    assert looked.count(prompt) == 1
    made = [requests(driver)[name] for name in names]
    assert all(one.found is not None and one.found.reads == (var("first"),) for one in made)
    assert made[0].beginnings
    assert all(one.beginnings == made[0].beginnings for one in made)


def test_a_session_that_has_ended_is_not_forgotten_again_for_room() -> None:
    book = RunBook(max_chars=1000)
    for number in range(5):
        session = SessionId(f"s{number}")
        for call in range(2):
            node = NodeId(f"{session}.{call}")
            book.begin(session, node, [_words(10 * number + call, 400)])
            book.end(session, node, VariableId(f"{session}.v{call}"), "ok")
        if number % 2:
            book.forget(session)
    assert book.num_chars <= 1000
