"""Parrot's errors in the words of a framework: which class of its own each of them becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from parrot_integrations.errors import (
    ParrotError,
    RequestRejected,
    Saturated,
    ValueCancelled,
    ValueFailed,
)

#: Codes of a server that is up, but cannot work at the moment.
_NOT_READY = frozenset({"no_engine", "shutting_down", "http_503"})

#: Codes of calls that failed and would fail again.
REFUSED = frozenset({"prompt_too_long", "engine_rejected", "invalid_format", "unsupported"})


@dataclass(frozen=True, slots=True)
class ErrorKinds:
    """Classes that belong to both trees: to Parrot's, and to the framework's.

    Attributes:
        framework: Base of the framework's errors; what belongs to it is left as it is.
        rejected: For requests that the server refused, by code.
        otherwise_rejected: For those with another code.
        failed: For calls that failed, by code.
        otherwise_failed: For those with another code.
        not_ready: For a server that cannot work at the moment.
        busy: For one that holds as many calls as it takes.
        others: For all other errors, by their class.
    """

    framework: type[Exception]
    rejected: Mapping[str, type[RequestRejected]]
    otherwise_rejected: type[RequestRejected]
    failed: Mapping[str, type[ValueFailed]]
    otherwise_failed: type[ValueFailed]
    not_ready: type[Saturated]
    busy: type[Saturated]
    others: Mapping[type[ParrotError], type[ParrotError]]

    def translated(self, error: ParrotError) -> ParrotError:
        """Return the error as a member of both trees; one that there is no word for as it is.

        It keeps its code, message and context.
        """
        kind = None if isinstance(error, self.framework) else self._kind_of(error)
        return error if kind is None else kind(*error.args)

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Let errors of a block leave it as members of both trees."""
        try:
            yield
        except ParrotError as exc:
            translated = self.translated(exc)
            if translated is exc:
                raise
            raise translated from exc

    def _kind_of(self, error: ParrotError) -> type[ParrotError] | None:
        if isinstance(error, RequestRejected):
            return self.rejected.get(error.code, self.otherwise_rejected)
        if isinstance(error, Saturated):
            return self.not_ready if error.code in _NOT_READY else self.busy
        if isinstance(error, ValueFailed) and not isinstance(error, ValueCancelled):
            return self.failed.get(error.code, self.otherwise_failed)
        return self.others.get(type(error))
