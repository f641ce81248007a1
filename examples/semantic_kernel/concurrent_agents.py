"""Three reviewers read a draft at the same time; then an author and an editor rewrite it in turn.

The agents and their runtime are Semantic Kernel's. Its orchestrations send a call when an agent's
turn has come; Parrot's, with the same members, say beforehand whose turn comes when.
"""

from collections.abc import Awaitable, Callable

from semantic_kernel import Kernel
from semantic_kernel.agents import (
    ChatCompletionAgent,
    ConcurrentOrchestration,
    SequentialOrchestration,
)
from semantic_kernel.agents.runtime import InProcessRuntime
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.functions import KernelArguments

from parrot_backend.demo.document import load_document, split_document
from parrot_integrations.semantic_kernel import (
    ParrotConcurrentOrchestration,
    ParrotSequentialOrchestration,
)

REVIEWERS = {
    "Grammarian": "You name the weakest sentence of a text.",
    "Sceptic": "You name what a text claims without a reason.",
    "Reader": "You name what a text leaves you to wonder about.",
}
WRITERS = {
    "Author": "You rewrite a draft as its reviews ask.",
    "Editor": "You shorten what you are given.",
    "Publisher": "You find a title for what you are given.",
}


def build(
    kernel: Kernel,
    settings: PromptExecutionSettings,
    concurrent: type[ConcurrentOrchestration] = ConcurrentOrchestration,
    sequential: type[SequentialOrchestration] = SequentialOrchestration,
) -> Callable[[], Awaitable[str]]:
    """Return the program, for orchestrations of one kind or the other."""
    service = kernel.get_service(type=ChatCompletionClientBase)

    def agents(instructions: dict[str, str]) -> list[ChatCompletionAgent]:
        return [
            ChatCompletionAgent(
                name=name,
                description=name,
                instructions=text,
                service=service,
                arguments=KernelArguments(settings=settings),
            )
            for name, text in instructions.items()
        ]

    review = concurrent(members=agents(REVIEWERS))
    rewrite = sequential(members=agents(WRITERS))

    async def run() -> str:
        draft = split_document(load_document(), 6)[0]
        runtime = InProcessRuntime()
        runtime.start()
        try:
            reviews = await (await review.invoke(task=draft, runtime=runtime)).get()
            # They come in the order in which they were finished.
            remarks = sorted(f"{message.name}: {message.content}" for message in reviews)
            task = "\n\n".join([draft, *remarks])
            final = await (await rewrite.invoke(task=task, runtime=runtime)).get()
        finally:
            await runtime.stop_when_idle()
        return final.content

    return run


def build_planned(
    kernel: Kernel, settings: PromptExecutionSettings
) -> Callable[[], Awaitable[str]]:
    """Return the program with orchestrations that are planned."""
    return build(kernel, settings, ParrotConcurrentOrchestration, ParrotSequentialOrchestration)


if __name__ == "__main__":
    from side_by_side import main

    main(build, build_planned)
