"""The example of the paper, run to the letter; in process, and over a real connection."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

import parrot_integrations as P
from tests.helpers.fake_parrot import FakeParrot

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "examples/quickstart.py"

#: The paper's example.
EXAMPLE = '''
import parrot_integrations as P
from parrot_integrations import LATENCY

@P.SemanticFunction
def WritePythonCode(task: P.SemanticVariable):
    """You are an expert software engineer.
    Write python code of {{input:task}}.
    Code: {{output:code}}
    """

@P.SemanticFunction
def WriteTestCode(task: P.SemanticVariable, code: P.SemanticVariable):
    """You are an experienced QA engineer.
    You write test code for {{input:task}}.
    Code: {{input:code}}.
    Your test code: {{output:test}}
    """

def WriteSnakeGame():
    task = P.SemanticVariable("a snake game")
    code = WritePythonCode(task)
    test = WriteTestCode(task, code)
    return code.get(perf=LATENCY), test.get(perf=LATENCY)
'''

CODE = "<You are an expert software engineer.\nWrite python code of a snake game.\nCode: >"
TEST = (
    "<You are an experienced QA engineer.\nYou write test code for a snake game.\n"
    f"Code: {CODE}.\nYour test code: >"
)


def test_the_quickstart_holds_the_example_to_the_letter() -> None:
    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.strip()]

    assert "\n".join(lines(EXAMPLE)) in "\n".join(lines(QUICKSTART.read_text()))


def test_the_example_gives_both_values(program: P.Program) -> None:
    assert runpy.run_path(str(QUICKSTART))["WriteSnakeGame"]() == (CODE, TEST)


def test_the_example_is_one_request(fake: FakeParrot, program: P.Program) -> None:
    runpy.run_path(str(QUICKSTART))["WriteSnakeGame"]()
    assert fake.log == ["POST /v1/submit"]


def test_the_examples_variables_are_named_after_its_python_names(
    fake: FakeParrot, program: P.Program
) -> None:
    runpy.run_path(str(QUICKSTART))["WriteSnakeGame"]()
    assert set(fake.sessions["s1"].variables) == {
        "WritePythonCode-task",
        "WritePythonCode-code",
        "WriteTestCode-test",
    }


@pytest.fixture
def url(fake: FakeParrot) -> Iterator[str]:
    """The fake server on a loopback port, streaming as a real one does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            request = httpx.Request(self.command, f"http://x{self.path}", content=body)
            reply = fake.handle(request)
            self.send_response(reply.status_code)
            for name in reply.headers.keys() & {"content-type"}:
                self.send_header(name, reply.headers[name])
            self.end_headers()
            for part in reply.iter_raw():
                self.wfile.write(part)
                self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    fake.shut_down()
    server.shutdown()
    thread.join()
    server.server_close()


def run_python(url: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PARROT_BASE_URL": url, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_quickstart_runs_against_the_server_in_the_environment(url: str) -> None:
    assert run_python(url, str(QUICKSTART)).stdout == (
        f"--- code ---\n{CODE}\n--- test ---\n{TEST}\n"
    )


def test_an_unfinished_reader_does_not_hold_up_the_interpreter(url: str, fake: FakeParrot) -> None:
    fake.held = {"WriteTestCode-test"}
    program = EXAMPLE + '\nWritePythonCode("x").get(), WriteTestCode("x", "y")\n'
    program += "WritePythonCode('z').get(); print('end')\n"
    finished = run_python(url, "-c", program)
    assert (finished.stdout, finished.stderr, finished.returncode) == ("end\n", "", 0)


def test_importing_the_front_end_is_light() -> None:
    program = (
        "import sys, parrot_integrations; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'fastapi', 'torch', 'vllm', 'starlette', 'langchain_core'}), "
        "{'.'.join(m.split('.')[:2]) for m in sys.modules if m.startswith('parrot_backend.')})"
    )
    assert run_python("http://x", "-c", program).stdout == "[] {'parrot_backend.protocol'}\n"
