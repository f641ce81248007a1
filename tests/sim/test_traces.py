"""Traces: what is written is read again, bad lines are told by number, and reading is lazy."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.sim import json_lines
from parrot_backend.sim.json_lines import ReadReport, parse_rows
from parrot_backend.sim.program import Arrival, Constant, Output, Program, ProgramCall
from parrot_backend.sim.program_rows import row_of, take_arrival
from parrot_backend.sim.traces import (
    read_arrivals,
    read_mooncake,
    read_programs,
    write_mooncake,
    write_programs,
)
from parrot_backend.sim.workloads.checks import WorkloadError
from parrot_backend.sim.workloads.registry import APPS, make_workload
from parrot_backend.sim.workloads.replayed import forks, replay
from parrot_backend.sim.workloads.tables import TracedRequest, mooncake_conversation
from tests.core.hypothesis_settings import examples

GOOD = {"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [0, 1]}


def mooncake(path: Path, *lines: object) -> tuple[list[TracedRequest], ReadReport]:
    texts = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    path.write_bytes(b"\n".join(texts))
    report = ReadReport()
    return list(read_mooncake(path, report)), report


def test_a_line_becomes_a_request(tmp_path: Path):
    requests, report = mooncake(tmp_path / "t", GOOD)
    assert requests == [TracedRequest(5, 600, 7, (0, 1))]
    assert str(report) == "1 lines: 1 read, 0 bad"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"12", "no JSON object"),
        (b'{"timestamp": ' + b"1" * 5000 + b"}", "no JSON"),
        (GOOD | {"timestamp": -1}, "timestamp"),
        (GOOD | {"timestamp": "0"}, "timestamp"),
        (b'{"timestamp": NaN, "input_length": 1, "output_length": 1}', "timestamp"),
        (b'{"timestamp": 1e999, "input_length": 1, "output_length": 1}', "timestamp"),
        (GOOD | {"timestamp": 4}, "before"),
        (GOOD | {"input_length": 0}, "input_length"),
        (GOOD | {"input_length": True}, "input_length"),
        (GOOD | {"input_length": 10**8}, "input_length"),
        (GOOD | {"input_length": 1.5}, "input_length"),
        ({"timestamp": 9, "output_length": 3}, "input_length .* missing"),
        (GOOD | {"output_length": None}, "output_length"),
        (GOOD | {"hash_ids": [0, 1, 2]}, "600 tokens has not 3 blocks"),
        (GOOD | {"hash_ids": [0, "1"]}, "hash_ids"),
        (GOOD | {"hash_ids": {"0": 1}}, "hash_ids"),
        (GOOD | {"hash_ids": [2**70]}, "hash_ids"),
    ],
)
def test_bad_lines_are_told_by_number_and_the_others_are_read(
    wrong: object, says: str, tmp_path: Path
):
    requests, report = mooncake(tmp_path / "t", GOOD, wrong, b"", GOOD)
    assert len(requests) == 2
    assert (report.num_lines, report.num_read, report.num_bad) == (4, 2, 1)
    (bad,) = report.bad
    assert bad.number == 2
    assert re.search(says, bad.message)
    assert "line 2:" in str(report)
    assert len(bad.message) < 300


def test_fields_that_mean_nothing_are_told(tmp_path: Path):
    requests, report = mooncake(tmp_path / "t", GOOD | {"type": "chat"}, GOOD)
    assert len(requests) == 2
    assert report.ignored_fields == {"type": 1}
    assert "field 'type' was ignored in 1 lines" in str(report)


@pytest.mark.parametrize("tenant", [7, None, ["a"]])
def test_a_tenant_is_a_text_or_absent(tenant: object, tmp_path: Path):
    requests, report = mooncake(tmp_path / "t", GOOD | {"tenant": tenant}, GOOD | {"tenant": "a"})
    assert [request.tenant for request in requests] == ["a"]
    assert "line 1: tenant must be a text" in str(report)
    assert not report.ignored_fields


def test_equal_blocks_of_two_tenants_are_of_two_users():
    blocks = [(0,), (0, 1), (0, 1, 2)]
    requests = [TracedRequest(n, 5000, 5, blocks[n % 3], "ab"[n // 3]) for n in range(6)]
    users = [(job.program.tenant, job.user) for job in replay(requests, "app")]
    assert users[1] == users[2]
    assert users[4] == users[5]
    assert {user for tenant, user in users if tenant == "a"}.isdisjoint(
        user for tenant, user in users if tenant == "b"
    )


def test_what_all_prompts_of_a_tenant_begin_with_makes_no_session():
    blocks = [(0, 1), (0, 2), (5, 6), (5, 7), (5, 7, 8)]
    requests = [TracedRequest(n, 5000, 5, ids, "ab"[ids[0] == 5]) for n, ids in enumerate(blocks)]
    users = [job.user for job in replay(requests, "app")]
    assert len(set(users[:4])) == 4
    assert users[4] == users[3]


def test_hashes_may_be_absent_or_end_before_the_prompt(tmp_path: Path):
    bare = {"timestamp": 0.0, "input_length": 2000, "output_length": 3.0}
    requests, report = mooncake(tmp_path / "t", bare, bare | {"hash_ids": [4]})
    assert not report.num_bad
    first, second = replay(requests, "app")
    assert [p.tokens for p in constants(first)] == [2000]
    assert [(p.key, p.tokens) for p in constants(second)] == [("app/4", 512), ("app/own/1", 1488)]


def constants(arrival: Arrival) -> list[Constant]:
    (call,) = arrival.program.calls
    return [piece for piece in call.prompt if isinstance(piece, Constant)]


def test_many_bad_lines_are_counted_and_only_the_first_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(json_lines, "MAX_KEPT_LINES", 3)
    requests, report = mooncake(tmp_path / "t", *[b"x"] * 10, GOOD)
    assert (len(requests), report.num_bad) == (1, 10)
    assert [bad.number for bad in report.bad] == [1, 2, 3]
    assert "and 7 more bad lines" in str(report)


def test_a_line_that_is_too_long_is_bad_and_not_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 100)
    long = b'{"timestamp": 5, "x": "' + b"x" * 1000 + b'"}'
    requests, report = mooncake(tmp_path / "t", GOOD, long, GOOD)
    assert len(requests) == 2
    assert [bad.number for bad in report.bad] == [2]
    assert "longer than" in report.bad[0].message


def test_reading_is_lazy(tmp_path: Path):
    path = tmp_path / "t"
    write_mooncake(path, [TracedRequest(n, 5, 5) for n in range(100)])
    report = ReadReport()
    assert len(list(islice(read_mooncake(path, report), 3))) == 3
    assert report.num_lines == 3


def test_the_whole_mooncake_trace_is_written_and_read_again(tmp_path: Path):
    path = tmp_path / "trace.jsonl.gz"
    assert write_mooncake(path, mooncake_conversation()) == 12_031
    report = ReadReport()
    assert list(read_mooncake(path, report)) == list(mooncake_conversation())
    assert (report.num_read, report.num_bad) == (12_031, 0)
    with gzip.open(path, "rt") as lines:
        first = json.loads(next(lines))
    assert first == {
        "timestamp": 0,
        "input_length": 6758,
        "output_length": 500,
        "hash_ids": list(range(14)),
    }


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_export_keeps_whole_lines(ending: type[BaseException], tmp_path: Path):
    def requests() -> Iterator[TracedRequest]:
        yield TracedRequest(0, 5, 5)
        yield TracedRequest(1, 6, 6)
        raise ending

    path = tmp_path / "t.gz"
    with pytest.raises(ending):
        write_mooncake(path, requests())
    report = ReadReport()
    assert [r.time_ms for r in read_mooncake(path, report)] == [0, 1]
    assert not report.num_bad


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: data[:40] + b"x" * 99])
def test_a_compressed_file_that_is_broken_is_read_as_far_as_it_goes(
    damage: Callable[[bytes], bytes], tmp_path: Path
):
    path = tmp_path / "t.gz"
    write_mooncake(path, [TracedRequest(n, n * n + 1, 5) for n in range(2000)])
    path.write_bytes(damage(path.read_bytes()))
    report = ReadReport()
    requests = list(read_mooncake(path, report))
    assert [r.time_ms for r in requests] == list(range(len(requests)))
    assert len(requests) < 2000
    assert report.num_bad == 1
    assert "ends here" in report.bad[0].message
    path.write_bytes(b"no such thing")
    assert not list(read_mooncake(path, ReadReport()))


def test_either_form_is_known_by_its_first_object(tmp_path: Path):
    path = tmp_path / "trace.jsonl"
    jobs = list(islice(make_workload("debate", 0, {}), 3))
    write_programs(path, jobs)
    report = ReadReport()
    twice = list(read_arrivals(path, report, speed=2.0))
    assert [job.program for job in twice] == [job.program for job in jobs]
    assert [job.time_s * 2 for job in twice] == [job.time_s for job in jobs]
    path.write_bytes(b"what is this\n" + json.dumps(GOOD).encode())
    report = ReadReport()
    (job,) = read_arrivals(path, report)
    assert (job.program.app, job.user, job.time_s) == ("trace", "session-0", 0.005)
    assert [bad.number for bad in report.bad] == [1]
    path.write_bytes(b"")
    assert not list(read_arrivals(path, report))
    with pytest.raises(WorkloadError, match="speed"):
        read_arrivals(path, report, speed=0.0)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        list(read_mooncake(tmp_path / "none", ReadReport()))
    with pytest.raises(WorkloadError):
        read_mooncake(tmp_path / "none", ReadReport(), block_tokens=0)


def test_joined_blocks_share_as_much_as_single_ones():
    requests = list(mooncake_conversation())[:3000]
    joined = replay(requests, "app", ends=forks(requests, 512))
    single = replay(requests, "app")
    shared = [[_shared_tokens(p) for p in _prefixes(jobs)] for jobs in (joined, single)]
    assert shared[0] == shared[1]
    assert sum(shared[0]) > 0


def _prefixes(jobs: Iterator[Arrival]) -> Iterator[list[tuple[tuple[str, int], bool]]]:
    """Return each prompt's pieces, and whether an earlier prompt has the prefix up to them."""
    seen = set[tuple[tuple[str, int], ...]]()
    for job in jobs:
        pieces = [(piece.key, piece.tokens) for piece in constants(job)]
        prefixes = [tuple(pieces[: end + 1]) for end in range(len(pieces))]
        yield [(piece, prefix in seen) for piece, prefix in zip(pieces, prefixes, strict=True)]
        seen.update(prefixes)


