"""Work that nobody waits for."""

from __future__ import annotations

import subprocess
import sys
import threading

from parrot_integrations.planning.background import Background


def test_work_is_done_by_a_few_threads_and_its_errors_do_not_matter() -> None:
    background, names = Background(), set[str]()

    def work() -> None:
        names.add(threading.current_thread().name)
        raise ValueError

    for _ in range(100):
        background.run(work)
    assert background.settle(5)
    assert 1 <= len(names) <= 8


def test_what_takes_too_long_is_not_waited_for() -> None:
    background, held = Background(), threading.Event()
    background.run(lambda: (held.wait(), None)[1])
    assert not background.settle(0.01)
    held.set()
    assert background.settle(5)


def test_the_end_of_the_interpreter_waits_for_a_while_only() -> None:
    code = (
        "import time\n"
        "from parrot_integrations.planning import background as b\n"
        "b._AT_EXIT_S = 0.5\n"
        "b.background().run(lambda: (time.sleep(0.1), print('done', flush=True))[0])\n"
        "b.background().run(lambda: time.sleep(60))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout == "done\n"
