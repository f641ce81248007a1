"""Errors that MetaGPT's own retry knows: those of the connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from openai import APIConnectionError

from parrot_backend.protocol import Scalar
from parrot_integrations.errors import ConnectionFailed


class Unreachable(ConnectionFailed, APIConnectionError):  # type: ignore[misc] # noqa: N818 - both have a code; names as its bases
    """The server could not be reached, or the connection broke off."""

    def __init__(
        self,
        code: str,
        message: str,
        context: Mapping[str, Scalar] | None = None,
        was_sent: bool = True,
    ):
        # Not OpenAI's constructor, which wants the request that failed.
        Exception.__init__(self, code, message, context, was_sent)
        self.code = code
        self.message = message
        self.context = dict(context or {})
        self.was_sent = was_sent


@contextmanager
def framework_errors() -> Iterator[None]:
    """Let failed connections leave a block as errors that MetaGPT tries again after."""
    try:
        yield
    except ConnectionFailed as exc:
        raise Unreachable(exc.code, exc.message, exc.context, exc.was_sent) from exc
