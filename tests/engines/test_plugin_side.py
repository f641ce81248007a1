"""Hints for requests, orders to the plug-in, reports from it; without an engine."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, replace
from typing import Any

import pytest

from parrot_backend.core.criteria import UNANNOTATED, Objective, ObjectiveClass
from parrot_backend.core.discovery.beginnings import Beginning
from parrot_backend.core.events import EngineReported
from parrot_backend.core.ids import AttemptId, EngineId, SessionId, TaskGroupId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.engines.base import AttentionLoad, EngineLoad, EngineRequest
from parrot_backend.engines.vllm.plugin_side import PluginSide, changing_hints, hints_of
from parrot_backend.vllm_plugin.hints import parse_hints

ATTEMPT, OTHER = AttemptId("s.a#0~1"), AttemptId("s.b#0~1")
ENGINE = EngineId("e")

ROLE = PromptPart(PartKind.ROLE, "user")
PARTS = (ROLE, PromptPart(PartKind.CONSTANT, "one"), PromptPart(PartKind.VALUE, "two"))
CHAIN = (PrefixBoundary(b"\x01", 2), PrefixBoundary(b"\x02", 4))
INSIDE = tuple(
    Beginning(PrefixBoundary(bytes([n]), n), part, n) for n, part in ((3, 1), (4, 1), (5, 2))
)


def request(**fields: Any) -> EngineRequest:
    plain = EngineRequest(ATTEMPT, SessionId("s"), None, PARTS, Sampling(), UNANNOTATED)
    return replace(plain, **fields)


class TestHints:
    def test_of_a_plain_request(self):
        assert hints_of(request(tenant="t", remaining=3), [0, 5, 9], []) == {
            "class": UNANNOTATED.objective_class.name.lower(),
            "slack_s": None,
            "tpot_s": None,
            "group": None,
            "path_length": 3,
            "name": ATTEMPT,
            "tenant": "t",
            "prefixes": [],
            "retain": [],
        }

    def test_boundaries_carry_the_tokens_that_were_counted(self):
        hints = hints_of(request(prefixes=CHAIN), [0, 5, 9], [])
        assert hints["prefixes"] == [["01", 5], ["02", 9]]
        assert hints["prefix_group"] == "01"

    def test_one_boundary_is_no_prefix_group(self):
        assert "prefix_group" not in hints_of(request(prefixes=CHAIN[:1]), [0, 5, 9], [])

    def test_a_boundary_before_any_token_is_left_out(self):
        hints = hints_of(request(prefixes=CHAIN, retain=(b"\x01", b"\x02")), [0, 0, 9], [])
        assert hints["prefixes"] == [["02", 9]]
        assert hints["retain"] == ["02"]

    def test_only_known_boundaries_are_kept(self):
        hints = hints_of(request(prefixes=CHAIN, retain=(b"\x02", b"\x07")), [0, 5, 9], [])
        assert hints["retain"] == ["02"]

    def test_a_fill_has_boundaries_for_its_known_parts_only(self):
        hints = hints_of(
            request(prefixes=CHAIN[:1], retain=(b"\x01",), fill_parts=2), [0, 5, 9], []
        )
        assert hints["class"] == "fill"
        assert hints["prefixes"] == [["01", 5]]
        assert hints["retain"] == ["01"]

    def test_a_staged_request_says_after_whom_and_where(self):
        hints = hints_of(request(after=OTHER, gap=1), [0, 5, 9], [])
        assert (hints["after"], hints["gap_at"]) == (OTHER, 5)

    def test_beginnings_stand_among_the_boundaries(self):
        given = request(prefixes=CHAIN, beginnings=INSIDE, retain=(b"\x04", b"\x05"))
        hints = hints_of(given, [0, 5, 9], [3, 0, 7])
        assert hints["prefixes"] == [["03", 3], ["01", 5], ["05", 7], ["02", 9]]
        assert hints["prefix_group"] == "01"
        assert hints["retain"] == ["05"]
        assert parse_hints(hints, 0.0).problems == ()

    def test_a_beginning_alone_is_no_prefix_group(self):
        given = request(prefixes=CHAIN[:1], beginnings=INSIDE)
        assert "prefix_group" not in hints_of(given, [0, 5, 9], [3, 4, 7])

    @pytest.mark.parametrize(("num_parts", "num_inside"), [(1022, 2), (1023, 1), (1024, 0)])
    def test_of_too_many_beginnings_the_longest_are_told(self, num_parts: int, num_inside: int):
        parts = (PARTS[1],) * num_parts
        chain = tuple(PrefixBoundary(b"%d" % number, number) for number in range(num_parts))
        ends = (3, 4, 7)
        inside = [one._replace(part=end - 1) for one, end in zip(INSIDE, ends, strict=True)]
        given = request(parts=parts, prefixes=chain, beginnings=tuple(inside))
        hints = hints_of(given, range(1, num_parts + 1), ends)
        parsed, problems = parse_hints(hints, 0.0)
        assert problems == ()
        assert parsed is not None
        assert len(parsed.prefixes) == num_parts + num_inside
        told = [key for key in ("03", "04", "05") if key in {p.key for p in parsed.prefixes}]
        assert told == ["03", "04", "05"][3 - num_inside :]

    @pytest.mark.parametrize("num_parts", [1025, 1400])
    def test_of_too_many_boundaries_the_longest_are_told(self, num_parts: int):
        chain = tuple(PrefixBoundary(n.to_bytes(2), n) for n in range(num_parts))
        retain = (chain[0].hash, chain[-1].hash)
        given = request(
            parts=(PARTS[1],) * num_parts, prefixes=chain, beginnings=INSIDE, retain=retain
        )
        parsed, problems = parse_hints(hints_of(given, range(1, num_parts + 1), [2, 2, 3]), 0.0)
        assert problems == ()
        assert parsed is not None
        assert [prefix.tokens for prefix in parsed.prefixes] == [*range(1, num_parts + 1)][-1024:]
        assert parsed.retain == {chain[-1].hash.hex()}
        assert parsed.prefix_group == chain[0].hash.hex()

    @pytest.mark.parametrize(
        ("ends", "settled", "told"),
        [
            ([0, 5, 9], [2, 4, 7], ["03", "04", "01", "05", "02"]),
            # The second text stands before the first one.
            ([0, 9, 4], [7, 8, 3], []),
            ([0, 9, 4], [0, 0, 0], []),
            # It stands inside of it.
            ([0, 9, 7], [2, 5, 6], ["03", "04"]),
            ([0, 5, 5], [5, 5, 5], ["03", "04", "01", "05", "02"]),
        ],
    )
    def test_texts_in_another_order_than_their_parts_have_no_boundaries(
        self, ends: list[int], settled: list[int], told: list[str]
    ):
        given = request(prefixes=CHAIN, beginnings=INSIDE)
        hints = hints_of(given, ends, settled)
        assert [key for key, _ in hints["prefixes"]] == told
        assert parse_hints(hints, 0.0).problems == ()

    @pytest.mark.parametrize("kind", list(ObjectiveClass))
    def test_the_plug_in_understands_all_of_them(self, kind: ObjectiveClass):
        wish = Objective(
            kind, tpot_s=0.05, deadline_s=time.monotonic() + 9, group=TaskGroupId("s.g")
        )
        given = request(
            objective=wish, prefixes=CHAIN, retain=(b"\x01",), after=OTHER, gap=2, remaining=4
        )
        now_s = time.monotonic()
        hints, problems = parse_hints(hints_of(given, [0, 5, 9], []), now_s)
        assert problems == ()
        assert hints is not None
        assert hints.request_class.name == kind.name
        assert (hints.tpot_s, hints.group, hints.path_length) == (0.05, "s.g", 4)
        assert hints.deadline_s == pytest.approx(wish.deadline_s, abs=1)
        assert (hints.after, hints.gap_at) == (OTHER, 9)
        assert hints.retain == {"01"}

    def test_changes_take_back_what_is_not_wished_any_more(self):
        changes = changing_hints(UNANNOTATED, 0)
        assert changes["slack_s"] is changes["tpot_s"] is changes["group"] is None


def report(number: int, **fields: Any) -> dict[str, Any]:
    plain = {
        "number": number,
        "is_snapshot": False,
        "held": [],
        "lost": [],
        "step_time": None,
        "pinned_tokens": 0,
        "pinned_hit_tokens": 0,
        "lost_pins": 0,
        "preempted": 0,
        "attention": None,
    }
    return {**plain, **fields}


class FakePlugin:
    """Answers what it was given, and then never."""

    def __init__(self, *answers: Any) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.told: list[EngineReported] = []
        self.side = PluginSide(ENGINE, self.call, self.told.append)
        self._answers = list(answers)

    async def call(self, name: str, arguments: list[Any]) -> Any:
        self.calls.append((name, arguments))
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def turns() -> None:
    """Let everybody run who can."""
    for _ in range(10):
        await asyncio.sleep(0)


class TestOrders:
    async def test_those_given_together_go_together_and_in_order(self):
        plugin = FakePlugin(None, None)
        sending = asyncio.create_task(plugin.side.send_orders())
        await turns()
        assert plugin.calls == []
        plugin.side.retain(b"\x01", None)
        plugin.side.update(ATTEMPT, UNANNOTATED, 2)
        plugin.side.retain(b"\x02", ATTEMPT)
        plugin.side.release([b"\x01", b"\x02"])
        await turns()
        hints = changing_hints(UNANNOTATED, 2)
        assert plugin.calls == [
            (
                "apply",
                [
                    [
                        ["retain", "01", None],
                        ["hints", ATTEMPT, hints],
                        ["retain", "02", ATTEMPT],
                        ["release", "01"],
                        ["release", "02"],
                    ]
                ],
            )
        ]
        plugin.side.release([b"\x03"])
        await turns()
        assert plugin.calls[1:] == [("apply", [[["release", "03"]]])]
        sending.cancel()

    async def test_those_given_during_a_call_go_with_the_next(self):
        plugin = FakePlugin()
        sending = asyncio.create_task(plugin.side.send_orders())
        plugin.side.release([b"\x01"])
        await turns()
        plugin.side.release([b"\x02"])
        plugin.side.release([b"\x03"])
        await turns()
        assert len(plugin.calls) == 1
        sending.cancel()
        plugin._answers.append(None)
        sending = asyncio.create_task(plugin.side.send_orders())
        await turns()
        assert plugin.calls[1] == ("apply", [[["release", "02"], ["release", "03"]]])
        sending.cancel()

    async def test_releasing_nothing_orders_nothing(self):
        plugin = FakePlugin()
        sending = asyncio.create_task(plugin.side.send_orders())
        plugin.side.release([])
        await turns()
        assert plugin.calls == []
        sending.cancel()

    async def test_an_error_ends_it(self):
        plugin = FakePlugin(RuntimeError("gone"))
        plugin.side.release([b"\x01"])
        with pytest.raises(RuntimeError, match="gone"):
            await plugin.side.send_orders()


class TestReports:
    async def read(self, *answers: Any) -> FakePlugin:
        """Read the answers; what follows them is an error."""
        plugin = FakePlugin(*answers, RuntimeError("gone"))
        with pytest.raises(RuntimeError, match="gone"):
            await plugin.side.read_reports()
        return plugin

    async def test_each_is_asked_for_with_the_number_of_the_one_before(self):
        plugin = await self.read(report(4, is_snapshot=True), report(5), report(6))
        assert plugin.calls == [("report", [number]) for number in (-1, 4, 5, 6)]
        assert len(plugin.told) == 3

    async def test_an_empty_answer_tells_nothing_and_keeps_the_number(self):
        plugin = await self.read({}, report(1), {}, {}, report(2))
        assert plugin.calls == [("report", [number]) for number in (-1, -1, 1, 1, 1, 2)]
        assert len(plugin.told) == 2

    async def test_what_is_told(self):
        model = StepTimeModel(0.1, 0.2, 0.3, 0.4, 0.5, 6, 0.7)
        plugin = await self.read(
            report(
                1,
                is_snapshot=True,
                held=[["01", 32], ["02", 64]],
                lost=["03"],
                step_time=asdict(model),
            ),
            report(2, lost=["01"]),
        )
        assert plugin.told == [
            EngineReported(
                engine=ENGINE,
                held=(PrefixBoundary(b"\x01", 32), PrefixBoundary(b"\x02", 64)),
                lost=(b"\x03",),
                is_snapshot=True,
                step_time=model,
            ),
            EngineReported(
                engine=ENGINE, held=(), lost=(b"\x01",), is_snapshot=False, step_time=None
            ),
        ]

    async def test_the_load_has_the_latest_figures(self):
        load = EngineLoad(1, 2, 0.5, 3, 4, 5)
        assert FakePlugin().side.add_figures(load) == load
        figures: dict[str, Any] = {
            "pinned_tokens": 6,
            "pinned_hit_tokens": 7,
            "lost_pins": 8,
            "preempted": 9,
        }
        plugin = await self.read(report(1), report(2, **figures), {})
        assert plugin.side.add_figures(load) == replace(load, **figures)

    async def test_the_load_tells_of_shared_attention(self):
        counted = {"state": "on", "steps": 5, "shared_steps": 4, "kv_tokens": 3}
        plugin = await self.read(report(1, attention={**counted, "kv_tokens_read": 2}), {})
        load = plugin.side.add_figures(EngineLoad(1, 2, 0.5, 3, 4, 5))
        assert load.attention == AttentionLoad("on", 5, 4, 3, 2)
