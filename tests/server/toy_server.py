"""A server process with toy engines, for tests of signals: ``python -m tests.server.toy_server``.

Arguments: port, "held" or "free", drain timeout in seconds.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path

from parrot_backend.server.config import ServerSettings
from parrot_backend.server.process import serve
from parrot_backend.server.supervisor import EngineSlot
from tests.server.toy_engine import ToyPlan


def main() -> None:
    port, kind, drain_timeout_s, child_file = sys.argv[1:]
    # An engine with a process of its own, as vLLM has.
    child = multiprocessing.Process(target=time.sleep, args=(1000,), daemon=True)
    child.start()
    Path(child_file).write_text(str(child.pid))
    settings = ServerSettings(port=int(port), drain_timeout_s=float(drain_timeout_s))
    serve(settings, [EngineSlot("toy-0", ToyPlan(is_held=kind == "held").create)], announce)


def announce(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
