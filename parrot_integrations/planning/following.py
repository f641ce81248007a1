"""The stream of one call as its reader sees it: text that never goes back, then the variable.

A call may run again on another engine, or be sent again after its connection broke. As long as the
new text begins like the old one the reader notices nothing; else it is told that the text is void.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from parrot_backend.protocol import StreamReset, StreamToken, SubmitReply, VariableView
from parrot_integrations._replies import StreamEvent
from parrot_integrations.errors import StreamRestarted, value_error
from parrot_integrations.planning.reply import ReplyEvent, ReplyText


@dataclass(slots=True)
class _Text:
    """What was passed on of a text, and how much of that the present run has confirmed."""

    passed: str = ""
    confirmed_chars: int = 0
    was_reset: bool = False

    def add(self, text: str) -> str:
        """Return the part that is new.

        Raises:
            StreamRestarted: It differs from what was passed on.
        """
        expected = self.passed[self.confirmed_chars : self.confirmed_chars + len(text)]
        if not text.startswith(expected):
            raise _restarted()
        new = text[len(expected) :]
        self.confirmed_chars += len(text)
        self.passed += new
        return new

    def reset(self) -> None:
        """Begin again from the start."""
        self.confirmed_chars = 0
        self.was_reset = True


@dataclass(slots=True)
class StreamFollower:
    """Turns the events of a submit of one call into those of a ``Reply``.

    Attributes:
        session_id: Known from the first event on.
        is_over: The variable was passed on.
    """

    session_id: str | None = None
    is_over: bool = False
    _text: _Text = field(default_factory=_Text)
    _reasoning: _Text = field(default_factory=_Text)
    _may_send_again: bool = True

    def take(self, event: StreamEvent) -> list[ReplyEvent]:
        """Return what the reader is told of an event.

        Raises:
            ValueFailed: There is no value.
            StreamRestarted: What was told before is void.
        """
        if isinstance(event, SubmitReply):
            self.session_id = event.session_id
            return []
        if isinstance(event, StreamReset):
            self._text.reset()
            self._reasoning.reset()
            return []
        if isinstance(event, StreamToken):
            new = (self._text if event.kind == "text" else self._reasoning).add(event.text)
            return [ReplyText(new, event.kind)] if new else []
        return self._settle(event)

    def _settle(self, view: VariableView) -> list[ReplyEvent]:
        if view.state == "cancelled" and self._may_send_again:
            # The server gives its work up when a connection breaks; the client's second try then
            # finds that. The call is sent once more.
            self._may_send_again = False
            self._text.reset()
            self._reasoning.reset()
            return []
        if view.state != "ready":
            raise value_error(view)
        self.is_over = True
        last: list[ReplyEvent] = []
        value = view.value or ""
        if value.startswith(self._text.passed):
            rest = value[len(self._text.passed) :]
            last = [ReplyText(rest)] if rest else []
        elif self._text.was_reset:
            raise _restarted()
        return [*last, view]


def _restarted() -> StreamRestarted:
    return StreamRestarted(
        "stream_restarted",
        "the call ran again and its text differs from what was streamed: discard that, try again",
    )
