"""A host without an engine, and with a child process, that misbehaves as it is told.

Its first argument is ``good``, ``failing``, ``silent`` (ends at once), ``stubborn`` (ignores the
end of its input) or ``full`` (cannot reset).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time


def say(**fields):
    print(json.dumps(fields), flush=True)


def main(manner):
    # As with the real host, only the host itself holds its standard output.
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL
    )
    print(f"child {child.pid}", file=sys.stderr, flush=True)
    if manner == "silent":
        print("the reason", file=sys.stderr)
        return
    if manner == "failing":
        say(event="failed", message="no such model")
        return
    say(event="ready", parrot_url="http://p", vllm_url="http://v", model="m")
    for line in sys.stdin:
        assert line.strip() == "reset"
        say(event="failed" if manner == "full" else "reset", message="blocks are in use")
    while manner == "stubborn":
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1])
