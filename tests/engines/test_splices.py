"""Which staged requests go on when an attempt ends."""

from __future__ import annotations

from parrot_backend.core.ids import AttemptId
from parrot_backend.engines.vllm.splices import Splices

A, B, C, D = (AttemptId(f"s.{name}#0~1") for name in "abcd")


async def test_all_that_wait_for_an_attempt_go_on_with_its_tokens():
    splices = Splices()
    first, second, other = splices.add(B, A), splices.add(C, A), splices.add(D, B)
    assert splices.finished(A, 7) == (B, C)
    assert await first.gap_tokens == await second.gap_tokens == 7
    assert not other.gap_tokens.done()


async def test_nothing_goes_on_twice():
    splices = Splices()
    splices.add(B, A)
    assert splices.finished(A, 1) == (B,)
    assert splices.finished(A, 1) == ()


async def test_without_a_token_nothing_goes_on_then_or_later():
    splices = Splices()
    staged = splices.add(B, A)
    assert splices.finished(A, 0) == ()
    assert splices.finished(A, 3) == ()
    assert not staged.gap_tokens.done()
    splices.remove(staged)


async def test_what_was_removed_does_not_go_on():
    splices = Splices()
    removed, kept = splices.add(B, A), splices.add(C, A)
    splices.remove(removed)
    assert splices.finished(A, 2) == (C,)
    assert not removed.gap_tokens.done()
    assert kept.gap_tokens.done()


async def test_removing_is_idempotent_and_forgets_the_last_one():
    splices = Splices()
    staged = splices.add(B, A)
    splices.remove(staged)
    splices.remove(staged)
    assert splices.finished(A, 2) == ()
    gone_on = splices.add(C, A)
    splices.finished(A, 2)
    splices.remove(gone_on)
    assert gone_on.gap_tokens.result() == 2


async def test_an_aborted_one_that_still_waits_for_its_turn_is_passed_over():
    # Its task is cancelled at once and takes it out only when it runs next.
    splices = Splices()
    aborted, other = splices.add(B, A), splices.add(C, A)
    aborted.gap_tokens.cancel()
    assert splices.finished(A, 2) == (C,)
    assert other.gap_tokens.result() == 2


async def test_an_attempt_that_nobody_waits_for():
    assert Splices().finished(A, 5) == ()
