"""Summarise the parts of a document side by side, then all summaries together."""

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from parrot_backend.demo.document import load_document, split_document
from parrot_integrations.langchain import join_list

PARTS = 6


def build(llm: BaseChatModel) -> Runnable:
    """Return the chain: parts of a document to a summary."""
    part = ChatPromptTemplate.from_template("Summarise in one sentence:\n\n{part}")
    whole = ChatPromptTemplate.from_template("One summary of these summaries:\n\n{summaries}")
    summarise = part | llm | StrOutputParser()
    return summarise.map() | join_list("\n") | whole | llm | StrOutputParser()


def example_input() -> list[dict[str, str]]:
    """Return the parts of the document."""
    return [{"part": part} for part in split_document(load_document(), PARTS)]


if __name__ == "__main__":
    from side_by_side import main

    main(build, example_input())
