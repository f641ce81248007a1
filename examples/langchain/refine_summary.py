"""Summarise a document from part to part: each call refines the summary of the call before."""

from operator import itemgetter

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from parrot_backend.demo.document import load_document, split_document

PARTS = 8


def build(llm: BaseChatModel) -> Runnable:
    """Return the chain: parts of a document, by number, to a summary."""
    first = ChatPromptTemplate.from_template("Summarise in one sentence:\n\n{p0}")
    chain: Runnable = RunnablePassthrough.assign(summary=first | llm | StrOutputParser())
    for number in range(1, PARTS):
        refine = ChatPromptTemplate.from_template(
            f"Summary so far: {{summary}}\n\nRefine it with this:\n\n{{p{number}}}"
        )
        chain = chain | RunnablePassthrough.assign(summary=refine | llm | StrOutputParser())
    return chain | itemgetter("summary")


def example_input() -> dict[str, str]:
    """Return the parts of the document."""
    return {f"p{i}": part for i, part in enumerate(split_document(load_document(), PARTS))}


if __name__ == "__main__":
    from side_by_side import main

    main(build, example_input())
