"""``parrot serve`` as people start it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from parrot_backend.cli import app
from tests.server.programs import one_call

PARROT = [sys.executable, "-c", "from parrot_backend.cli import app_main; app_main()"]
ROOT = Path(__file__).parents[2]


def test_serve_runs_until_ctrl_c_and_leaves_nothing_behind():
    command = [*PARROT, "serve", "--engine", "scripted", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        found = re.search(r"ready at (http://\S+) \(model: scripted\)", process.stdout.readline())
        assert found is not None
        view = submit(found[1])
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)

    assert view["state"] == "ready"
    assert process.returncode == 0
    assert "Traceback" not in log
    assert members_of_session(process.pid) == []


def test_bad_settings_are_all_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARROT_MAX_WAIT_S", "soon")

    result = CliRunner().invoke(app, ["serve", "--port", "70000", "--engine", "llama"])

    assert result.exit_code == 2
    for name in ("PARROT_PORT", "PARROT_ENGINE", "PARROT_MAX_WAIT_S"):
        assert name in result.stderr


def test_help_names_the_options():
    result = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"})

    assert result.exit_code == 0
    for option in ("--engine", "--base-url", "--token-ms", "--max-concurrent-calls"):
        assert option in result.stdout


def test_the_pages_explain_every_option_of_scheduling():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = [
        {*option.opts, *option.secondary_opts}
        for option in serve.params
        if getattr(option, "rich_help_panel", None) == "Scheduling"
    ]

    named = set(re.findall(r"--[a-z][a-z-]+", pages))

    assert len(options) > 10
    assert [names for names in options if not names & named] == []


def test_help_is_quick_because_it_loads_no_server():
    script = (
        "import sys, parrot_backend.cli\n"
        "heavy = {'fastapi', 'uvicorn', 'pydantic', 'vllm', 'torch', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def submit(url: str) -> dict[str, object]:
    request = urllib.request.Request(
        f"{url}/v1/submit", json.dumps(one_call()).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        view: dict[str, object] = json.load(reply)["variables"]["out"]
        return view


def members_of_session(session: int) -> list[str]:
    """Return the processes that still belong to a session (see proc(5), field 6 of stat)."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            members.append(stat.parent.name)
    return members
