"""The pages: every piece of Python is well-formed, and the first one runs as it stands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from parrot_integrations.planning.background import background
from parrot_integrations.semantic_kernel import watch_plans
from tests.helpers.scripted_server import ScriptedServer

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "semantic_kernel.md").read_text(encoding="utf-8")
PIECES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_a_piece_is_well_formed(piece: str) -> None:
    compile(piece.replace(", ...)", ")"), "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_first_piece_runs(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    program = compile(PIECES[0].replace("http://127.0.0.1:8642", server.url), "page", "exec")
    with watch_plans() as plans:
        exec(program, {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
    assert server.num_submits == 1
    assert background().settle(5)
    (report,) = (str(plan.report()) for plan in plans)
    # The page shows it as what comes of that program.
    assert f"```\n{report}\n```" in PAGE


def test_the_page_names_what_the_package_offers() -> None:
    import parrot_integrations.semantic_kernel as package

    missing = {name for name in package.__all__ if name not in PAGE}
    assert not missing
