"""The document's snippet, as it stands there, in the environment that the document names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.documents import run_snippet, snippet
from tests.helpers.scripted_server import ScriptedServer


@pytest.mark.e2e
def test_the_documented_team(server: ScriptedServer, tmp_path: Path) -> None:
    llm = f"{{api_type: openai, base_url: '{server.url}/v1', api_key: none, model: default}}"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config2.yaml").write_text(f"llm: {llm}\n")
    code = snippet("docs/agents.md", "install()")
    said = run_snippet(code, server.url, {"METAGPT_PROJECT_ROOT": str(tmp_path)})
    assert "Writer" in said
    # One opens the session with the idea, one is the call.
    assert server.num_submits == 2
    server.wait_until_empty()
