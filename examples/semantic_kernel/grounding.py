"""Is a summary grounded in its source? A pipeline of three functions.

The first finds the names in a summary, the second picks those that the source does not know, the
third takes these out of the summary. The functions are the same in both forms; the pipeline says
beforehand what follows what.
"""

from collections.abc import Awaitable, Callable

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.functions import KernelArguments

from parrot_backend.demo.document import load_document, split_document
from parrot_integrations.semantic_kernel import ParrotPipeline

EXTRACT = "List the names of {{$topic}} in this text, a line each:\n\n{{$summary}}"
CHECK = """<message role="system">You compare names with a source.</message>
<message role="user">Source:
{{$source}}

Names:
{{$entities}}

List the names that the source does not have.</message>"""
EXCISE = """Write this text again without the names below it.

{{$summary}}

{{$ungrounded}}"""
SUMMARY = "A queue holds the requests, a cache the prompts, and an oracle in Delphi the answers."


def add_functions(kernel: Kernel, settings: PromptExecutionSettings) -> None:
    """Add the three functions to a kernel."""
    for name, prompt in {"extract": EXTRACT, "check": CHECK, "excise": EXCISE}.items():
        kernel.add_function(
            "grounding", None, name, prompt=prompt, prompt_execution_settings=settings
        )


def example_input() -> KernelArguments:
    """Return a summary with an invention, and the source."""
    source = split_document(load_document(), 6)[0]
    return KernelArguments(topic="things", summary=SUMMARY, source=source)


def build(kernel: Kernel, settings: PromptExecutionSettings) -> Callable[[], Awaitable[str]]:
    """Return the program as it is usually written: one function after the other."""
    add_functions(kernel, settings)

    async def run() -> str:
        arguments = example_input()
        for name, output in (("extract", "entities"), ("check", "ungrounded")):
            result = await kernel.invoke(
                function_name=name, plugin_name="grounding", arguments=arguments
            )
            arguments[output] = str(result)
        return str(
            await kernel.invoke(
                function_name="excise", plugin_name="grounding", arguments=arguments
            )
        )

    return run


def build_planned(
    kernel: Kernel, settings: PromptExecutionSettings
) -> Callable[[], Awaitable[str]]:
    """Return the program as a pipeline."""
    add_functions(kernel, settings)
    functions = kernel.get_plugin("grounding").functions
    pipeline = ParrotPipeline(
        [
            (functions["extract"], "entities"),
            (functions["check"], "ungrounded"),
            functions["excise"],
        ]
    )

    async def run() -> str:
        return str(await pipeline.invoke(kernel, example_input()))

    return run


if __name__ == "__main__":
    from side_by_side import main

    main(build, build_planned)
