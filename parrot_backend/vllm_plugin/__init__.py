"""What runs inside vLLM's processes: a scheduler that knows the application, and KV pins.

``register`` is the entry point of group ``vllm.general_plugins``. The two scheduler classes are
imported when they are asked for, because they import vLLM.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parrot_backend.vllm_plugin.scheduler import ParrotAsyncScheduler, ParrotScheduler

logger = logging.getLogger(__name__)

__all__ = ["ParrotAsyncScheduler", "ParrotScheduler", "register"]


def register() -> None:
    """Say it if this vLLM is not supported; whoever uses the scheduler is refused then. Idempotent.

    vLLM calls this in each of its processes, whether the scheduler is used or not, so it must not
    stop anybody.
    """
    from parrot_backend.errors import EngineError
    from parrot_backend.vllm_compat.version import check_version

    try:
        check_version()
    except EngineError as exc:
        logger.warning("Parrot's plug-in cannot be used: %s", exc.message)


def __getattr__(name: str) -> Any:
    if name in ("ParrotScheduler", "ParrotAsyncScheduler"):
        from parrot_backend.vllm_compat.version import check_version

        check_version()  # before vLLM's internals are looked for
        from parrot_backend.vllm_plugin import scheduler

        return getattr(scheduler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
