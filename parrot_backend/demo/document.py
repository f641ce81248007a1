"""The text that the programs summarise: an overview of this project, shipped with the package."""

from __future__ import annotations

import itertools
from importlib.resources import files


def load_document() -> str:
    """Return the whole text; its paragraphs are separated by empty lines."""
    return files("parrot_backend.demo").joinpath("document.txt").read_text(encoding="utf-8")


def split_document(text: str, num_chunks: int) -> list[str]:
    """Cut a text between paragraphs into chunks of about as many paragraphs each.

    Raises:
        ValueError: There are fewer paragraphs than chunks.
    """
    paragraphs = [paragraph for paragraph in text.strip().split("\n\n") if paragraph.strip()]
    count = len(paragraphs)
    if not 1 <= num_chunks <= count:
        raise ValueError(f"{count} paragraphs do not make {num_chunks} chunks")
    bounds = [index * count // num_chunks for index in range(num_chunks + 1)]
    return ["\n\n".join(paragraphs[begin:end]) for begin, end in itertools.pairwise(bounds)]
