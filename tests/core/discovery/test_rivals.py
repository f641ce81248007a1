"""Versions of one text: the newest are followed, and no rival that is not seen is overlooked."""

from __future__ import annotations

import random
import string

import pytest

from parrot_backend.core.discovery.anchors import ANCHOR_CHARS, MAX_OCCURRENCES, AnchorIndex
from parrot_backend.core.discovery.budget import Budget
from parrot_backend.core.discovery.matching import Match
from parrot_backend.core.discovery.pieces import Reference
from parrot_backend.core.discovery.rivals import has_rival
from parrot_backend.core.discovery.structure import RunStructure
from parrot_backend.core.ids import VariableId


def _words(seed: int, num_chars: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=num_chars))


BASE = _words(0, 300)
#: As many others with all of the text as make its anchors crowded: in the same 32 characters.
CROWD = [f"{_words(n, 63)} {BASE} {_words(n + 50, 60)}" for n in range(1, 20)]


def _reads(values: list[str], prompt: str) -> list[int]:
    run = RunStructure()
    for number, value in enumerate(values):
        run.set_input(VariableId(str(number)), value)
    return [int(read) for read in run.begin([prompt]).reads]


@pytest.mark.parametrize("kind", ["same length", "few lines", "appended"])
def test_a_text_that_is_refined_keeps_its_edges_beyond_sixteen_versions(kind: str) -> None:
    rng, run = random.Random(1), RunStructure()
    lines = [_words(seed, 40) for seed in range(5)]
    for version in range(40):
        if kind == "same length":
            lines[2] = lines[2][:-2] + f"{version:02d}"
        elif kind == "few lines":
            lines[rng.randrange(5)] = _words(100 + version, 40)
        else:
            lines.append(_words(100 + version, 40))
        value = "\n".join(lines)
        call = run.begin(["Say it again."])
        run.end(call, VariableId(f"v{version}"), value)
        after = run.begin([f"Improve this:\n{value}\nReply with all of it."])
        assert after.reads == (f"v{version}",)
        run.end(after)


def test_a_whole_value_is_found_among_many_that_quote_it() -> None:
    assert _reads([*CROWD, BASE], f"Q: {BASE}.") == [len(CROWD)]


def test_the_same_but_for_white_space_is_a_rival_though_it_is_not_followed() -> None:
    assert _reads([BASE + " ", *CROWD, BASE], f"Q: {BASE}.") == []


@pytest.mark.parametrize("crowd", [CROWD[:3], CROWD], ids=["few", "many"])
def test_a_part_of_many_is_no_edge(crowd: list[str]) -> None:
    assert _reads(crowd, f"Q: {BASE}.") == []


AROUND = "Look: " + _words(1, 60)
PROMPT = AROUND + BASE + " \n " + _words(2, 60)
MATCH = Match(len(AROUND), len(AROUND) + len(BASE), 0, 0)


@pytest.mark.parametrize(
    ("text", "is_value", "is_rival"),
    [
        (BASE, True, True),
        ("\n" + BASE + "\n", True, True),
        (BASE[1:] + "!", True, False),
        # Of a text of an earlier prompt one letter more is enough ...
        (PROMPT[MATCH.start - 1 : MATCH.end] + "#", False, True),
        ("#" + PROMPT[MATCH.start : MATCH.end + 4] + "#", False, True),
        ("#" + BASE + "#", False, False),
        # ... and of a value if that is all of it; a part must have much more.
        (PROMPT[MATCH.start - 1 : MATCH.end], True, True),
        (PROMPT[MATCH.start : MATCH.end + 4], True, True),
        ("#" + PROMPT[MATCH.start : MATCH.end + 4] + "#", True, False),
        ("#" + PROMPT[MATCH.start - 49 : MATCH.end] + "#", True, True),
        ("#" + PROMPT[MATCH.start : MATCH.end + 49] + "#", True, True),
        ("#" + PROMPT[MATCH.start - 25 : MATCH.end + 28] + "#", True, True),
        ("#" + BASE + "#", True, False),
    ],
)
def test_rivals_of_a_whole_value(text: str, is_value: bool, is_rival: bool) -> None:
    assert has_rival(PROMPT, MATCH, [(text, is_value)], Budget.of([PROMPT])) is is_rival


def test_where_nothing_can_be_looked_at_there_may_be_a_rival() -> None:
    assert has_rival(PROMPT, MATCH, [("#" * 400, True)], Budget(0))
    assert not has_rival(PROMPT, MATCH, [("#" * 400, True)], Budget.of([PROMPT]))
    at_both_ends = Match(0, len(BASE), 0, 0)
    assert not has_rival(BASE, at_both_ends, [("#" + BASE, True)], Budget.of([BASE]))


def test_a_crowded_anchor_is_followed_to_the_newest_texts() -> None:
    index, anchor = AnchorIndex(), _words(5, ANCHOR_CHARS)
    texts = [anchor + f"{number:016d}" + anchor for number in range(MAX_OCCURRENCES + 4)]
    for number, text in enumerate(texts):
        index.add(number, text)
    assert index.is_crowded(anchor)
    newest = [packed >> 32 for packed in index.candidates(anchor)]
    assert newest == [len(texts) - 4 + each for each in range(4)]
    for number, text in list(enumerate(texts))[:-3]:
        index.remove(number, text)
    assert len(index.candidates(anchor)) == 3
    for number, text in list(enumerate(texts))[-3:]:
        index.remove(number, text)
    assert index.positions == {}


def test_many_versions_give_no_false_edge() -> None:
    """Prompts quote old and new versions, in part and in whole, with more around them."""
    rng, run = random.Random(2), RunStructure()
    versions: list[str] = []
    for number in range(60):
        lines = [_words(seed, 30) for seed in range(4)]
        lines[rng.randrange(4)] += f"{number:02d}"
        versions.append("\n".join(lines))
        call = run.begin(["Say it."])
        run.end(call, VariableId(f"v{number}"), versions[-1])
        quoted = rng.choice(versions)
        after = run.begin([f"Q:\n{quoted}\nGo on."])
        truth = {f"v{n}" for n, version in enumerate(versions) if version == quoted}
        assert set(after.reads) <= truth
        assert all(p.is_whole for p in after.pieces[0] if isinstance(p, Reference))
        run.end(after)
