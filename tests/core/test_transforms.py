"""The closed set of transforms: what each gives, what it refuses, and that nothing else escapes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend import closed_set
from parrot_backend.core import transforms as core_transforms
from parrot_backend.core.prompt import Input
from parrot_backend.core.transforms import (
    MAX_PATTERN_CHARS,
    Format,
    HtmlEscape,
    HtmlUnescape,
    JoinList,
    JsonField,
    JsonList,
    RegexGroup,
    Split,
    SplitLines,
    SplitList,
    Strip,
    Transform,
    TransformBudget,
    TransformError,
    apply_transforms,
    check_transform,
    check_transforms,
)
from parrot_backend.errors import RequestError
from tests.core.audit import audited_driver
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import (
    make_body,
    make_call,
    make_engine,
    make_map,
    make_transform,
    read,
    write,
)

APPLIED: list[tuple[str, tuple[Transform, ...], str, str]] = [
    ("nothing", (), " as it is ", " as it is "),
    ("strip", (Strip(),), " \t\n text \r\n", "text"),
    ("strip at the left", (Strip("left"),), " \u2003a ", "a "),
    ("strip at the right", (Strip("right"),), " a\n ", " a"),
    ("strip of white space only", (Strip(),), " \n", ""),
    ("strip keeps inner space", (Strip(),), " a  b ", "a  b"),
    ("html escape", (HtmlEscape(),), """<b "x">'&'""", "&lt;b &quot;x&quot;&gt;&#x27;&amp;&#x27;"),
    ("html unescape", (HtmlUnescape(),), "&lt;b&gt; &amp;amp; &#65; &eacute;", "<b> &amp; A é"),
    ("html both ways", (HtmlEscape(), HtmlUnescape()), "<&>\"'", "<&>\"'"),
    ("regex whole match", (RegexGroup("b+"),), "abbbc", "bbb"),
    ("regex group", (RegexGroup(r"(\w+)@(\w+)", 2),), "to: me@home now", "home"),
    ("regex first of several", (RegexGroup(r"\d"),), "a1b2", "1"),
    ("regex dot matches newline", (RegexGroup("<(.*)>", 1),), "x<a\nb>y", "a\nb"),
    (
        "regex of a fence",
        (RegexGroup("```py\n(.*?)```", 1),),
        "Sure:\n```py\nx = 1\n```",
        "x = 1\n",
    ),
    ("regex empty match", (RegexGroup("x*"),), "abc", ""),
    ("regex counts characters, not bytes", (RegexGroup("é(.)ü", 1),), "aé漢ü", "漢"),
    ("regex with inline flag", (RegexGroup("(?i)HELLO"),), "say hello", "hello"),
    ("json string", (JsonField("a"),), '{"a": "text"}', "text"),
    ("json nested", (JsonField("a.b"),), '{"a": {"b": "c"}}', "c"),
    ("json list index", (JsonField("items.1.title"),), '{"items": [{}, {"title": "T"}]}', "T"),
    ("json last of list", (JsonField("-1"),), '["a", "b"]', "b"),
    ("json top-level list", (JsonField("0"),), '["a"]', "a"),
    ("json number stays json", (JsonField("n"),), '{"n": 1.50}', "1.5"),
    ("json bool stays json", (JsonField("n"),), '{"n": true}', "true"),
    ("json null stays json", (JsonField("n"),), '{"n": null}', "null"),
    ("json object stays json", (JsonField("n"),), '{"n": {"é": [1, 2]}}', '{"é": [1, 2]}'),
    ("json key of digits in an object", (JsonField("1"),), '{"1": "one"}', "one"),
    ("json with white space round it", (JsonField("a"),), '\n {"a": "b"} \n', "b"),
    ("split first", (Split(",", 0),), "a,b,c", "a"),
    ("split last", (Split(",", -1),), "a,b,c", "c"),
    ("split keeps empty pieces", (Split(",", 1),), "a,,c", ""),
    ("split without separator", (Split("|", 0),), "abc", "abc"),
    ("split at a long separator", (Split("\n\n", 1),), "a\n\nb", "b"),
    ("format", (Format("[{}]"),), "x", "[x]"),
    ("format only the first braces", (Format("{} {}"),), "x", "x {}"),
    ("format does not interpret the value", (Format("<{}>"),), "{} {0} %s", "<{} {0} %s>"),
    ("in order", (Split(":", 1), Strip(), Format("({})")), "key: value ", "(value)"),
    ("order matters", (Format("({})"), Split(":", 1), Strip()), "key: value ", "value )"),
]


@pytest.mark.parametrize(
    ("transforms", "text", "expected"),
    [case[1:] for case in APPLIED],
    ids=[case[0] for case in APPLIED],
)
def test_transform_gives(transforms: tuple[Transform, ...], text: str, expected: str) -> None:
    assert apply_transforms(text, transforms) == expected


INAPPLICABLE: list[tuple[str, Transform, str]] = [
    ("regex without match", RegexGroup("x"), "abc"),
    ("regex group that took no part", RegexGroup("a|(b)", 1), "a"),
    ("json syntax", JsonField("a"), "{not json"),
    ("json empty text", JsonField("a"), ""),
    ("json missing key", JsonField("b"), '{"a": 1}'),
    ("json index out of range", JsonField("1"), "[0]"),
    ("json word into a list", JsonField("first"), "[0]"),
    ("json path into a string", JsonField("a.b"), '{"a": "text"}'),
    ("json path into a number", JsonField("a.b"), '{"a": 1}'),
    ("json path into null", JsonField("a.b"), '{"a": null}'),
    ("json nested too deeply", JsonField("a"), '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    ("json number of too many digits", JsonField("a"), '{"a": ' + "1" * 5000 + "}"),
    ("json index of too many digits", JsonField("1" * 5000), "[0]"),
    ("split piece too far right", Split(",", 2), "a,b"),
    ("split piece too far left", Split(",", -3), "a,b"),
]


@pytest.mark.parametrize(
    ("transform", "text"),
    [case[1:] for case in INAPPLICABLE],
    ids=[case[0] for case in INAPPLICABLE],
)
def test_transform_that_does_not_apply_says_so(transform: Transform, text: str) -> None:
    with pytest.raises(TransformError):
        apply_transforms(text, (transform,))


def test_first_transform_that_does_not_apply_ends_the_chain() -> None:
    with pytest.raises(TransformError, match="'x' does not match"):
        apply_transforms("abc", (RegexGroup("x"), JsonField("a")))


INVALID: list[tuple[str, Transform]] = [
    ("regex syntax", RegexGroup("(")),
    ("regex back reference, which RE2 has not", RegexGroup(r"(a)\1")),
    ("regex look-ahead, which RE2 has not", RegexGroup("a(?=b)")),
    ("regex too large when unrolled", RegexGroup("((a{100}){100}){100}")),
    ("regex group that is not there", RegexGroup("(a)", 2)),
    ("regex negative group", RegexGroup("(a)", -1)),
    ("regex too long", RegexGroup("a" * (MAX_PATTERN_CHARS + 1))),
    ("regex with half a surrogate pair", RegexGroup("\ud800")),
    ("split at nothing", Split("", 0)),
    ("format without braces", Format("x")),
    ("format of nothing", Format("")),
]


@pytest.mark.parametrize(
    "transform", [case[1] for case in INVALID], ids=[case[0] for case in INVALID]
)
def test_transform_that_can_never_work_is_refused(transform: Transform) -> None:
    with pytest.raises(RequestError) as caught:
        check_transform(transform)
    assert caught.value.code == "invalid_transform"


VALID: list[Transform] = [
    Strip(),
    HtmlEscape(),
    HtmlUnescape(),
    RegexGroup("(a)(b)", 2),
    RegexGroup("a" * MAX_PATTERN_CHARS),
    JsonField("a.0.b"),
    Split(",", -7),
    Format("{}"),
]


@pytest.mark.parametrize("transform", VALID, ids=repr)
def test_transform_that_may_work_is_taken(transform: Transform) -> None:
    check_transform(transform)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*b$", "(a?){30}a{30}$"])
def test_regex_takes_no_exponential_time(pattern: str) -> None:
    # A backtracking engine would not end within the time of any test.
    with pytest.raises(TransformError):
        apply_transforms("a" * 2000 + "!", (RegexGroup(pattern),))


_ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
_ANY_TRANSFORM = st.one_of(
    st.just(Strip()),
    st.just(HtmlEscape()),
    st.just(HtmlUnescape()),
    st.builds(
        RegexGroup, st.sampled_from([".", "(.)(x)?", r"\w+", "^$", "(?s).*", "[^a]"]), st.just(0)
    ),
    st.builds(JsonField, st.sampled_from(["a", "0", "a.b", "-1", ".", "a."])),
    st.builds(Split, st.text(min_size=1, max_size=2), st.integers(-3, 3)),
    st.builds(Format, _ANY_TEXT.map(lambda text: text + "{}")),
)


ODD: list[tuple[str, Transform, str]] = [
    ("character reference of too many digits", HtmlUnescape(), "&#" + "1" * 5000 + ";"),
    ("hexadecimal reference of many digits", HtmlUnescape(), "&#x" + "f" * 5000 + ";"),
    ("reference to half a surrogate pair", HtmlUnescape(), "&#xd800;"),
    ("half a surrogate pair from JSON", JsonField("a"), '{"a": "\\ud800"}'),
    ("regex on half a surrogate pair", RegexGroup("."), "\ud800"),
    ("split on half a surrogate pair", Split(",", 0), "\ud800"),
]


@pytest.mark.parametrize(
    ("transform", "text"), [case[1:] for case in ODD], ids=[case[0] for case in ODD]
)
def test_odd_value_gives_text_or_a_transform_error(transform: Transform, text: str) -> None:
    assert_gives_text_or_transform_error(text, (transform,))


@examples(200)
@given(text=_ANY_TEXT, transforms=st.lists(_ANY_TRANSFORM, max_size=4).map(tuple))
def test_whatever_the_value_a_chain_gives_text_or_a_transform_error(
    text: str, transforms: tuple[Transform, ...]
) -> None:
    assert_gives_text_or_transform_error(text, transforms)


def assert_gives_text_or_transform_error(text: str, transforms: tuple[Transform, ...]) -> None:
    try:
        result = apply_transforms(text, transforms)
    except TransformError:
        return
    assert isinstance(result, str)


@examples(100)
@given(st.text())
def test_unescape_undoes_escape(text: str) -> None:
    assert apply_transforms(text, (HtmlEscape(), HtmlUnescape())) == text


@pytest.mark.parametrize(
    ("transform", "text", "expected"),
    [
        (SplitLines(), "1. a\n\n - b\n(3) c: d\n 12:30 e", '["a", "b", "c: d", "12:30 e"]'),
        (SplitLines(), "", "[]"),
        (SplitList(";"), " a ;; b;", '["a", "b"]'),
        (JsonList(), 'Sure: ["a", 1, {"b": null}] done', '["a", "1", "{\\"b\\": null}"]'),
        (JsonList(), '[not json] ["ü"]', '["ü"]'),
        (JoinList("\n", "- {}"), '["a", "{}"]', "- a\n- {}"),
        (JoinList(", "), "[]", ""),
    ],
)
def test_lists(transform: Transform, text: str, expected: str) -> None:
    assert apply_transforms(text, (transform,)) == expected


@pytest.mark.parametrize(
    ("transform", "text"),
    [(JsonList(), "none"), (JsonList(), "[" * 100_000), (JoinList(","), '{"a": 1}')],
)
def test_what_is_no_list_fails(transform: Transform, text: str) -> None:
    with pytest.raises(TransformError):
        apply_transforms(text, (transform,))


@pytest.mark.parametrize(
    "transform", [JsonList(), JoinList(","), JsonField("0")], ids=lambda t: type(t).__name__
)
def test_nothing_escapes_at_any_depth(transform: Transform) -> None:
    # There are depths that can be read, but not written again.
    for depth in range(800, 1010):
        assert_gives_text_or_transform_error("[" * depth + "]" * depth, (transform,))


def test_defects_of_a_value_are_transform_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(text: str) -> list[str]:
        raise OverflowError("too far")

    monkeypatch.setattr(closed_set, "split_lines", overflow)
    with pytest.raises(TransformError, match="too far"):
        apply_transforms("a", (SplitLines(),))


@pytest.mark.parametrize(
    "tail", ["1," * 50_000, '"' + "a" * 100_000, "1" * 100_000], ids=["items", "text", "number"]
)
def test_the_search_for_an_array_reads_a_text_only_a_few_times(
    tail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = list[int]()

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[object, int]:
            starts.append(idx)
            return super().raw_decode(s, idx)

    monkeypatch.setattr(closed_set, "_FREE_ARRAY_CHARS", 0)
    monkeypatch.setattr(json, "JSONDecoder", Counting)
    with pytest.raises(ValueError, match="no JSON array"):
        closed_set.json_list("[" * 32 + tail)
    assert len(starts) <= 6


def test_short_texts_are_searched_from_many_starts() -> None:
    assert closed_set.json_list("[x " * 31 + '["a"]') == ["a"]
    assert closed_set.json_list('["x\n' * 31 + '["a"]') == ["a"]


def test_a_chain_of_transforms_is_bounded() -> None:
    check_transforms((Strip(),) * 32)
    with pytest.raises(RequestError, match="33 transforms") as caught:
        check_transforms((Strip(),) * 33)
    assert caught.value.code == "invalid_transform"


def test_what_transforms_read_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_transforms, "MAX_TRANSFORMED_CHARS", 100)
    budget = TransformBudget()
    assert apply_transforms("a" * 30, (Strip(), Strip()), budget) == "a" * 30
    with pytest.raises(TransformError, match="more than 100 characters"):
        apply_transforms("a" * 30, (Strip(), Strip()), budget)
    assert apply_transforms("a" * 30, (Strip(),) * 3) == "a" * 30
    with pytest.raises(TransformError, match="more than 100 characters"):
        apply_transforms("a" * 30, (Strip(),) * 4)


def test_all_inputs_of_a_prompt_share_what_transforms_may_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core_transforms, "MAX_TRANSFORMED_CHARS", 100)
    driver = audited_driver(make_engine())
    driver.submit(
        make_call("c", *[read("x", Strip())] * 4, write("y")),
        make_transform("t", *[read("x", Strip())] * 4),
        make_call("few", *[read("x", Strip())] * 3, write("z")),
        variables={"x": "a" * 30},
    )
    for name in ("y", "t"):
        failure = driver.variable(name).failure
        assert failure is not None
        assert failure.code == "transform_failed"
    assert driver.running_outputs == ["z"]


@pytest.mark.parametrize("too_many", [read("x", *[Strip()] * 33)])
def test_a_submit_with_too_many_transforms_is_refused(too_many: Input) -> None:
    for node in (
        make_call("c", too_many, write("y")),
        make_transform("t", read("x"), transforms=(Strip(),) * 33),
        make_map("m", too_many, make_body("y", "y: item")),
    ):
        with pytest.raises(RequestError, match="33 transforms"):
            audited_driver().submit(node, variables={"x": "[]"})
