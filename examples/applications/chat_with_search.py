"""Chat with search: rewrite a question, look it up in a small library, answer, check the answer.

The search is Python on the client. The plan goes on behind it: answer and check are on the server
before anything is found, and what is found is one value that is set.
"""

# The docstrings of semantic functions are prompt templates, not documentation.
# ruff: noqa: D205, D415

from both_ways import SAMPLING, Ways, ask, at_once, main, program
from corpus import search

import parrot_integrations as P

QUESTION = "Can I take my bicycle to the island and be back late on a Saturday?"
WAYS = ("in the words of a timetable", "as a list of key words", "as a simpler question")
WRITER = "You are the guide of a harbour town. You are friendly, brief, and never guess."
CHECKER = "You check what a guide tells visitors. You look for dangerous advice and for rudeness."


@P.SemanticFunction(chat=True, sampling=SAMPLING)
def RewriteQuery(question: P.SemanticVariable, way: str):
    """Rewrite this question for a search, {{input:way}}.
    Question: {{input:question}}
    {{output:query}}
    """


@P.SemanticFunction(system=WRITER, sampling=SAMPLING)
def AnswerFromText(found: P.SemanticVariable, question: P.SemanticVariable):
    """Answer from these articles only:
    {{input:found}}

    Question: {{input:question}}
    {{output:answer}}
    """


@P.SemanticFunction(system=CHECKER, sampling=SAMPLING)
def CheckSafety(question: P.SemanticVariable, answer: P.SemanticVariable):
    """A visitor asked: {{input:question}}
    The guide said: {{input:answer}}
    Is this safe to say? Give a reason.
    {{output:verdict}}
    """


def native(client: P.ParrotClient) -> Ways:
    """Return the application on semantic functions."""

    def call_by_call() -> dict[str, str]:
        queries = at_once(lambda way: ask(client, RewriteQuery, QUESTION, way), WAYS)
        answer = ask(client, AnswerFromText, search(queries), QUESTION)
        verdict = ask(client, CheckSafety, QUESTION, answer)
        return {"answer": answer, "verdict": verdict}

    def planned() -> dict[str, str]:
        with program(client, "chat-with-search"):
            question, found = P.SemanticVariable(QUESTION), P.SemanticVariable()
            queries = [RewriteQuery(question, way) for way in WAYS]
            answer = AnswerFromText(found, question)
            verdict = CheckSafety(question, answer)
            found.set(search(P.get_all(queries)))  # the first get has sent everything
            # A text between two calls, as the answer is, was not asked for until now.
            answer_text, verdict_text = P.get_all([answer, verdict])
        return {"answer": answer_text, "verdict": verdict_text}

    return Ways(call_by_call, planned)


def langchain(client: P.ParrotClient) -> Ways:
    """Return the application as a chain."""
    # Here, so that the other front end needs no LangChain.
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableParallel, RunnablePassthrough

    from parrot_integrations.langchain import ChatParrot, as_parrot

    llm = ChatParrot(client=client, temperature=0, max_tokens=SAMPLING.max_tokens)
    text = llm | StrOutputParser()
    rewrite = ChatPromptTemplate.from_template(
        "Rewrite this question for a search, {way}.\nQuestion: {question}"
    )
    answer = ChatPromptTemplate.from_messages(
        [
            ("system", WRITER),
            ("human", "Answer from these articles only:\n{found}\n\nQuestion: {question}"),
        ]
    )
    check = ChatPromptTemplate.from_messages(
        [
            ("system", CHECKER),
            (
                "human",
                "A visitor asked: {question}\nThe guide said: {answer}\n"
                "Is this safe to say? Give a reason.",
            ),
        ]
    )
    queries = RunnableParallel({way: rewrite.partial(way=way) | text for way in WAYS})
    chain = (
        RunnablePassthrough.assign(found=queries | (lambda found: search(list(found.values()))))
        | RunnablePassthrough.assign(answer=answer | text)
        | RunnablePassthrough.assign(verdict=check | text)
    ).pick(["answer", "verdict"])
    asked = {"question": QUESTION}
    return Ways(lambda: chain.invoke(asked), lambda: as_parrot(chain).invoke(asked))


if __name__ == "__main__":
    main(native, langchain)
