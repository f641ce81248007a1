"""What runs inside vLLM's processes: a scheduler that knows the application, KV pins, attention.

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
    """Let vLLM find our attention backends, or say that this vLLM is not supported. Idempotent.

    vLLM calls this in each of its processes, whether anything of ours is used or not, so it must
    not stop anybody: the backends do what vLLM's own do until an engine asks for more, and whoever
    uses the scheduler of an unsupported vLLM is refused then.
    """
    from parrot_backend.errors import EngineError
    from parrot_backend.vllm_compat.backends import register_backends
    from parrot_backend.vllm_compat.version import check_version

    try:
        check_version()
    except EngineError as exc:
        logger.warning("Parrot's plug-in cannot be used: %s", exc.message)
        return
    register_backends()


def __getattr__(name: str) -> Any:
    if name in ("ParrotScheduler", "ParrotAsyncScheduler"):
        from parrot_backend.vllm_compat.version import check_version

        check_version()  # before vLLM's internals are looked for
        from parrot_backend.vllm_plugin import scheduler

        return getattr(scheduler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
