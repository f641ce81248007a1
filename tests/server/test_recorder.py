"""A run of the live server, recorded, gives the same decisions in a fresh core."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.events import EngineLost
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.main import EXIT_BAD_SETTINGS, run_server
from parrot_backend.server.recorder import EventRecorder
from parrot_backend.server.service import Service
from parrot_backend.server.supervisor import EngineSlot
from parrot_backend.sim.recording import read_recording, replay

_SLOW = ScriptedConfig(token_s=0.002, max_requests=4)


def _engine(engine: EngineId) -> ScriptedEngine:
    return ScriptedEngine(engine, _SLOW)


def _body(number: int) -> dict[str, Any]:
    """Return a submit of a map-like program: three calls and one that reads them."""
    names = ["a", "b", "c"]
    nodes = [
        {"kind": "call", "name": name, "prompt": f"Part {name} of {number}: {{{{output:{name}}}}}"}
        for name in names
    ]
    reads = " ".join(f"{{{{input:{name}}}}}" for name in names)
    nodes.append({"kind": "call", "name": "end", "prompt": f"{reads} {{{{output:end}}}}"})
    return {"nodes": nodes, "outputs": [{"variable": "end"}], "close": True}


async def _serve(path: Path, *, loses_engine: bool) -> int:
    """Let three engines serve some programs, half of them as streams; return how many."""
    slots = [EngineSlot(f"scripted-{number}", _engine) for number in range(3)]
    app = create_app(ServerSettings(record=path, drain_timeout_s=0), slots)
    service: Service = app.state.service
    async with app.router.lifespan_context(app):
        while len(service.coordinator.engines) < len(slots):
            await asyncio.sleep(0.001)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://parrot") as client:
            replies = [
                asyncio.create_task(
                    client.post("/v1/submit", json={**_body(n), "stream": n % 2 == 0})
                )
                for n in range(12)
            ]
            await asyncio.sleep(0.02)
            if loses_engine:
                service.supervisor.give_up(EngineId("scripted-1"), "a test wants it")
            done = await asyncio.gather(*replies)
    assert [reply.status_code for reply in done] == [200] * 12
    return len(done)


@pytest.mark.parametrize("loses_engine", [False, True])
async def test_a_recorded_run_gives_the_same_decisions_again(
    tmp_path: Path, loses_engine: bool
) -> None:
    path = tmp_path / "run.jsonl"
    num_jobs = await _serve(path, loses_engine=loses_engine)
    lines = path.read_text().splitlines(keepends=True)
    config, steps = read_recording(lines)
    recorded = list(steps)
    result = replay(config, recorded)
    assert result.num_different == 0, result.different
    assert result.num_events == len(lines) - 1
    assert result.num_starts >= 4 * num_jobs
    engines = {engine for step in recorded for _, engine in step.starts}
    assert len(engines) >= 3
    lost = [step.event.reason for step in recorded if isinstance(step.event, EngineLost)]
    assert ("a test wants it" in lost) is loses_engine


async def test_only_its_owner_may_read_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    await _serve(path, loses_engine=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "Part a of 3" in path.read_text()


async def test_nothing_is_recorded_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app(ServerSettings(), [EngineSlot("scripted-0", _engine)])
    async with app.router.lifespan_context(app):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("precious")
    assert run_server({"record": str(path), "engine": "scripted", "port": 0}) == EXIT_BAD_SETTINGS
    assert f"cannot record to {path}: File exists" in capsys.readouterr().err
    assert path.read_text() == "precious"


def test_settings_that_cannot_be_written_leave_no_file(tmp_path: Path) -> None:
    config = CoreConfig(scheduler=SchedulerConfig(tenant_weights={"a": object()}))  # type: ignore[dict-item]

    with pytest.raises(TypeError, match="object"):
        EventRecorder(tmp_path / "run.jsonl", config)

    assert list(tmp_path.iterdir()) == []


def test_trouble_with_the_file_ends_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = EventRecorder(tmp_path / "run.jsonl", CoreConfig())
    lost = EngineLost(EngineId("e"), "gone" * 10_000)

    class Full:
        def write(self, _text: str) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    recorder._file.close()
    recorder._file = Full()  # type: ignore[assignment]
    recorder.record(lost, 1.0, [])
    recorder.record(lost, 2.0, [])
    recorder.close()
    assert [record.message for record in caplog.records if "No space" in record.message] == [
        f"the recording {tmp_path / 'run.jsonl'} ends here: [Errno 28] No space left on device",
        f"the end of the recording {tmp_path / 'run.jsonl'} is lost: "
        "[Errno 28] No space left on device",
    ]


def test_a_recording_is_lines_of_json(tmp_path: Path) -> None:
    recorder = EventRecorder(tmp_path / "run.jsonl", CoreConfig())
    recorder.record(EngineLost(EngineId("e"), "\ud800 half a pair"), 1.5, [])
    recorder.close()
    lines = (tmp_path / "run.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["now_s"] == 1.5
    (step,) = read_recording(line + "\n" for line in lines)[1]
    assert step.event == EngineLost(EngineId("e"), "\ud800 half a pair")


def test_an_event_that_cannot_be_written_ends_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.jsonl"
    recorder = EventRecorder(path, CoreConfig())
    recorder.record(EngineLost(EngineId("e"), "gone"), 1.0, [])
    recorder.record(EngineLost(EngineId("e"), object()), 2.0, [])  # type: ignore[arg-type]
    recorder.record(EngineLost(EngineId("e"), "gone again"), 3.0, [])
    recorder.close()
    assert len(path.read_text().splitlines()) == 2  # the header, and the first event
    assert "ends here: TypeError" in caplog.text
