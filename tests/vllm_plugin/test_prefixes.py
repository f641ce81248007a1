"""Which named prefixes the cache holds, learnt from its events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.vllm_plugin.hints import PrefixHint
from parrot_backend.vllm_plugin.prefixes import (
    Hash,
    HeldPrefix,
    PrefixChanges,
    PrefixTracker,
)
from tests.core.hypothesis_settings import examples
from tests.vllm_plugin.fake_pool import Block, FakePool, Prompt, Requests, prompt_hashes

BLOCK_TOKENS = 16
NOTHING = PrefixChanges((), ())
CHAIN: tuple[Hash, ...] = (b"1", b"12", b"123")


def make_tracker(max_keys: int = 100, guarded: tuple[str, ...] = ()) -> PrefixTracker:
    return PrefixTracker(BLOCK_TOKENS, max_keys, guarded.__contains__)


def tracker_with(*cached: Hash) -> PrefixTracker:
    """Return a tracker that knows "p" as all of CHAIN, with some of the blocks cached."""
    tracker = make_tracker()
    tracker.learn_as("p", CHAIN)
    for block_hash in cached:
        tracker.stored(block_hash)
    return tracker


def held(key: str, num_blocks: int) -> HeldPrefix:
    return HeldPrefix(key, num_blocks * BLOCK_TOKENS)


# --- learning --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "num_blocks"),
    [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2), (47, 2), (48, 3), (63, 3), (64, 0), (1000, 0)],
)
def test_a_boundary_covers_the_full_blocks_before_it(tokens: int, num_blocks: int) -> None:
    tracker = make_tracker()
    tracker.learn([PrefixHint("p", tokens)], CHAIN)
    assert tuple(tracker.hashes("p")) == CHAIN[:num_blocks]


def test_boundaries_within_one_block_end_at_the_same_one() -> None:
    tracker = make_tracker()
    tracker.learn([PrefixHint("p", 17), PrefixHint("q", 20)], CHAIN)
    tracker.stored(CHAIN[0])
    assert tracker.take_changes() == ((held("p", 1), held("q", 1)), ())


def test_all_blocks_of_a_finished_request_get_one_key() -> None:
    assert tuple(tracker_with().hashes("p")) == CHAIN


def test_a_request_without_a_full_block_is_not_learnt() -> None:
    tracker = make_tracker()
    tracker.learn_as("p", ())
    assert (tracker.hashes("p"), tracker.is_held("p")) == ((), False)


def test_a_list_of_hashes_that_grows_later_changes_nothing() -> None:
    tracker = make_tracker()
    chain: list[Hash] = [b"1"]
    tracker.learn_as("p", chain)
    chain[:] = [b"2"]
    assert tuple(tracker.hashes("p")) == (b"1",)


def test_unknown_key_is_not_held() -> None:
    tracker = make_tracker()
    assert (tracker.hashes("p"), tracker.is_held("p"), tracker.snapshot()) == ((), False, ())


# --- what is held ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_cached", range(4))
def test_a_prefix_is_held_when_its_last_block_is(num_cached: int) -> None:
    assert tracker_with(*CHAIN[:num_cached]).is_held("p") == (num_cached == 3)


def test_blocks_cached_before_the_key_is_learnt_count() -> None:
    tracker = make_tracker()
    tracker.stored(CHAIN[2])
    tracker.learn_as("p", CHAIN)
    assert tracker.is_held("p")
    assert tracker.take_changes() == ((held("p", 3),), ())


def test_of_equal_blocks_the_last_one_evicted_decides() -> None:
    tracker = tracker_with(CHAIN[2], CHAIN[2])
    tracker.removed(CHAIN[2])
    assert tracker.is_held("p")
    tracker.removed(CHAIN[2])
    assert not tracker.is_held("p")


def test_eviction_of_a_block_never_stored_is_ignored() -> None:
    tracker = tracker_with()
    tracker.removed(CHAIN[2])
    tracker.stored(CHAIN[2])
    assert tracker.is_held("p")


def test_nothing_is_held_after_a_clear() -> None:
    tracker = tracker_with(*CHAIN, *CHAIN)
    tracker.take_changes()
    tracker.cleared()
    assert not tracker.is_held("p")
    assert tracker.take_changes() == ((), ("p",))


def test_a_cleared_cache_fills_again() -> None:
    tracker = tracker_with(*CHAIN)
    tracker.cleared()
    tracker.stored(CHAIN[2])
    assert tracker.snapshot() == (held("p", 3),)


# --- changes ---------------------------------------------------------------------------------


def test_a_change_is_reported_once() -> None:
    tracker = tracker_with(*CHAIN)
    assert tracker.take_changes() == ((held("p", 3),), ())
    assert tracker.take_changes() == NOTHING
    tracker.removed(CHAIN[2])
    assert tracker.take_changes() == ((), ("p",))
    assert tracker.take_changes() == NOTHING


def test_held_and_lost_again_is_no_change() -> None:
    tracker = tracker_with(CHAIN[2])
    tracker.removed(CHAIN[2])
    assert tracker.take_changes() == NOTHING


def test_lost_and_held_again_is_no_change() -> None:
    tracker = tracker_with(CHAIN[2])
    tracker.take_changes()
    tracker.removed(CHAIN[2])
    tracker.stored(CHAIN[2])
    assert tracker.take_changes() == NOTHING


def test_learning_again_is_no_change() -> None:
    tracker = tracker_with(CHAIN[2])
    tracker.take_changes()
    tracker.learn_as("p", CHAIN)
    assert tracker.take_changes() == NOTHING


def test_a_snapshot_takes_no_changes() -> None:
    tracker = tracker_with(CHAIN[2])
    assert tracker.snapshot() == (held("p", 3),)
    assert tracker.take_changes() == ((held("p", 3),), ())


@pytest.mark.parametrize(
    ("other", "changes"),
    [
        ((b"x",), PrefixChanges((), ("p",))),
        ((b"y",), PrefixChanges((held("p", 1),), ())),
        ((b"y", b"yz", b"yzz"), NOTHING),
    ],
)
def test_a_key_that_comes_with_other_hashes_is_replaced(
    other: tuple[Hash, ...], changes: PrefixChanges
) -> None:
    tracker = tracker_with(CHAIN[2], b"y", b"yzz")
    tracker.take_changes()
    tracker.learn_as("p", other)
    assert tuple(tracker.hashes("p")) == other
    assert tracker.take_changes() == changes


def test_replaced_hashes_do_not_matter_any_more() -> None:
    tracker = tracker_with()
    tracker.learn_as("p", (b"x",))
    tracker.stored(CHAIN[2])
    assert tracker.take_changes() == NOTHING


# --- forgetting ------------------------------------------------------------------------------


def learn_names(tracker: PrefixTracker, names: str) -> None:
    for name in names:
        tracker.learn_as(name, (name.encode(),))


def known(tracker: PrefixTracker) -> str:
    return "".join(name for name in "pqrstuvw" if tracker.hashes(name))


@pytest.mark.parametrize(
    ("names", "guarded", "expected"),
    [
        ("pqr", (), "pqr"),
        ("pqrs", (), "qrs"),
        ("pqrps", (), "prs"),
        ("pqrstu", (), "stu"),
        ("pqrs", ("p",), "prs"),
        ("pqrst", ("p",), "pst"),
        ("pqrs", ("p", "q"), "pqrs"),
        ("pqrstu", ("p", "q"), "pqtu"),
        ("pqrstuv", ("p", "q"), "pqv"),
        ("pqrstuvw", tuple("pqrstuvw"), "pqrstuvw"),
    ],
)
def test_least_recently_learnt_key_that_is_not_guarded_is_forgotten(
    names: str, guarded: tuple[str, ...], expected: str
) -> None:
    tracker = make_tracker(max_keys=3, guarded=guarded)
    learn_names(tracker, names)
    assert known(tracker) == expected


def test_a_forgotten_key_that_was_held_is_reported_as_lost() -> None:
    tracker = make_tracker(max_keys=1)
    tracker.stored(b"p")
    learn_names(tracker, "p")
    tracker.take_changes()
    learn_names(tracker, "q")
    assert tracker.take_changes() == ((), ("p",))


def test_a_forgotten_key_that_was_never_reported_is_not_lost() -> None:
    tracker = make_tracker(max_keys=1)
    tracker.stored(b"p")
    learn_names(tracker, "pq")
    assert tracker.take_changes() == NOTHING


def test_a_key_forgotten_and_learnt_again_is_no_change() -> None:
    tracker = make_tracker(max_keys=1)
    tracker.stored(b"p")
    learn_names(tracker, "p")
    tracker.take_changes()
    learn_names(tracker, "qp")
    assert tracker.take_changes() == NOTHING


def test_nothing_is_kept_of_forgotten_keys() -> None:
    tracker = make_tracker(max_keys=1)
    tracker.stored(b"p")
    learn_names(tracker, "p")
    tracker.take_changes()
    learn_names(tracker, "qrstu")
    tracker.take_changes()
    kept = (tracker._boundaries, tracker._keys_ending_at, tracker._reported, tracker._touched)
    assert [len(table) for table in kept] == [1, 1, 0, 0]


def test_a_prefix_lost_and_reported_is_reported_when_it_is_held_again() -> None:
    tracker = tracker_with(CHAIN[2])
    for _ in range(2):
        assert tracker.take_changes() == ((held("p", 3),), ())
        tracker.removed(CHAIN[2])
        assert tracker.take_changes() == ((), ("p",))
        tracker.stored(CHAIN[2])


# --- against a pool --------------------------------------------------------------------------

PROMPTS: list[Prompt] = [(0, 1, 1), (0, 1, 2, 0), (0, 2), (1, 0, 0, 0), (1, 0, 1)]
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(0, len(PROMPTS) - 1), st.booleans()),
        st.tuples(st.just("start"), st.integers(0, len(PROMPTS) - 1), st.booleans()),
        st.tuples(st.just("step"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("finish"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("report"), st.just(0), st.booleans()),
        st.tuples(st.just("clear"), st.just(0), st.just(value=True)),
    ),
    min_size=20,
    max_size=60,
)


class _Truth:
    """A pool with requests, a tracker fed with its events, and a consumer of the reports."""

    def __init__(self, max_keys: int) -> None:
        self.tracker = make_tracker(max_keys)
        self.pool = FakePool(6, self.tracker.stored, self.tracker.removed)
        self.requests = Requests[Block](self.pool, prompt_hashes)
        self.learnt: dict[Prompt, None] = {}
        self.reported: dict[str, int] = {}
        self._max_keys = max_keys

    def apply(self, action: tuple[str, int, bool]) -> None:
        name, number, flag = action
        running = self.requests.running
        if name in ("start", "run"):
            self._start(PROMPTS[number], reads_cache=flag)
            if name == "run":
                self.requests.step(running[-1], len(PROMPTS[number]))
                self.requests.finish(running[-1])
        elif name == "clear" and self.pool.clear():
            self.tracker.cleared()
        elif name == "report":
            self.report()
        elif name == "step" and number < len(running):
            self.requests.step(running[number], 2 if flag else 1, extra=number % 2)
        elif name == "finish" and number < len(running):
            self.requests.finish(running[number])

    def _start(self, prompt: Prompt, *, reads_cache: bool) -> None:
        boundaries = [prompt[:end] for end in range(1, len(prompt) + 1)]
        for boundary in boundaries:
            self.learnt.pop(boundary, None)
            self.learnt[boundary] = None
        while len(self.learnt) > self._max_keys:
            del self.learnt[next(iter(self.learnt))]
        hints = [PrefixHint(repr(b), len(b) * BLOCK_TOKENS + 3) for b in boundaries[:-1]]
        hints.append(PrefixHint(repr(prompt), len(prompt) * BLOCK_TOKENS))
        self.tracker.learn(hints, prompt_hashes(prompt))
        self.requests.start(prompt, reads_cache=reads_cache)

    def report(self) -> None:
        changes = self.tracker.take_changes()
        for key, tokens in changes.held:
            assert self.reported.get(key) != tokens
            self.reported[key] = tokens
        for key in changes.lost:
            del self.reported[key]

    def held(self) -> dict[str, int]:
        """Look up every block of every known prefix, not only the last."""
        return {
            repr(prefix): len(prefix) * BLOCK_TOKENS
            for prefix in self.learnt
            if all(self.pool.cached_block(block_hash) for block_hash in prompt_hashes(prefix))
        }


@examples(300)
@given(_ACTIONS, st.sampled_from([5, 100]))
def test_tracker_and_reports_agree_with_the_pool(
    actions: list[tuple[str, int, bool]], max_keys: int
) -> None:
    truth = _Truth(max_keys)
    for action in actions:
        truth.apply(action)
        assert dict(truth.tracker.snapshot()) == truth.held()
    truth.report()
    assert truth.reported == truth.held()
