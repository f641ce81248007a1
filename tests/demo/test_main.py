import functools
import io

import pytest
from rich.console import Console

from parrot_backend.demo import main
from parrot_backend.demo.host_process import start_host
from parrot_backend.demo.main import DemoOptions, run


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Run the demo with a fake host of the given manner; return exit code and what it showed."""

    def run_demo(manner):
        fake = functools.partial(start_host, module="tests.demo.fake_host")
        monkeypatch.setattr(main, "start_host", lambda _arguments, log: fake([manner], log))
        shown = io.StringIO()
        code = run(DemoOptions(out=tmp_path / "new" / "folder"), Console(file=shown))
        return code, shown.getvalue()

    return run_demo


def test_an_engine_that_does_not_start_is_a_failure_with_its_reason(demo, capsys):
    code, shown = demo("failing")
    assert code == 1
    assert "no such model" in capsys.readouterr().err
    assert shown.startswith("starting vLLM")


def test_a_server_that_ends_is_a_failure_with_the_end_of_its_log(demo, capsys):
    code, _ = demo("silent")
    assert code == 1
    assert "the reason" in capsys.readouterr().err


def test_a_cache_that_cannot_be_emptied_is_a_failure(demo, capsys):
    code, _ = demo("full")
    assert code == 1
    assert "blocks are in use" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = run(DemoOptions(out=tmp_path / "file" / "folder"), Console(file=io.StringIO()))
    assert code == 1
    assert "The demo failed" in capsys.readouterr().err
