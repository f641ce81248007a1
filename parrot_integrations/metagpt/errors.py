"""Errors that MetaGPT's own retry knows: those of the connection, and time that is up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from openai import APIConnectionError, APITimeoutError

from parrot_backend.protocol import Scalar
from parrot_integrations.errors import ConnectionFailed, WaitTimeout


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


class TimedOut(WaitTimeout, APITimeoutError):  # type: ignore[misc] # noqa: N818 - as above
    """There was no reply, or no more of it, in time; the call was given up."""

    def __init__(self, code: str, message: str, context: Mapping[str, Scalar] | None = None):
        # Not OpenAI's constructor, which wants the request that failed.
        Exception.__init__(self, code, message, context)
        self.code = code
        self.message = message
        self.context = dict(context or {})


@contextmanager
def framework_errors() -> Iterator[None]:
    """Let what MetaGPT tries again after leave a block as errors of OpenAI's client."""
    try:
        yield
    except ConnectionFailed as exc:
        raise Unreachable(exc.code, exc.message, exc.context, exc.was_sent) from exc
    except WaitTimeout as exc:
        raise TimedOut(exc.code, exc.message, exc.context) from exc
