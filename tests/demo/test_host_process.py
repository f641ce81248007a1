import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from parrot_backend.demo.host_process import HostFailed, start_host


def start(manner, tmp_path, stop_timeout_s=10.0):
    return start_host(
        [manner],
        tmp_path / "log",
        module="tests.demo.fake_host",
        stop_timeout_s=stop_timeout_s,
    )


async def child_is_gone(tmp_path):
    """Return whether the child that the host named in its log ends within a moment."""
    pid = int((tmp_path / "log").read_text().split()[1])
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        with contextlib.suppress(FileNotFoundError):
            # A killed process whose parent is gone stays a zombie until init looks at it.
            if state.read_text().rpartition(")")[2].split()[0] != "Z":
                await asyncio.sleep(0.05)
                continue
        return True
    return False


async def test_a_host_serves_resets_and_leaves_nothing_behind(tmp_path):
    async with start("good", tmp_path) as host:
        assert host.info.parrot_url == "http://p"
        assert host.info.model == "m"
        await host.reset_prefix_cache()
        await host.reset_prefix_cache()
        pid = host.info.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await child_is_gone(tmp_path)


async def test_a_host_that_will_not_end_is_killed_with_its_children(tmp_path):
    async with start("stubborn", tmp_path, stop_timeout_s=0.3) as host:
        pid = host.info.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await child_is_gone(tmp_path)


async def test_an_exception_inside_ends_the_host_too(tmp_path):
    with pytest.raises(RuntimeError, match="of the user"):
        async with start("good", tmp_path):
            raise RuntimeError("of the user")
    assert await child_is_gone(tmp_path)


async def test_a_failed_start_says_why(tmp_path):
    with pytest.raises(HostFailed, match="no such model"):
        async with start("failing", tmp_path):
            pass
    assert await child_is_gone(tmp_path)


async def test_a_host_that_ends_at_once_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(HostFailed, match="the reason"):
        async with start("silent", tmp_path):
            pass
    assert await child_is_gone(tmp_path)


async def test_a_cache_that_cannot_be_reset_is_an_error(tmp_path):
    async with start("full", tmp_path) as host:
        with pytest.raises(HostFailed, match="blocks are in use"):
            await host.reset_prefix_cache()
