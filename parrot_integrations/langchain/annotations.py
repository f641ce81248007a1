"""What the server is told about a call beside the call: application, session, stage, urgency.

It comes from three places, of which an earlier one wins: LangChain's ``config["metadata"]``, where
LangGraph also says which node of which thread runs; the ``parrot_session`` around the code; the
model.

    with parrot_session(app="reports", session=user_id):
        chain.invoke(question, {"metadata": {"parrot_stage": "draft"}})
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, TypeVar

from langchain_core.callbacks import BaseRunManager
from langchain_core.runnables import RunnableConfig, ensure_config

from parrot_backend.protocol import Scalar
from parrot_integrations.planning.annotations import Annotation, annotated, label

T = TypeVar("T")

#: Keys of ``config["metadata"]`` that frameworks put there for themselves.
_NOISE = (
    "ls_", "lc_", "langgraph_", "parrot_", "__", "checkpoint_", "thread_id", "versions",
    "revision_id", "run_id",
)  # fmt: skip


_config_metadata: ContextVar[Mapping[str, Any]] = ContextVar(
    "parrot_config_metadata",
    default={},  # noqa: B039 - never changed
)
_END: Any = object()


@contextmanager
def with_config(config: RunnableConfig | None) -> Iterator[None]:
    """Remember the metadata of a config for models that LangChain streams without passing it on."""
    token = _config_metadata.set(ensure_config(config).get("metadata") or {})
    try:
        yield
    finally:
        _config_metadata.reset(token)


def begin_with_config(config: RunnableConfig | None, chunks: Iterator[T]) -> Iterator[T]:
    """Take the first step of a stream with the metadata of a config: it sends the call then."""
    with with_config(config):
        first = list(islice(chunks, 1))
    yield from first
    yield from chunks


async def abegin_with_config(
    config: RunnableConfig | None, chunks: AsyncIterator[T]
) -> AsyncIterator[T]:
    """Take the first step of a stream with the metadata of a config: it sends the call then."""
    try:
        with with_config(config):
            first = await anext(chunks, _END)
        if first is _END:
            return
        yield first
        async for chunk in chunks:
            yield chunk
    finally:
        # A stream that is left early gives its call up now, not when it is collected.
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def metadata_of(run_manager: BaseRunManager | None) -> Mapping[str, Any] | None:
    """Return the metadata of a run; None if LangChain did not pass the run on."""
    return None if run_manager is None else run_manager.metadata


def current_annotation(config_metadata: Mapping[str, Any] | None) -> Annotation:
    """Return what config and scope say together.

    Args:
        config_metadata: That of the run; None takes what ``with_config`` remembered.
    """
    if config_metadata is None:
        config_metadata = _config_metadata.get()
    return read_metadata(config_metadata).over(annotated())


def read_metadata(metadata: Mapping[str, Any]) -> Annotation:
    """Return what the metadata of a LangChain run says.

    LangGraph's thread is the session and its node the stage; step and path are labels. Of the rest,
    scalars are taken over as labels; what is there for tracing is left out.
    """
    labels: dict[str, Scalar] = {}
    if "langgraph_step" in metadata:
        labels["step"] = metadata["langgraph_step"]
    if "langgraph_path" in metadata:
        labels["path"] = "/".join(map(str, metadata["langgraph_path"]))
    for key, value in metadata.items():
        if _is_label(value) and not key.startswith(_NOISE):
            labels.setdefault(key, value)
    return Annotation(
        app=label(metadata.get("parrot_app")),
        session=label(metadata.get("parrot_session", metadata.get("thread_id"))),
        stage=label(metadata.get("parrot_stage", metadata.get("langgraph_node"))),
        perf=metadata.get("parrot_perf"),
        metadata=labels,
    )


def _is_label(value: object) -> bool:
    # JSON has no numbers that are not finite.
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return isinstance(value, Scalar) and is_finite
