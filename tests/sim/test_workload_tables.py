"""The tables against the statistics that were published or computed of their sources."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, pstdev, quantiles

import pytest

from parrot_backend.sim.workloads import tables
from parrot_backend.sim.workloads.shared_prompts import COPILOT_SHARED_TOKENS
from parrot_backend.sim.workloads.tables import TracedRequest


def statistics(values: Sequence[int]) -> tuple[float, float, float, float]:
    """Return the mean, and percentiles 50, 90 and 99 with linear interpolation."""
    percentiles = quantiles(values, n=100, method="inclusive")
    return fmean(values), percentiles[49], percentiles[89], percentiles[98]


@pytest.mark.parametrize(
    ("chunk_size", "mean_tokens"), [(512, 236), (1024, 472), (1536, 704), (2048, 935)]
)
def test_chunks_are_as_long_as_the_artifact_really_made_them(chunk_size: int, mean_tokens: int):
    articles = [tables.arxiv_chunks()["arxiv-sampled", n, chunk_size] for n in range(10)]
    assert fmean(map(fmean, articles)) == pytest.approx(mean_tokens, abs=0.5)


def test_articles_have_46_to_104_chunks_of_1024():
    chunks = tables.arxiv_chunks()
    first = [len(chunks["arxiv-sampled", article, 1024]) for article in range(10)]
    assert first == [75, 46, 53, 46, 62, 59, 104, 100, 49, 63]
    assert sum(name == "arxiv-sampled-1" for name, _, _ in chunks) == 30 * 4
    # Cut from the same text: chunks of all sizes add up to nearly the same.
    for article in range(10):
        totals = [sum(chunks["arxiv-sampled", article, size]) for size in (512, 1024, 1536, 2048)]
        assert max(totals) - min(totals) < 0.005 * max(totals)


def test_copilot():
    requests = tables.copilot()
    assert len(requests) == 64
    assert fmean(r.prompt_tokens for r in requests) == pytest.approx(5871, abs=1)
    assert fmean(r.output_tokens for r in requests) == pytest.approx(331, abs=1)
    assert (min(r.output_tokens for r in requests), max(r.output_tokens for r in requests)) == (
        183,
        800,
    )
    shared = COPILOT_SHARED_TOKENS * len(requests) / sum(r.prompt_tokens for r in requests)
    assert shared == pytest.approx(0.87, abs=0.005)


def test_four_gpts():
    told = [(g.system_tokens, g.query_tokens, g.output_tokens) for g in tables.four_gpts()]
    assert told == [(7437, 7, 704), (1116, 8, 89), (1694, 4, 631), (2031, 4, 416)]


def test_metagpt():
    rounds = tables.metagpt()
    assert list(map(len, rounds.values())) == [1, *[8] * 7]
    calls = [call for calls in rounds.values() for call in calls]
    assert fmean(c.prompt_tokens for c in calls) == pytest.approx(4749, abs=1)
    assert fmean(c.output_tokens for c in calls) == pytest.approx(462, abs=1)
    reused = sum(c.shared_tokens for calls in rounds.values() for c in calls[1:])
    assert reused / sum(c.prompt_tokens for c in calls) == pytest.approx(0.856, abs=0.001)


def test_sharegpt():
    chats = tables.sharegpt()
    assert len(chats) == 300
    prompts = statistics([chat.prompt_tokens for chat in chats])
    assert prompts == pytest.approx((857, 732, 1460, 2765), rel=0.001)
    assert fmean(chat.output_tokens for chat in chats) == pytest.approx(653, abs=1)


def test_swe_agent():
    sessions = tables.swe_agent()
    assert len(sessions) == 22
    assert sum(map(len, sessions)) == 230
    prompts, reused = list[int](), 0
    for turns in sessions:
        prompt = 0
        for turn in turns:
            reused += prompt
            prompts.append(prompt + turn.new_tokens)
            prompt += turn.new_tokens + turn.output_tokens
    assert statistics(prompts) == pytest.approx((6234, 5714, 12532, 17155), rel=0.001)
    assert reused / sum(prompts) == pytest.approx(0.874, abs=0.003)
    outputs = [turn.output_tokens for turns in sessions for turn in turns]
    assert statistics(outputs) == pytest.approx((102.5, 74, 178, 632), rel=0.001)


def test_azure():
    requests = list(tables.azure_conversation())
    assert len(requests) == 19_366
    assert requests[-1].time_ms / 1000 == pytest.approx(3502, abs=1)
    prompts = statistics([r.prompt_tokens for r in requests])
    assert prompts == pytest.approx((1155, 1020, 2734, 4142), rel=0.005)
    outputs = statistics([r.output_tokens for r in requests])
    assert outputs == pytest.approx((211, 129, 424, 601), rel=0.005)
    assert _cv(requests) == pytest.approx(1.09, abs=0.01)


def test_mooncake():
    requests = list(tables.mooncake_conversation())
    assert len(requests) == 12_031
    assert requests[-1].time_ms == 3_536_999
    prompts = statistics([r.prompt_tokens for r in requests])
    assert prompts == pytest.approx((12_035, 6909, 27_367, 85_400), rel=0.005)
    outputs = statistics([r.output_tokens for r in requests])
    assert outputs == pytest.approx((343, 350, 597, 1119), rel=0.005)
    assert _cv(requests) == pytest.approx(3.0, abs=0.1)
    assert sum(len(r.block_ids) for r in requests) == 288_500
    assert all(len(r.block_ids) == -(-r.prompt_tokens // 512) for r in requests)


def test_mooncake_shares_as_much_as_an_endless_cache_would_find():
    seen = set[int]()
    blocks = hits = 0
    for request in tables.mooncake_conversation():
        for block in request.block_ids:
            blocks += 1
            hits += block in seen
            seen.add(block)
    assert hits / blocks == pytest.approx(0.366, abs=0.001)


def _cv(requests: Sequence[TracedRequest]) -> float:
    times = [r.time_ms for r in requests]
    gaps = [after - before for before, after in pairwise(times)]
    return pstdev(gaps) / fmean(gaps)
