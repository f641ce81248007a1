"""Rows of a capacity question as plain numbers, with the units in their names: for files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from parrot_backend.sim.capacity import Answer, Row, Target
from parrot_backend.sim.summary import Spread

#: Files of other versions may have other fields.
_VERSION = 1


def measures_of(row: Row) -> dict[str, float | int | str | None]:
    """Return what one row tells; None for what is not known, as where no job has ended."""
    result, total = row.result, row.result.total
    busy = result.busy_shares
    return {
        "rate_per_s": row.point.rate_per_s,
        "engines": row.point.num_engines,
        "reason": row.reason,
        "jobs": total.num_jobs,
        "failed": total.num_failed,
        "unfinished": total.num_unfinished,
        "calls": total.num_calls,
        "retried": total.num_retried,
        **_spread("job", total.job_s),
        "bound_s": _known(row.bound_s),
        **_spread("ttft", total.ttft_s),
        **_spread("tpot", total.tpot_s),
        **_spread("queue", total.queue_s),
        "prompt_tokens": total.prompt_tokens,
        "cached_tokens": total.cached_tokens,
        "computed_tokens": total.computed_tokens,
        "recomputed_tokens": total.recomputed_tokens,
        "output_tokens": total.output_tokens,
        "hit_rate": _known(total.hit_rate),
        "jobs_per_s": _known(result.jobs_per_s),
        "output_tokens_per_s": _known(result.output_tokens_per_s),
        "busy_share": _known(math.fsum(busy) / len(busy) if busy else math.nan),
        "span_s": result.span_s,
        "keeps_target": "yes" if row.keeps_target else "no",
        "misses": "; ".join(row.misses),
    }


def document_of(
    settings: dict[str, Any],
    rows: Iterable[Row],
    target: Target,
    found: Iterable[Answer],
    *,
    is_complete: bool,
) -> dict[str, Any]:
    """Return all that came of a question, as JSON takes it.

    Args:
        settings: What was simulated.
        rows: What came of it.
        target: What users are to get.
        found: Answers.
        is_complete: It was not interrupted.
    """
    return {
        "format": "parrot-simulation",
        "version": _VERSION,
        **settings,
        "target": {"tpot_s": target.tpot_s, "job_p99_s": target.job_p99_s},
        "is_complete": is_complete,
        "rows": [measures_of(row) for row in rows],
        "answers": [
            {"rate_per_s": a.rate_per_s, "engines": a.num_engines, "text": a.text} for a in found
        ],
    }


def _spread(name: str, spread: Spread) -> dict[str, float | None]:
    return {
        f"{name}_mean_s": _known(spread.mean),
        f"{name}_p50_s": _known(spread.p50),
        f"{name}_p90_s": _known(spread.p90),
        f"{name}_p99_s": _known(spread.p99),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
