"""Questions over a long document: notes from its parts side by side, then an answer from all notes.

All questions read the same parts, and each part comes first in its prompt, so that what the engine
has computed of it for one question serves the others.
"""

# The docstrings of semantic functions are prompt templates, not documentation.
# ruff: noqa: D205, D415

from operator import itemgetter

from both_ways import SAMPLING, Ways, ask, at_once, main, program

import parrot_integrations as P
from parrot_backend.demo.document import load_document, split_document

PARTS = 6
QUESTIONS = (
    "What makes one call wait for another?",
    "How do calls share work that was done before?",
    "What happens when an engine is lost?",
)


@P.SemanticFunction(chat=True, sampling=SAMPLING)
def TakeNotes(part: P.SemanticVariable, question: P.SemanticVariable):
    """Part of a document:

    {{input:part}}

    Note in one sentence what this part says on the question: {{input:question}}
    {{output:note}}
    """


@P.SemanticFunction(chat=True, sampling=SAMPLING)
def AnswerFromNotes(notes: P.SemanticVariable, question: P.SemanticVariable):
    """Notes from the parts of a document, in order:
    {{input:notes}}

    Answer the question: {{input:question}}
    {{output:answer}}
    """


def native(client: P.ParrotClient) -> Ways:
    """Return the application on semantic functions."""
    parts = split_document(load_document(), PARTS)

    def answer(question: str) -> str:
        notes = at_once(lambda part: ask(client, TakeNotes, part, question), parts)
        return ask(client, AnswerFromNotes, "\n".join(notes), question)

    def planned() -> list[str]:
        with program(client, "long-document-qa"):
            shared = [P.SemanticVariable(part) for part in parts]
            answers = []
            for question in map(P.SemanticVariable, QUESTIONS):
                notes = [TakeNotes(part, question) for part in shared]
                answers.append(AnswerFromNotes(P.join(notes, "\n"), question))
            return P.get_all(answers)

    return Ways(lambda: at_once(answer, QUESTIONS), planned)


def langchain(client: P.ParrotClient) -> Ways:
    """Return the application as a chain."""
    # Here, so that the other front end needs no LangChain.
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableParallel

    from parrot_integrations.langchain import ChatParrot, as_parrot, join_list

    llm = ChatParrot(client=client, temperature=0, max_tokens=SAMPLING.max_tokens)
    text = llm | StrOutputParser()
    note = ChatPromptTemplate.from_template(
        "Part of a document:\n\n{part}\n\n"
        "Note in one sentence what this part says on the question: {question}"
    )
    answer = ChatPromptTemplate.from_template(
        "Notes from the parts of a document, in order:\n{notes}\n\nAnswer the question: {question}"
    )
    one = (
        RunnableParallel(
            notes=itemgetter("parts") | (note | text).map() | join_list("\n"),
            question=itemgetter("question"),
        )
        | answer
        | text
    )
    chain = one.map()
    parts = split_document(load_document(), PARTS)
    asked = [
        {"question": question, "parts": [{"part": p, "question": question} for p in parts]}
        for question in QUESTIONS
    ]
    return Ways(lambda: chain.invoke(asked), lambda: as_parrot(chain).invoke(asked))


if __name__ == "__main__":
    main(native, langchain)
