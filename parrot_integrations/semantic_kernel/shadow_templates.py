"""Instructions of agents as they are planned: what functions in them return is known later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from semantic_kernel.functions import KernelArguments
from semantic_kernel.kernel import Kernel
from semantic_kernel.prompt_template import (
    HandlebarsPromptTemplate,
    Jinja2PromptTemplate,
    KernelPromptTemplate,
    PromptTemplateConfig,
)
from semantic_kernel.prompt_template.prompt_template_base import PromptTemplateBase

from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.shadow import ShadowKernel
from parrot_integrations.semantic_kernel.symbolic import TemplateCut

_TEMPLATES = (KernelPromptTemplate, HandlebarsPromptTemplate, Jinja2PromptTemplate)


class ShadowTemplate(PromptTemplateBase):
    """A template that is rendered by the framework's own, on a kernel whose functions do not run.

    Attributes:
        original: The template.
        shadow: That kernel, which the one that is given stands for.
        refuse: Told why the instructions cannot be foreseen.
    """

    original: Any
    shadow: Any
    refuse: Any

    @classmethod
    def of(
        cls,
        template: PromptTemplateBase | None,
        instructions: str | None,
        shadow: ShadowKernel,
        refuse: Callable[[str], None],
    ) -> ShadowTemplate | None:
        """Return the shadow of an agent's template, or of its instructions; None without any.

        Raises:
            CannotPlan: The template is of the user's own kind.
        """
        if template is None and instructions is None:
            return None
        if template is None:
            config = PromptTemplateConfig(template=instructions)
            template = KernelPromptTemplate(prompt_template_config=config)
        if type(template) not in _TEMPLATES:
            raise CannotPlan(f"its template is a {type(template).__name__}")
        if patches_asyncio(template) and shadow.plugins:
            raise CannotPlan(f"a {type(template).__name__} with functions patches asyncio")
        return cls(
            prompt_template_config=template.prompt_template_config,
            original=template,
            shadow=shadow,
            refuse=refuse,
        )

    async def render(self, kernel: Kernel, arguments: KernelArguments | None = None) -> str:
        """Return the instructions, perhaps with markers."""
        try:
            return str.__str__(await self.original.render(self.shadow, arguments))
        except TemplateCut as exc:
            self.refuse(f"in its instructions, {exc}")
            return ""


def patches_asyncio(template: PromptTemplateBase) -> bool:
    """Tell whether a template applies nest_asyncio when it is rendered on a kernel with functions.

    The framework's orchestrations cannot begin once that has happened, so it must not happen while
    one is planned. Jinja2 awaits functions by itself.
    """
    return isinstance(template, HandlebarsPromptTemplate)
