"""Four assistants with long system prompts, served at once to many users.

Each user asks one thing and gets an answer and a headline for it: two calls that depend on each
other, behind the same system prompt. Planned, a user costs one submit; and the system prompt, which
all users of an assistant share, is computed once.
"""

# The docstrings of semantic functions are prompt templates, not documentation.
# ruff: noqa: D205, D415

from dataclasses import dataclass

from both_ways import SAMPLING, Ways, ask, at_once, main, program
from system_prompts import SYSTEM_PROMPTS

import parrot_integrations as P

WISHES = {
    "cook": ("two leeks, an egg and rice", "lentils, but no onions", "something for a hot day"),
    "gardener": ("basil that wilts", "a balcony to the north", "aphids on the beans"),
    "editor": ("a letter to my landlord", "a toast for my sister", "an application as a baker"),
    "guide": ("a lake within an hour", "a day with two small children", "a castle without steps"),
}


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who asks for something.

    Attributes:
        app: Which assistant.
        wish: For what.
    """

    app: str
    wish: str


USERS = [User(app, wish) for app, wishes in WISHES.items() for wish in wishes]


@dataclass(frozen=True, slots=True)
class Assistant:
    """The two functions of an application.

    Attributes:
        answer: Wish -> answer.
        headline: Answer -> headline.
    """

    answer: P.TemplateFunction
    headline: P.TemplateFunction


def assistant(system: str) -> Assistant:
    """Return the functions that a system prompt stands in front of."""

    @P.SemanticFunction(system=system, sampling=SAMPLING)
    def Answer(wish: P.SemanticVariable):
        """Help me with this: {{input:wish}}
        {{output:answer}}
        """

    @P.SemanticFunction(system=system, sampling=SAMPLING)
    def Headline(answer: P.SemanticVariable):
        """You gave this advice: {{input:answer}}
        Find a headline for it.
        {{output:headline}}
        """

    return Assistant(Answer, Headline)


def native(client: P.ParrotClient) -> Ways:
    """Return the application on semantic functions."""
    assistants = {app: assistant(system) for app, system in SYSTEM_PROMPTS.items()}

    def serve(user: User) -> dict[str, str]:
        called = assistants[user.app]
        answer = ask(client, called.answer, user.wish)
        return {"answer": answer, "headline": ask(client, called.headline, answer)}

    def serve_planned(user: User) -> dict[str, str]:
        called = assistants[user.app]
        with program(client, user.app):
            answer = called.answer(user.wish)
            answer_text, headline = P.get_all([answer, called.headline(answer)])
        return {"answer": answer_text, "headline": headline}

    return Ways(lambda: at_once(serve, USERS), lambda: at_once(serve_planned, USERS))


def langchain(client: P.ParrotClient) -> Ways:
    """Return the application as chains, one for each assistant."""
    # Here, so that the other front end needs no LangChain.
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import Runnable, RunnablePassthrough

    from parrot_integrations.langchain import ChatParrot, as_parrot

    llm = ChatParrot(client=client, temperature=0, max_tokens=SAMPLING.max_tokens)

    def chain(system: str) -> Runnable:
        def call(message: str) -> Runnable:
            messages = [("system", system), ("human", message)]
            return ChatPromptTemplate.from_messages(messages) | llm | StrOutputParser()

        return (
            RunnablePassthrough.assign(answer=call("Help me with this: {wish}"))
            | RunnablePassthrough.assign(
                headline=call("You gave this advice: {answer}\nFind a headline for it.")
            )
        ).pick(["answer", "headline"])

    chains = {app: chain(system) for app, system in SYSTEM_PROMPTS.items()}
    planned = {app: as_parrot(plain) for app, plain in chains.items()}

    def serve(served: dict[str, Runnable]) -> list[dict[str, str]]:
        return at_once(lambda user: served[user.app].invoke({"wish": user.wish}), USERS)

    return Ways(lambda: serve(chains), lambda: serve(planned))


if __name__ == "__main__":
    main(native, langchain)
