"""``parrot calibrate``: what a server's engines know, as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from parrot_backend.cli import app
from parrot_backend.core.ids import EngineId
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_backend.protocol import EngineList
from parrot_backend.sim.calibration import calibration_of_view, read_calibration
from parrot_backend.simulate.calibrating import calibrate_from
from tests.helpers.scripted_server import ScriptedServer, scripted_server

MODEL = StepTimeModel(0.01, 1e-4, 1e-5, 1e-7, 1e-9, 128, 0.05)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig()) as server:
        yield server


def test_an_engine_that_knows_its_times_becomes_a_file(server: ScriptedServer, tmp_path: Path):
    reply = httpx.get(f"{server.url}/v1/engines")
    (shown,) = EngineList.model_validate_json(reply.content).engines
    assert (shown.step_time, shown.running) == (None, 0)
    (state,) = server.service.coordinator.engines.values()
    assert (shown.id, shown.capacity_tokens) == (state.id, state.info.capacity_tokens)
    result = CliRunner().invoke(app, ["calibrate", "--url", server.url, "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{state.id} does not know yet how long its steps take" in result.stderr
    assert not list(tmp_path.iterdir())

    state.step_time = MODEL
    result = CliRunner().invoke(app, ["calibrate", "--url", server.url, "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "learnt from 128 steps, recent error 5.0%" in result.stdout
    (path,) = tmp_path.iterdir()
    reply = httpx.get(f"{server.url}/v1/engines")
    (shown,) = EngineList.model_validate_json(reply.content).engines
    assert read_calibration(path) == calibration_of_view(shown)


def test_an_engine_with_an_odd_name_stays_in_its_folder(tmp_path: Path):
    shown = {
        "id": str(EngineId("../up")),
        "models": ["m"],
        "max_model_len": 9,
        "max_requests": 1,
        "capacity_tokens": 9,
        "latency_capacity_tokens": 9,
        "running": 0,
        "step_time": {name: 1.0 for name in MODEL.__dataclass_fields__} | {"num_samples": 1},
    }
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"engines": [shown]}))
    folder = tmp_path / "out"
    assert calibrate_from("http://any", folder, httpx.Client(transport=transport)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9/v1/engines: "),
        ("nonsense", "nonsense/v1/engines: "),
        ("http://[", "/v1/engines: "),
    ],
)
def test_a_server_that_is_not_there_is_told(url: str, said: str, tmp_path: Path):
    result = CliRunner().invoke(app, ["calibrate", "--url", url, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (httpx.Response(200, json={"engines": [{"id": 3}]}), "does not answer as a Parrot server"),
        (httpx.Response(200, text="hello"), "does not answer as a Parrot server"),
        (httpx.Response(404, json={}), "404"),
    ],
)
def test_another_server_is_told(
    reply: httpx.Response, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = httpx.Client(transport=httpx.MockTransport(lambda _: reply))
    monkeypatch.setattr("parrot_backend.simulate.calibrating.httpx.Client", lambda **_: made)
    result = CliRunner().invoke(app, ["calibrate", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_server_without_engines_gives_nothing(tmp_path: Path):
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"engines": []}))
    assert calibrate_from("http://any", tmp_path, httpx.Client(transport=transport)) == 1