def _shared_tokens(pieces: list[tuple[tuple[str, int], bool]]) -> int:
    return sum(tokens for (_, tokens), is_shared in pieces if is_shared)


names = st.text('abcxyz é\n"', min_size=1, max_size=6)
tokens = st.integers(1, 10_000_000)


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    calls = list[ProgramCall]()
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        earlier = [call.name for call in calls]
        pieces = [st.builds(Constant, names, tokens)]
        some = (
            st.lists(st.sampled_from(earlier), max_size=2, unique=True) if earlier else st.just([])
        )
        output = draw(tokens)
        prompt = draw(
            st.lists(
                st.one_of(
                    *pieces, *([st.builds(Output, st.sampled_from(earlier))] * bool(earlier))
                ),
                min_size=1,
                max_size=4,
            )
        )
        bounded = draw(st.booleans())
        calls.append(
            ProgramCall(
                name,
                tuple(prompt),
                output,
                draw(st.integers(output, 10_000_000)) if bounded else None,
                draw(st.none() | names),
                draw(st.floats(0, 100)),
                tuple(draw(some)),
            )
        )
    wanted = draw(
        st.lists(st.sampled_from([c.name for c in calls]), min_size=1, max_size=3, unique=True)
    )
    target = st.none() | st.floats(0, 100)
    criteria = st.builds(Criteria, st.sampled_from(CriteriaKind), target, target, target)
    program = Program(
        draw(names), tuple(calls), tuple((name, draw(criteria)) for name in wanted), draw(names)
    )
    return Arrival(draw(st.floats(0, 1e6)), program, draw(st.just("") | names))


