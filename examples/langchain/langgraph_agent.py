"""An agent with tools as a graph: it looks things up until it knows enough, then writes.

Which node of which thread asks is told to the server by LangGraph's own metadata. The last node is
a chain of two calls, which is planned and goes out as one submit.
"""

from functools import partial
from typing import Annotated, Literal, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

from parrot_integrations.langchain import as_parrot

NOTES = {
    "queue": "Requests wait in order of urgency.",
    "cache": "Prompts that begin alike are computed once.",
    "graph": "A program is sent as a whole.",
}


@tool
def look_up(topic: Literal["queue", "cache", "graph"]) -> str:
    """Look a topic up in the notes."""
    return NOTES[topic]


class State(TypedDict):
    """What the nodes pass on."""

    messages: Annotated[list[AnyMessage], add_messages]
    lookups: int
    answer: str


def build(llm: BaseChatModel, *, planned: bool = False, lookups: int = 2) -> Runnable:
    """Return the agent: a question to an answer.

    Args:
        llm: A model that can call tools.
        planned: Whether the writing is planned.
        lookups: How often it looks something up.
    """
    searching = llm.bind_tools([look_up], tool_choice="look_up", parallel_tool_calls=False)
    draft = ChatPromptTemplate.from_template("Answer {question} from these notes:\n{notes}")
    polish = ChatPromptTemplate.from_template("Say this better: {draft}")
    chain = draft | llm | StrOutputParser() | polish | llm | StrOutputParser()
    writing = as_parrot(chain) if planned else chain

    def search(state: State) -> dict:
        return {"messages": [searching.invoke(state["messages"])], "lookups": state["lookups"] + 1}

    def write(state: State) -> dict:
        notes = [str(m.content) for m in state["messages"] if isinstance(m, ToolMessage)]
        question = state["messages"][0].content
        return {"answer": writing.invoke({"question": question, "notes": "\n".join(notes)})}

    graph = StateGraph(State)
    graph.add_node("search", search)
    graph.add_node("tools", ToolNode([look_up], handle_tool_errors=True))
    graph.add_node("write", write)
    graph.add_edge(START, "search")
    graph.add_edge("search", "tools")
    graph.add_conditional_edges(
        "tools", lambda state: "write" if state["lookups"] >= lookups else "search"
    )
    graph.add_edge("write", END)
    app = graph.compile(name="look-up agent")
    begin = RunnableLambda(
        lambda question: {"messages": [HumanMessage(question)], "lookups": 0, "answer": ""}
    )
    return begin | app | (lambda state: state["answer"])


def example_input() -> str:
    """Return a question."""
    return "How are prompts with the same beginning handled?"


if __name__ == "__main__":
    from side_by_side import main

    main(build, example_input(), partial(build, planned=True))
