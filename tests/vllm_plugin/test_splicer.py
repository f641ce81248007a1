"""Requests that are kept back until another has ended, and go on with its output."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.vllm_compat.seams import CoreRequest
from parrot_backend.vllm_plugin import splicer as splicer_module
from parrot_backend.vllm_plugin.hints import Hints
from parrot_backend.vllm_plugin.splicer import Splicer
from tests.core.hypothesis_settings import examples
from tests.vllm_plugin.fake_core import FakeCore, FakeRequest


def make_request(
    name: str | None = None, after: str | None = None, gap_at: int = 0, output: Sequence[int] = ()
) -> FakeRequest:
    hints = Hints(name=name, after=after, gap_at=gap_at)
    return FakeRequest((1, 2, 3, 4), 9, 0.0, hints=hints, output=list(output))


class Core(FakeCore):
    """Notes who goes on, with what, and where it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.gone_on: list[tuple[FakeRequest, list[int], int]] = []
        self.told: list[CoreRequest] = []
        self.splicer = Splicer(self, self._went_on)

    def keep(self, *requests: FakeRequest) -> None:
        for request in requests:
            assert self.splicer.keeps(request)
            self.splicer.add(request)

    def end(self, request: FakeRequest, *, is_complete: bool = True) -> None:
        self.splicer.ended(request, is_complete=is_complete)

    def go_on(self, request: FakeRequest, token_ids: list[int], position: int) -> None:
        self.gone_on.append((request, token_ids, position))

    def _went_on(self, request: CoreRequest) -> None:
        assert self.gone_on[-1][0] is request, "it is told of once its prompt is whole"
        self.told.append(request)


@pytest.mark.parametrize(
    ("hints", "is_kept"),
    [(None, False), (Hints(), False), (Hints(gap_at=3), False), (Hints(after="a"), True)],
)
def test_who_goes_on_after_another_is_kept_back(hints: Hints | None, is_kept: bool) -> None:
    assert Core().splicer.keeps(FakeRequest((1,), 1, 0.0, hints=hints)) is is_kept


def test_it_goes_on_when_the_other_ends_and_not_before() -> None:
    core = Core()
    kept = make_request(after="a", gap_at=2)
    core.keep(kept)
    core.end(make_request("b", output=(8, 9)))
    core.end(make_request(output=(8, 9)))
    assert core.gone_on == []
    assert len(core.splicer) == 1
    core.end(make_request("a", output=(5, 6)))
    assert core.gone_on == [(kept, [5, 6], 2)]
    assert core.told == [kept]
    assert len(core.splicer) == 0


def test_it_goes_on_once() -> None:
    core = Core()
    core.keep(make_request(after="a"))
    core.end(make_request("a", output=(5,)))
    core.end(make_request("a", output=(6,)))
    assert [tokens for _, tokens, _ in core.gone_on] == [[5]]


def test_all_who_wait_for_one_go_on_in_order_each_with_its_own_place() -> None:
    core = Core()
    kept = [make_request(after="a", gap_at=place) for place in (4, 0, 2)]
    core.keep(*kept)
    assert len(core.splicer) == 3
    core.end(make_request("a", output=(5,)))
    assert core.gone_on == [(kept[0], [5], 4), (kept[1], [5], 0), (kept[2], [5], 2)]
    assert core.told == kept


def test_one_who_comes_too_late_goes_on_at_once() -> None:
    core = Core()
    core.end(make_request("a", output=(5, 6)))
    late = make_request(after="a", gap_at=1)
    core.keep(late)
    assert core.gone_on == [(late, [5, 6], 1)]
    assert core.told == [late]
    assert len(core.splicer) == 0


def test_an_output_is_not_changed_by_those_who_go_on_with_it() -> None:
    core = Core()
    core.end(make_request("a", output=(5,)))
    core.keep(make_request(after="a"), make_request(after="a"))
    assert [tokens for _, tokens, _ in core.gone_on] == [[5], [5]]


