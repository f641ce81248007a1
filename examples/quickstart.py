"""The example of the Parrot paper: two dependent calls, one request.

    parrot serve                                   # in another terminal
    PARROT_BASE_URL=http://127.0.0.1:8642 python examples/quickstart.py
"""

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
