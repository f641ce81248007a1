"""Summaries of long documents, as a chain (the paper's figures 11 and 12) and as a map-reduce (14).

Lengths of the templates are those of the paper's artifact in Llama tokens, and so are the
documents' chunks (``sim/data/SOURCES.md``). Outputs have a given length; nothing ends them early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Arrival, Constant, Output, Piece, Program, ProgramCall
from parrot_backend.sim.workloads.arrivals import jobs_at
from parrot_backend.sim.workloads.building import LATENCY, prompt, single_call
from parrot_backend.sim.workloads.checks import WorkloadError
from parrot_backend.sim.workloads.tables import arxiv_chunks

#: The two sets of articles: figures 11, 12a, 14 and 19 use the first, figure 12b the second.
ARTICLE_SETS = ("arxiv-sampled", "arxiv-sampled-1")
CHUNK_SIZES = (512, 1024, 1536, 2048)

# Templates of the artifact, figure11/bench_arxiv_parrot.py and figure13/bench_arxiv_parrot.py.
_SUMMARY_HEAD = Constant("summary/head", 22)
_SUMMARY_TAIL = Constant("summary/tail", 9)
_REFINE_HEAD = Constant("refine/head", 40)
_REFINE_MIDDLE = Constant("refine/middle", 26)
_REFINE_TAIL = Constant("refine/tail", 32)
_REDUCE_HEAD = Constant("reduce/head", 8)
_REDUCE_TAIL = Constant("reduce/tail", 25)
_NEWLINE = Constant("newline", 1)

# "Test " x 512, figure12a/bench_arxiv_backgrounds_parrot.py.
_BACKGROUND_TOKENS = 513


def articles(article_set: str, chunk_size: int) -> tuple[tuple[int, ...], ...]:
    """Return the chunks of each article, in real tokens.

    Raises:
        WorkloadError: There is no such set, or it was not cut to this size.
    """
    table = arxiv_chunks()
    found = [
        chunks
        for (name, _, size), chunks in table.items()
        if (name, size) == (article_set, chunk_size)
    ]
    if not found:
        sizes = ", ".join(map(str, CHUNK_SIZES))
        raise WorkloadError(
            "invalid_parameter",
            f"there are no chunks of {chunk_size} of {article_set!r}: "
            f"sets are {' and '.join(ARTICLE_SETS)}, sizes {sizes}",
        )
    return tuple(found)


def chain_summary(
    chunks_tokens: Sequence[int], output_tokens: int, document: str, criteria: Criteria = LATENCY
) -> Program:
    """Return the program that refines a summary chunk by chunk; each call reads the one before.

    Args:
        chunks_tokens: The document's chunks.
        output_tokens: Length of each summary.
        document: Equal names and chunks are equal documents.
        criteria: What is asked for the last summary.
    """
    calls = [_summarise(0, chunks_tokens[0], output_tokens, document)]
    for number, tokens in enumerate(chunks_tokens[1:], start=1):
        pieces = prompt(
            _REFINE_HEAD,
            Output(calls[-1].name),
            _REFINE_MIDDLE,
            _chunk(document, number, tokens),
            _REFINE_TAIL,
        )
        calls.append(ProgramCall(f"refine-{number}", pieces, output_tokens, stage="refine"))
    return Program("chain_summary", tuple(calls), ((calls[-1].name, criteria),))


def map_reduce_summary(
    chunks_tokens: Sequence[int], output_tokens: int, document: str, criteria: Criteria = LATENCY
) -> Program:
    """Return the program that sums up each chunk by itself, and then all summaries together."""
    calls = [
        _summarise(number, tokens, output_tokens, document)
        for number, tokens in enumerate(chunks_tokens)
    ]
    summaries: list[Piece] = [Output(calls[0].name)]
    for call in calls[1:]:
        summaries += [_NEWLINE, Output(call.name)]
    pieces = prompt(_REDUCE_HEAD, summaries, _REDUCE_TAIL)
    reduce = ProgramCall("reduce", pieces, output_tokens, stage="reduce")
    return Program("map_reduce_summary", (*calls, reduce), (("reduce", criteria),))


def chain_jobs(
    times_s: Iterable[float],
    documents: Sequence[Sequence[int]],
    output_tokens: int = 50,
    run: str = "",
) -> Iterator[Arrival]:
    """Return a chain summary at each time, of the documents in turn.

    Args:
        times_s: When they begin.
        documents: Chunks of each.
        output_tokens: Length of each summary.
        run: Sets the texts of one run apart from another's; each job has a text of its own.
    """
    return jobs_at(times_s, lambda n: chain_summary(*_document(n, documents, output_tokens, run)))


def map_reduce_jobs(
    times_s: Iterable[float],
    documents: Sequence[Sequence[int]],
    output_tokens: int = 50,
    run: str = "",
) -> Iterator[Arrival]:
    """Return a map-reduce summary at each time; see :func:`chain_jobs`."""
    return jobs_at(
        times_s, lambda n: map_reduce_summary(*_document(n, documents, output_tokens, run))
    )


def background_jobs(
    times_s: Iterable[float],
    prompt_tokens: int = _BACKGROUND_TOKENS,
    output_tokens: int = 50,
    *,
    same_text: bool = True,
    run: str = "",
) -> Iterator[Arrival]:
    """Return the requests that run beside the chain in figure 12a.

    Args:
        times_s: When; the paper's are Poisson with 0 to 3.5 a second.
        prompt_tokens: Length of each prompt.
        output_tokens: Length of each output.
        same_text: Whether all have the same prompt, as they have in the artifact.
        run: Sets the texts of one run apart from another's.
    """
    return jobs_at(
        times_s,
        lambda n: single_call(
            "background",
            (Constant("background" if same_text else f"background/{run}/{n}", prompt_tokens),),
            output_tokens,
        ),
    )


def _document(
    number: int, documents: Sequence[Sequence[int]], output_tokens: int, run: str
) -> tuple[Sequence[int], int, str]:
    return documents[number % len(documents)], output_tokens, f"{run}/{number}"


def _summarise(number: int, tokens: int, output_tokens: int, document: str) -> ProgramCall:
    pieces = prompt(_SUMMARY_HEAD, _chunk(document, number, tokens), _SUMMARY_TAIL)
    return ProgramCall(f"summarise-{number}", pieces, output_tokens, stage="summarise")


def _chunk(document: str, number: int, tokens: int) -> Constant:
    return Constant(f"document/{document}/{number}", tokens)
