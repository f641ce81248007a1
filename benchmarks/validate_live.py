"""The simulator against a live server: the jobs of a recorded run, simulated, job by job.

A server with real engines runs jobs of several kinds and records what its core takes in. The
recording is replayed (the same decisions?), made into a trace (``parrot trace convert``), and
simulated. What is compared is the time from submit to reply, as the client measures it. Simulated
engines are calibrated in three ways: ``before``, by what the live engine says of itself after a
first phase, and the jobs after that are compared; ``run``, by the mean of what engines told during
the run (``parrot calibrate --recording``), and all jobs are; ``as recorded``, as fast at each time
as they told. On a machine that others use, too, speeds change while jobs run. The round trip is
that of a submit without calls.

    python -m benchmarks.validate_live [--engines 1] [--seconds 80] [--rate 1] [--seed 0]
        [--keep FOLDER] [--save]

``--seen FOLDER`` simulates a kept run again.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from benchmarks.common import Cell, append_rows, percentile
from benchmarks.live_programs import (
    Arrival,
    LiveProgram,
    bulk,
    chain,
    chat,
    copilot,
    map_reduce,
    team,
)
from benchmarks.serve_process import PARROT, serving
from parrot_backend.sim.json_lines import ReadReport
from parrot_backend.sim.traces import read_arrivals

_TIMEOUT_S = 300.0
_BARE_SUBMITS = 30

#: How engines were calibrated -> folder of the files, and of which jobs; options of the simulator.
_CALIBRATIONS = {
    "before": ("before", ()),
    "run": ("run", ()),
    "as recorded": ("run", ("--as-recorded",)),
}

#: Kind of job -> how many of a hundred arrivals.
MIX: dict[Callable[[object], LiveProgram], int] = {
    chat: 40,
    copilot: 25,
    chain: 15,
    map_reduce: 10,
    team: 5,
    bulk: 5,
}

#: Times of one job, in seconds: live, and simulated.
Pair = tuple[float, float]


def arrivals(seed: object, seconds: float, rate_per_s: float) -> list[Arrival]:
    """Return jobs of all kinds with exponential pauses."""
    draw = random.Random(repr(("validate", seed)))
    found, at_s = list[Arrival](), 0.0
    while (at_s := at_s + draw.expovariate(rate_per_s)) < seconds:
        (make,) = draw.choices(list(MIX), list(MIX.values()))
        found.append(Arrival(at_s, make((seed, len(found)))))
    return found


async def submit_all(url: str, jobs: Sequence[Arrival]) -> dict[str, float]:
    """Submit jobs at their times; return the time of each by its session.

    Raises:
        RuntimeError: A job did not get what it wanted.
    """
    times_s: dict[str, float] = {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits) as client:
        begin_s = time.perf_counter()

        async def run(job: Arrival) -> None:
            await asyncio.sleep(begin_s + job.at_s - time.perf_counter())
            sent_s = time.perf_counter()
            reply = await client.post("/v1/submit", json=job.program.body)
            ended_s = time.perf_counter()
            reply.raise_for_status()
            document = reply.json()
            for variable in document["variables"].values():
                if variable["state"] != "ready":
                    raise RuntimeError(f"{job.program.app}: {variable}")
            times_s[document["session_id"]] = ended_s - sent_s

        await asyncio.gather(*map(run, jobs))
    return times_s


async def bare_round_trip_s(url: str) -> float:
    """Return the median time of a submit of which no call is made."""
    transform = {"kind": "transform", "name": "t", "content": "x" * 2000, "output": "y"}
    body = {"app": "bare", "nodes": [transform], "outputs": [{"variable": "y"}], "close": True}
    times_s = []
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as client:
        for _ in range(_BARE_SUBMITS):
            begin_s = time.perf_counter()
            (await client.post("/v1/submit", json=body)).raise_for_status()
            times_s.append(time.perf_counter() - begin_s)
    return statistics.median(times_s)


def run_live(folder: Path, given: argparse.Namespace) -> None:
    """Run a server under load and leave its recording, calibrations and times in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    recording = folder / "run.jsonl"
    options = ("--record", str(recording), "--replicas", str(given.engines))
    with serving(*options, "--kv-cache-gib", "0.125", *given.serve) as url:
        learning = arrivals(("learn", given.seed), given.learn_s, given.rate)
        first_s = asyncio.run(submit_all(url, learning))
        _parrot("calibrate", "--url", url, "--out", str(folder / "before"))
        round_trip_s = asyncio.run(bare_round_trip_s(url))
        jobs = arrivals(given.seed, given.seconds, given.rate)
        times_s = asyncio.run(submit_all(url, jobs))
    live = {"round_trip_s": round_trip_s, "before": times_s, "run": {**first_s, **times_s}}
    (folder / "live.json").write_text(json.dumps(live, indent=1))


def replayed(folder: Path) -> None:
    """Replay a run's recording, calibrate by it and make a trace of it; say what commands say.

    Raises:
        RuntimeError: The replay decided otherwise.
    """
    recording, trace = str(folder / "run.jsonl"), folder / "trace.jsonl"
    print(_parrot("simulate", "--replay", recording), end="")
    print(_parrot("calibrate", "--recording", recording, "--out", str(folder / "run")), end="")
    trace.unlink(missing_ok=True)
    print(_parrot("trace", "convert", recording, str(trace)), end="")


