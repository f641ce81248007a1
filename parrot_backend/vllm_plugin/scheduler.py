"""vLLM's scheduler with Parrot's policy: one mixin, two classes. Imports vLLM.

vLLM takes the class by its name: ``--scheduler-cls parrot_backend.vllm_plugin.ParrotScheduler``.
"""

from __future__ import annotations

from parrot_backend.vllm_compat.scheduler import AsyncScheduler, Scheduler, SchedulerHooks
from parrot_backend.vllm_compat.seams import Hooks
from parrot_backend.vllm_plugin.attention_switch import open_board
from parrot_backend.vllm_plugin.options import read_options
from parrot_backend.vllm_plugin.policy import ApplicationPolicy


class _ParrotHooks(SchedulerHooks):
    def create_hooks(self, options: object) -> Hooks:
        """Return the policy that the configuration asks for."""
        attention = open_board(self.vllm_config)
        if attention is not None:
            attention.forget_name()  # the workers, which began before, have found it
        return ApplicationPolicy(self, read_options(options), attention)


class ParrotScheduler(_ParrotHooks, Scheduler):
    """For engines whose steps do not overlap, as on CPUs."""


class ParrotAsyncScheduler(_ParrotHooks, AsyncScheduler):
    """For engines that schedule a step while the one before runs, as on GPUs."""