requests_of_tenants = st.builds(
    TracedRequest,
    st.integers(0, 10**6),
    st.integers(1024, 10**6),
    tokens,
    st.lists(st.integers(0, 9), max_size=2).map(tuple),
    st.just("default") | names,
)


@examples(50)
@given(st.lists(requests_of_tenants, max_size=5))
def test_any_requests_are_read_as_they_were_written(requests: list[TracedRequest]):
    requests.sort(key=lambda request: request.time_ms)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        write_mooncake(path, requests)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert list(read_mooncake(path, ReadReport())) == requests
    assert ["tenant" in row for row in rows] == [r.tenant != "default" for r in requests]


@examples(50)
@given(arrivals())
def test_any_job_is_read_as_it_was_written(arrival: Arrival):
    line = json.dumps(row_of(arrival)).encode()
    report = ReadReport()
    assert list(parse_rows([line], take_arrival, report)) == [arrival]
    assert not report.num_bad


@examples(50)
@given(arrivals(), st.data())
def test_a_damaged_job_is_told_and_never_ends_the_reading(arrival: Arrival, data: st.DataObject):
    line = json.dumps(row_of(arrival)).encode()
    at = data.draw(st.integers(0, len(line) - 1))
    damaged = line[:at] + data.draw(st.binary(max_size=3)) + line[at + 1 :]
    lines = [line, damaged.replace(b"\n", b" "), line]
    report = ReadReport()
    read = list(parse_rows(lines, take_arrival, report))
    assert read[0] == read[-1] == arrival
    assert report.num_read == len(read)
    assert report.num_read + report.num_bad + (not damaged.strip()) == report.num_lines == 3
    assert all(bad.number == 2 for bad in report.bad)


