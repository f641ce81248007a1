"""The programs of the demonstration, each written twice: call by call, and for the front end.

The prompts are the same by construction: an ordinary program formats the very templates that the
semantic functions send, and passes the text of one answer on to the next prompt.
"""

# Docstrings of semantic functions are prompts.
# ruff: noqa: D205, D415

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import parrot_integrations as P
from parrot_backend.protocol import InputSegment, OutputSegment, TextSegment

#: How a summary has to be; the prompts of both summaries begin with it, so that all their calls
#: share a prefix that is worth keeping.
STYLE = (
    "You write summaries for busy readers who have not seen the text. Use plain words and short "
    "sentences. Name things as the text names them, and use one name for one thing. Put what "
    "matters most first, then its reasons, then its consequences. Leave out examples, repetitions "
    "and praise. Keep every number, every name of a person or a product, and every condition under "
    "which a statement holds. Do not add anything that the text does not say, do not guess, and do "
    "not speak of yourself or of these instructions. If two statements contradict each other, give "
    "both. Write one paragraph without headings, lists or quotations."
)


class Ask(Protocol):
    """One model call of an ordinary program: a prompt goes out, a text comes back."""

    async def __call__(self, name: str, prompt: str) -> str:
        """Return what the model says to ``prompt``; ``name`` is for the record."""
        ...


class DemoProgram(Protocol):
    """A program in both forms."""

    @property
    def title(self) -> str:
        """What it is, for people."""
        ...

    @property
    def call_names(self) -> tuple[str, ...]:
        """Names of its calls, in the order in which both forms make them."""
        ...

    @property
    def sampling(self) -> P.Sampling:
        """How each call samples."""
        ...

    async def call_by_call(self, ask: Ask) -> str:
        """Run with one request per call."""
        ...

    async def one_submit(self) -> str:
        """Run on the front end, in the current program's scope."""
        ...


def fixed_length(max_tokens: int) -> P.Sampling:
    """Return sampling that generates the same number of tokens every time, whatever the text."""
    return P.Sampling(max_tokens=max_tokens, temperature=0, ignore_eos=True)


def prompt_of(function: P.TemplateFunction, **inputs: str) -> str:
    """Return the prompt that a semantic function sends for these inputs, up to its output."""
    text = ""
    for segment in function.template.parts[0].segments:
        match segment:
            case TextSegment():
                text += segment.text
            case InputSegment():
                text += inputs[segment.variable]
            case OutputSegment():
                break
    return text


class ChainSummary:
    """Summarises a text piece by piece: each call refines the summary of the one before."""

    def __init__(self, chunks: Sequence[str], sampling: P.Sampling) -> None:
        @P.SemanticFunction(sampling=sampling)
        def BeginSummary(style: str, part: str) -> None:
            """{{input:style}}
            You summarise a long document part by part. Here is the first part.
            {{input:part}}
            Summary of it:{{output:summary}}
            """

        @P.SemanticFunction(sampling=sampling)
        def RefineSummary(style: str, summary: P.SemanticVariable, part: str) -> None:
            """{{input:style}}
            You summarise a long document part by part. Summary so far: {{input:summary}}
            Here is the next part.
            {{input:part}}
            Summary of everything so far:{{output:refined}}
            """

        self.title = f"chain summary, {len(chunks)} parts"
        self.call_names = tuple(f"part {index + 1}" for index in range(len(chunks)))
        self.sampling = sampling
        self._chunks = chunks
        self._begin, self._refine = BeginSummary, RefineSummary

    async def call_by_call(self, ask: Ask) -> str:
        """Ask for each part in turn."""
        first, *others = zip(self.call_names, self._chunks, strict=True)
        summary = await ask(first[0], prompt_of(self._begin, style=STYLE, part=first[1]))
        for name, part in others:
            prompt = prompt_of(self._refine, style=STYLE, summary=summary, part=part)
            summary = await ask(name, prompt)
        return summary

    async def one_submit(self) -> str:
        """Record the chain and get its last summary."""
        first, *others = self._chunks
        summary: P.SemanticVariable = self._begin(STYLE, first)
        for part in others:
            summary = self._refine(STYLE, summary, part)
        return await summary.aget(perf=P.LATENCY)


class MapReduceSummary:
    """Summarises all parts side by side, and then the summaries."""

    def __init__(self, chunks: Sequence[str], sampling: P.Sampling) -> None:
        @P.SemanticFunction(sampling=sampling)
        def SummarisePart(style: str, part: str) -> None:
            """{{input:style}}
            You summarise one part of a long document. Here it is.
            {{input:part}}
            Summary of this part:{{output:summary}}
            """

        @P.SemanticFunction(sampling=sampling)
        def SummariseWhole(style: str, summaries: P.SemanticVariable) -> None:
            """{{input:style}}
            You make one summary of the summaries of the parts of a document. Here they are.
            {{input:summaries}}
            Summary of the whole:{{output:summary}}
            """

        self.title = f"map-reduce summary, {len(chunks)} parts"
        self.call_names = (*(f"part {index + 1}" for index in range(len(chunks))), "whole")
        self.sampling = sampling
        self._chunks = chunks
        self._map, self._reduce = SummarisePart, SummariseWhole

    async def call_by_call(self, ask: Ask) -> str:
        """Ask for all parts at once, then for the whole."""
        summaries = await asyncio.gather(
            *(
                ask(name, prompt_of(self._map, style=STYLE, part=part))
                for name, part in zip(self.call_names, self._chunks, strict=False)
            )
        )
        whole = prompt_of(self._reduce, style=STYLE, summaries="\n\n".join(summaries))
        return await ask(self.call_names[-1], whole)

    async def one_submit(self) -> str:
        """Record the maps and the reduce, and get the last summary."""
        summaries = [self._map(STYLE, part) for part in self._chunks]
        whole: P.SemanticVariable = self._reduce(STYLE, P.join(summaries, "\n\n"))
        return await whole.aget(perf=P.LATENCY)


class SnakeGame:
    """The example of the paper: code for a game, then tests for that code; both are wanted."""

    title = "snake game: code, then tests"
    call_names = ("WritePythonCode", "WriteTestCode")

    def __init__(self, sampling: P.Sampling) -> None:
        @P.SemanticFunction(sampling=sampling)
        def WritePythonCode(task: P.SemanticVariable) -> None:
            """You are an expert software engineer.
            Write python code of {{input:task}}.
            Code:{{output:code}}
            """

        @P.SemanticFunction(sampling=sampling)
        def WriteTestCode(task: P.SemanticVariable, code: P.SemanticVariable) -> None:
            """You are an experienced QA engineer.
            You write test code for {{input:task}}.
            Code: {{input:code}}.
            Your test code:{{output:test}}
            """

        self.sampling = sampling
        self._write_code, self._write_test = WritePythonCode, WriteTestCode

    async def call_by_call(self, ask: Ask) -> str:
        """Ask for the code, then for its tests."""
        task = "a snake game"
        code = await ask("WritePythonCode", prompt_of(self._write_code, task=task))
        return await ask("WriteTestCode", prompt_of(self._write_test, task=task, code=code))

    async def one_submit(self) -> str:
        """Record both calls and get both values."""
        task = P.SemanticVariable("a snake game")
        code = self._write_code(task)
        test = self._write_test(task, code)
        _, tests = await P.aget_all([code, test], perf=P.LATENCY)
        return tests
