"""Write an outline, expand each of its points, and smooth the whole.

How many points there are is known only when the outline has been generated. The server reads the
list and starts the expansions by itself, so that the whole is still one submit.
"""

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from parrot_integrations.langchain import join_list, split_list

#: Enough for a handful of words.
OUTLINE_TOKENS = 8


def build(llm: BaseChatModel) -> Runnable:
    """Return the chain: a topic to an essay."""
    outline = ChatPromptTemplate.from_template("The points of an essay on {topic}, a word each:")
    expand = ChatPromptTemplate.from_template("Write one paragraph on this point: {point}")
    smooth = ChatPromptTemplate.from_template("Make one text of these paragraphs:\n\n{paragraphs}")
    paragraphs = expand | llm | StrOutputParser()
    return (
        outline
        | llm.bind(max_tokens=OUTLINE_TOKENS)
        | StrOutputParser()
        | split_list(" ")
        | paragraphs.map()
        | join_list()
        | smooth
        | llm
        | StrOutputParser()
    )


def example_input() -> dict[str, str]:
    """Return a topic."""
    return {"topic": "bees"}


if __name__ == "__main__":
    from side_by_side import main

    main(build, example_input())