def simulated(folder: Path, calibrated: str, given: argparse.Namespace) -> dict[str, list[Pair]]:
    """Simulate a run's jobs, and return times of those that are compared, by application."""
    live = json.loads((folder / "live.json").read_text())
    folder_name, options = _CALIBRATIONS[calibrated]
    live_s: dict[str, float] = live[folder_name]
    calibration = min((folder / folder_name).iterdir())
    _parrot(
        *("simulate", "--trace", str(folder / "trace.jsonl"), "--calibration", str(calibration)),
        *("--engines", str(given.engines), "--round-trip-ms", str(live["round_trip_s"] * 1e3)),
        *("--out", str(folder / "sim"), *options, *given.simulate),
    )
    report = ReadReport()
    users = [job.user for job in read_arrivals(folder / "trace.jsonl", report)]
    pairs: dict[str, list[Pair]] = {}
    with (folder / "sim" / "jobs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            session = users[int(row["job"])].removeprefix("session-")
            if session in live_s:
                took_s = float(row["finished_s"]) - float(row["arrived_s"])
                pairs.setdefault(row["app"], []).append((live_s[session], took_s))
    if sum(map(len, pairs.values())) != len(live_s):
        raise RuntimeError(f"{len(live_s)} jobs ran, and other ones were simulated")
    return pairs


def rows_of(
    pairs: Mapping[str, Sequence[Pair]], calibrated: str, given: argparse.Namespace
) -> list[dict[str, Cell]]:
    """Return a row for each application and one for all jobs; deviations are shares of live."""
    together = {**pairs, "all": [pair for each in pairs.values() for pair in each]}
    rows = []
    for app, found in together.items():
        live, simulated = (sorted(side) for side in zip(*found, strict=True))
        row: dict[str, Cell] = {
            "app": app,
            "calibrated": calibrated,
            "engines": given.engines,
            "rate_per_s": given.rate,
            "seed": given.seed,
            "jobs": len(found),
        }
        figures: dict[str, Callable[[Sequence[float]], float]] = {
            "mean": statistics.fmean,
            "median": statistics.median,
            "p90": lambda values: percentile(values, 0.9),
        }
        for name, figure in figures.items():
            row[f"live_{name}_s"] = round(figure(live), 4)
            row[f"simulated_{name}_s"] = round(figure(simulated), 4)
            row[f"{name}_off"] = round(figure(simulated) / figure(live) - 1.0, 4)
        off = [simulated_s / live_s - 1.0 for live_s, simulated_s in found]
        row["job_off_median"] = round(statistics.median(off), 4)
        row["job_abs_off_median"] = round(statistics.median(map(abs, off)), 4)
        row["job_abs_off_p90"] = round(percentile(list(map(abs, off)), 0.9), 4)
        rows.append(row)
    return rows


def show(rows: Sequence[Mapping[str, Cell]]) -> None:
    """Print times live and simulated, and by how much the latter are off."""
    print(f"{'':<12}{'jobs':>5}", end="")
    for name in ("mean", "median", "P90"):
        print(f"{f'{name}: live':>14}{'sim.':>8}{'off':>8}", end="")
    print(f"{'a job: off':>14}{'|off| median':>14}{'P90':>7}")
    for row in rows:
        print(f"{row['app']:<12}{row['jobs']:>5}", end="")
        for name in ("mean", "median", "p90"):
            live_s, simulated_s = row[f"live_{name}_s"], row[f"simulated_{name}_s"]
            print(f"{live_s:>14.3f}{simulated_s:>8.3f}{row[f'{name}_off']:>+8.1%}", end="")
        one, two, three = (
            row[f"job_{name}"] for name in ("off_median", "abs_off_median", "abs_off_p90")
        )
        print(f"{one:>+14.1%}{two:>14.1%}{three:>7.0%}")


def _parrot(*arguments: str) -> str:
    """Run a command to its end and return what it says.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run([*PARROT, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"parrot {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=80.0, help="jobs begin for so long")
    parser.add_argument("--learn-s", type=float, default=20.0, help="for so long before that")
    parser.add_argument("--rate", type=float, default=1.0, help="jobs per second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", nargs="*", default=[], help="more for parrot serve")
    parser.add_argument("--simulate", nargs="*", default=[], help="more for parrot simulate")
    parser.add_argument("--keep", type=Path, help="folder for recording, calibration and times")
    parser.add_argument("--seen", type=Path, help="a folder that was kept")
    parser.add_argument("--save", action="store_true", help="append the rows to results/")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = given.seen or given.keep or Path(scratch)
        if given.seen is None:
            run_live(folder, given)
        replayed(folder)
        rows = []
        for calibrated in _CALIBRATIONS:
            found = rows_of(simulated(folder, calibrated, given), calibrated, given)
            print(f"calibrated: {calibrated}")
            show(found)
            rows += found
    if given.save:
        print(f"rows appended to {append_rows('live_validation', rows)}")


if __name__ == "__main__":
    main()
