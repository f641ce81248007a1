"""The example of the Parrot paper: two dependent calls, one request.

Start a server with ``parrot serve``, set ``PARROT_BASE_URL`` to the address it prints, and run
``python examples/quickstart.py``.
"""

# The docstrings below are prompt templates, not documentation.
# ruff: noqa: D103, D205, D415

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


if __name__ == "__main__":
    code, test = WriteSnakeGame()
    print("--- code ---", code, "--- test ---", test, sep="\n")
