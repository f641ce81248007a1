"""A chat prompt whose template calls functions that summarise and rephrase.

The template renders its calls one after the other; planned, they run side by side, and the chat
begins on the server when they are done.
"""

from collections.abc import Awaitable, Callable

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.functions import KernelArguments

from parrot_backend.demo.document import load_document, split_document

SUMMARISE = "Summarise in one sentence:\n\n{{$input}}"
REPHRASE = "Say this more precisely: {{$input}}"
CHAT = """<message role="system">You answer questions on a manual. What it says:
{{manual.summarise input=$first}}
{{manual.summarise input=$second}}
{{manual.summarise input=$third}}</message>
<message role="user">{{manual.rephrase input=$question}}</message>"""


def build(kernel: Kernel, settings: PromptExecutionSettings) -> Callable[[], Awaitable[str]]:
    """Add the functions to a kernel, and return what answers a question."""
    for name, prompt in {"summarise": SUMMARISE, "rephrase": REPHRASE, "answer": CHAT}.items():
        kernel.add_function("manual", None, name, prompt=prompt, prompt_execution_settings=settings)

    async def run() -> str:
        first, second, third = split_document(load_document(), 3)
        arguments = KernelArguments(
            first=first, second=second, third=third, question="What does it wait for, and why?"
        )
        return str(
            await kernel.invoke(function_name="answer", plugin_name="manual", arguments=arguments)
        )

    return run


if __name__ == "__main__":
    from side_by_side import main

    main(build)
