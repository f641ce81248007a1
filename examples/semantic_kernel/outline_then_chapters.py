"""Outline each chapter of a book, write it, and smooth the whole.

The template of a chapter calls the function that outlines it. Semantic Kernel's own loop over
chunks waits for each chapter; ``aggregate`` runs the same functions, all chapters at once.
"""

from collections.abc import Awaitable, Callable

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.functions import KernelArguments, KernelFunction
from semantic_kernel.text import aggregate_chunked_results

from parrot_integrations.semantic_kernel import aggregate

OUTLINE = "The points of a chapter on {{$input}} in a book on {{$subject}}, a line each:"
CHAPTER = """Write the chapter on {{$input}}, in one paragraph, after this outline:
{{book.outline}}"""
SMOOTH = "Make one text of these chapters on {{$subject}}:\n\n{{$input}}"
CHAPTERS = ("their houses", "their work", "their language", "their enemies")


def add_functions(kernel: Kernel, settings: PromptExecutionSettings) -> dict[str, KernelFunction]:
    """Add the functions to a kernel and return them."""
    for name, prompt in {"outline": OUTLINE, "chapter": CHAPTER, "smooth": SMOOTH}.items():
        kernel.add_function("book", None, name, prompt=prompt, prompt_execution_settings=settings)
    return kernel.get_plugin("book").functions


def build(kernel: Kernel, settings: PromptExecutionSettings) -> Callable[[], Awaitable[str]]:
    """Return the program with Semantic Kernel's own loop."""
    functions = add_functions(kernel, settings)

    async def run() -> str:
        arguments = KernelArguments(subject="bees")
        chapters = await aggregate_chunked_results(
            functions["chapter"], list(CHAPTERS), kernel, arguments
        )
        arguments["input"] = chapters
        return str(await kernel.invoke(functions["smooth"], arguments))

    return run


def build_planned(
    kernel: Kernel, settings: PromptExecutionSettings
) -> Callable[[], Awaitable[str]]:
    """Return the program with ``aggregate``."""
    functions = add_functions(kernel, settings)

    async def run() -> str:
        return await aggregate(
            kernel,
            functions["chapter"],
            CHAPTERS,
            KernelArguments(subject="bees"),
            combine=functions["smooth"],
        )

    return run


if __name__ == "__main__":
    from side_by_side import main

    main(build, build_planned)
