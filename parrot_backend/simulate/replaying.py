"""``parrot simulate --replay``: does the scheduler decide today as it did when it was recorded?"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from parrot_backend.sim.recording import RecordingError, read_recording, replay
from parrot_backend.simulate.exits import EXIT_FAILED, EXIT_OK


def replay_file(path: Path, console: Console) -> int:
    """Replay a recording and return the exit status: failed if anything was decided otherwise.

    Raises:
        RecordingError: The file is no recording.
        OSError: It cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogatepass") as lines:
            config, steps = read_recording(lines)
            result = replay(config, steps)
    except (RecordingError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: {error}") from error
    scheduler = config.scheduler
    _print(
        console,
        f"{path}: {result.num_events} events, {result.num_starts} attempts, placement "
        f"{scheduler.placement}",
    )
    if not result.num_different:
        _print(console, "the same decisions")
        return EXIT_OK
    _print(console, f"other decisions at {result.num_different} events:")
    for difference in result.different:
        _print(console, f"- {difference}")
    return EXIT_FAILED


def _print(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
