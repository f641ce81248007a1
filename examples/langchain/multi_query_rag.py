"""Ask a question in several ways, look each up in a small library, answer from what was found.

The retriever is Python on the client: what it finds becomes a late-bound value of the plan.
"""

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableParallel, RunnablePassthrough

from parrot_backend.demo.document import load_document, split_document

WAYS = ("more simply", "in other words", "in greater detail")


class WordOverlap(BaseRetriever):
    """Finds the paragraphs that share the most words with a query."""

    paragraphs: list[str]
    k: int = 2

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        wanted = set(query.lower().split())
        ranked = sorted(self.paragraphs, key=lambda text: -len(wanted & set(text.lower().split())))
        return [Document(text) for text in ranked[: self.k]]


def merge(found: dict[str, list[Document]]) -> str:
    """Return what all ways found together, each paragraph once."""
    texts = [document.page_content for documents in found.values() for document in documents]
    return "\n\n".join(dict.fromkeys(texts))


def build(llm: BaseChatModel) -> Runnable:
    """Return the chain: a question to an answer."""
    retriever = WordOverlap(paragraphs=split_document(load_document(), 20))
    ask = ChatPromptTemplate.from_template("Ask this question {way}: {question}")
    ways = {
        f"way{i}": ask.partial(way=way) | llm | StrOutputParser() | retriever
        for i, way in enumerate(WAYS)
    }
    answer = ChatPromptTemplate.from_template(
        "Answer from this text only.\n\n{context}\n\nQuestion: {question}"
    )
    check = ChatPromptTemplate.from_template(
        "Question: {question}\nAnswer: {answer}\nIs the answer complete? What is missing?"
    )
    return (
        RunnablePassthrough.assign(context=RunnableParallel(ways) | merge)
        | RunnablePassthrough.assign(answer=answer | llm | StrOutputParser())
        | RunnablePassthrough.assign(review=check | llm | StrOutputParser())
    )


def example_input() -> dict[str, str]:
    """Return a question."""
    return {"question": "How does one find out what a program waits for?"}


if __name__ == "__main__":
    from side_by_side import main

    main(build, example_input())
