"""All Python in the document of agents compiles; each framework's tests run what is theirs."""

from __future__ import annotations

import ast

from tests.helpers.documents import DOCUMENTED_URL, snippets


def test_all_snippets_compile_and_talk_to_the_documented_address() -> None:
    found = snippets("docs/agents.md")
    assert len(found) == 5
    for code in found:
        compile(code, "docs/agents.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert DOCUMENTED_URL in code or "install()" in code