def test_old_outputs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicer_module, "_MAX_OUTPUTS", 2)
    core = Core()
    for number, name in enumerate("abc"):
        core.end(make_request(name, output=(number,)))
    core.keep(*(make_request(after=name) for name in "abc"))
    assert [tokens for _, tokens, _ in core.gone_on] == [[1], [2]]
    assert len(core.splicer) == 1


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(("is_complete", "output"), [(False, (5, 6)), (False, ()), (True, ())])
def test_nobody_goes_on_after_one_without_an_output(
    is_complete: bool, output: tuple[int, ...], is_late: bool
) -> None:
    core = Core()
    kept = make_request(after="a")
    if not is_late:
        core.keep(kept)
    core.end(make_request("a", output=output), is_complete=is_complete)
    if is_late:
        core.keep(kept)
    assert core.gone_on == []
    assert core.told == []
    core.end(kept, is_complete=False)
    assert len(core.splicer) == 0


@pytest.mark.parametrize("is_late", [False, True])
def test_who_is_kept_for_good_is_counted(is_late: bool) -> None:
    core = Core()
    kept = make_request(after="a")
    if not is_late:
        core.keep(kept)
    core.end(make_request("a"))
    if is_late:
        core.keep(kept)
    assert len(core.splicer) == 1


@pytest.mark.parametrize("num_others", [0, 2])
def test_who_is_aborted_while_it_is_kept_does_not_go_on(num_others: int) -> None:
    core = Core()
    others = [make_request(after="a") for _ in range(num_others)]
    aborted = make_request("b", after="a")
    core.keep(aborted, *others)
    core.end(aborted, is_complete=False)
    assert len(core.splicer) == num_others
    core.end(make_request("a", output=(5,)))
    assert [request for request, _, _ in core.gone_on] == others
    core.end(aborted, is_complete=False)
    assert len(core.splicer) == 0


def test_the_end_of_one_who_went_on_lets_the_next_go_on() -> None:
    core = Core()
    second, third = make_request("b", after="a"), make_request("c", after="b")
    core.keep(third, second)
    core.end(make_request("a", output=(5,)))
    assert [request for request, _, _ in core.gone_on] == [second]
    second.output = [6]
    core.end(second)
    assert core.gone_on[1:] == [(third, [6], 0)]


def test_who_waits_for_itself_is_kept_until_it_is_aborted() -> None:
    core = Core()
    kept = make_request("a", after="a")
    core.keep(kept)
    core.end(kept, is_complete=False)
    assert core.gone_on == []
    assert len(core.splicer) == 0


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "keep", "end", "end", "fail", "abort"]),
        st.sampled_from("abc"),
        st.integers(0, 3),
    ),
    max_size=30,
)


@examples(200)
@given(_EVENTS)
def test_everybody_goes_on_once_with_the_first_output_that_is_known(
    events: list[tuple[str, str, int]],
) -> None:
    core = Core()
    outputs: dict[str, list[int]] = {}
    kept: list[FakeRequest] = []
    expected: list[tuple[FakeRequest, list[int], int]] = []
    for number, (kind, name, place) in enumerate(events):
        if kind == "keep":
            request = make_request(after=name, gap_at=place)
            core.keep(request)
            if name in outputs:
                expected.append((request, outputs[name], place))
            else:
                kept.append(request)
        elif kind == "abort" and kept:
            core.end(kept.pop(place % len(kept)), is_complete=False)
        elif kind in ("end", "fail"):
            core.end(make_request(name, output=(number,)), is_complete=kind == "end")
            if kind == "end":
                outputs[name] = [number]
                going = [each for each in kept if each.hints.after == name]
                kept = [each for each in kept if each not in going]
                expected += [(each, [number], each.hints.gap_at) for each in going]
        assert core.gone_on == expected
        assert core.told == [request for request, _, _ in expected]
        assert len(core.splicer) == len(kept)
