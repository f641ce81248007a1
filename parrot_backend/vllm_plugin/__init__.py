"""What runs inside vLLM's processes: a scheduler that knows the application, and KV pins.

``register`` is the entry point of group ``vllm.general_plugins``. The two scheduler classes are
imported when they are asked for, because they import vLLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parrot_backend.vllm_plugin.scheduler import ParrotAsyncScheduler, ParrotScheduler

__all__ = ["ParrotAsyncScheduler", "ParrotScheduler", "register"]


def register() -> None:
    """Make this process of vLLM ready for the plug-in. Idempotent.

    Raises:
        EngineError: ``engine_start_failed``: this version of vLLM is not supported.
    """
    from parrot_backend.vllm_compat.version import check_version

    check_version()


def __getattr__(name: str) -> Any:
    if name in ("ParrotScheduler", "ParrotAsyncScheduler"):
        from parrot_backend.vllm_plugin import scheduler

        return getattr(scheduler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