@examples(50)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_counted(lines: list[bytes]):
    report = ReadReport()
    read = list(parse_rows(lines, take_arrival, report))
    assert not read
    assert report.num_lines == len(lines)
    assert report.num_bad == sum(bool(line.strip()) for line in lines)


@pytest.mark.parametrize("name", sorted(set(APPS) - {"mooncake", "azure"}))
def test_every_workload_goes_through_a_file(name: str, tmp_path: Path):
    jobs = list(islice(make_workload(name, 5, {}), 3))
    assert write_programs(tmp_path / "t", jobs) == len(jobs)
    report = ReadReport()
    assert list(read_programs(tmp_path / "t", report)) == jobs
    assert report.num_read == len(jobs)


JOB = {
    "parrot_job": 1,
    "time_s": 2.0,
    "app": "a",
    "calls": [{"name": "c", "prompt": [{"text": "k", "tokens": 3}], "output_tokens": 2}],
    "wanted": [{"call": "c"}],
}


def changed(path: str, value: object) -> dict[str, object]:
    job = json.loads(json.dumps(JOB))
    at, *rest = path.split(".")
    place = job
    for step in rest:
        place = place[int(at)] if isinstance(place, list) else place[at]
        at = step
    place[int(at) if isinstance(place, list) else at] = value
    return job  # type: ignore[no-any-return]


def test_what_has_a_default_may_be_absent():
    call = ProgramCall("c", (Constant("k", 3),), 2)
    program = Program("a", (call,), (("c", Criteria(CriteriaKind.UNSTATED)),))
    assert take_arrival(JOB) == Arrival(2.0, program)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (changed("parrot_job", 2), "parrot_job must be 1"),
        (GOOD, "no field"),
        (changed("surprise", 1), "no field 'surprise'"),
        (changed("time_s", -1), "time_s"),
        (changed("time_s", 1), "before"),
        (changed("app", 7), "app"),
        (changed("calls", "c"), "calls"),
        (changed("calls", [1]), "JSON objects"),
        (changed("calls.0.name", None), "name"),
        (changed("calls.0.model", "m"), "no field 'model'"),
        (changed("calls.0.prompt", []), "no prompt"),
        (changed("calls.0.prompt.0", {"text": "k"}), "a piece"),
        (changed("calls.0.prompt.0", {"output": "c"}), "does not come before"),
        (changed("calls.0.output_tokens", 0), "output_tokens"),
        (changed("calls.0.max_tokens", 1), "more tokens than it may"),
        (changed("calls.0.think_s", "long"), "think_s"),
        (changed("calls.0.after", ["d"]), "needs 'd'"),
        (changed("calls.0.after", [1]), "names of calls"),
        (changed("wanted", []), "nothing is wanted"),
        (changed("wanted.0.call", "d"), "no call 'd'"),
        (changed("wanted.0.kind", "soon"), "no criterion"),
        (changed("wanted.0.tpot_s", -1), "tpot_s"),
    ],
)
def test_a_job_that_means_nothing_is_told(wrong: dict[str, object], says: str, tmp_path: Path):
    path = tmp_path / "jobs"
    path.write_text("\n".join(map(json.dumps, (JOB, wrong, JOB))))
    report = ReadReport()
    assert len(list(read_programs(path, report))) == 2
    assert [bad.number for bad in report.bad] == [2]
    assert says in report.bad[0].message
