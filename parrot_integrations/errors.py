"""The one error tree of the client side, by what the caller can do.

    ParrotError
    ├── NotConfigured      no server is known             start one and set PARROT_BASE_URL
    ├── ProgramError       the program is wrong           fix the code at the place it was raised
    ├── RequestRejected    the server refused it, 4xx     fix the request; the code says what
    ├── Saturated          the server is busy, 429, 503   try again after ``retry_after_s``
    ├── ConnectionFailed   unreachable, or broke off      try again; gets resume where they were
    ├── ServerFailed       a defect of the server, 5xx    report it
    ├── WaitTimeout        not there in time              get again; the work goes on
    ├── StreamRestarted    text already read is void      stream again, or get the value
    └── ValueFailed        a call failed on the server    see ``origin`` and ``path``
        └── ValueCancelled it was given up                submit it again if it is wanted

Branch on the class or on ``code``, which is stable; ``message`` is for people. Nothing here does
any I/O.
"""

from __future__ import annotations

from collections.abc import Mapping

from parrot_backend.protocol import Scalar, VariableView


class ParrotError(Exception):
    """Base of everything that the front end raises on purpose.

    Args:
        code: Stable machine-readable name of the cause.
        message: One sentence for a person: what is wrong and what to do.
        context: Names, limits and sizes that belong to the error.
    """

    def __init__(self, code: str, message: str, context: Mapping[str, Scalar] | None = None):
        super().__init__(code, message, context)
        self.code = code
        self.message = message
        self.context: dict[str, Scalar] = dict(context or {})

    def __str__(self) -> str:
        """Return the message and the code."""
        return f"{self.message} [{self.code}]"


class NotConfigured(ParrotError):  # noqa: N818 - the class names are public and say what happened
    """No usable address of a server is known."""


class ProgramError(ParrotError):
    """The program cannot be recorded or run as it is written."""


class RequestRejected(ParrotError):  # noqa: N818
    """The server refused the request; repeating it will not help."""


class Saturated(ParrotError):  # noqa: N818
    """The server is busy or not ready.

    Attributes:
        retry_after_s: When the server asks to try again; None if it did not say.
    """

    def __init__(
        self,
        code: str,
        message: str,
        context: Mapping[str, Scalar] | None = None,
        retry_after_s: float | None = None,
    ):
        super().__init__(code, message, context)
        self.args = (code, message, context, retry_after_s)
        self.retry_after_s = retry_after_s


class ConnectionFailed(ParrotError):  # noqa: N818
    """The server could not be reached, or the connection broke off.

    Attributes:
        was_sent: The server may have received the request.
    """

    def __init__(
        self,
        code: str,
        message: str,
        context: Mapping[str, Scalar] | None = None,
        was_sent: bool = True,
    ):
        super().__init__(code, message, context)
        self.args = (code, message, context, was_sent)
        self.was_sent = was_sent


class SessionReplaced(ConnectionFailed):
    """The server lost the session, and a submit that was repeated opened another one.

    What the two sessions generated must not be mixed.

    Attributes:
        session_id: The new session.
    """

    def __init__(self, session_id: str):
        super().__init__("session_lost", "the server has lost the session: submit it again")
        self.args = (session_id,)
        self.session_id = session_id


class ServerFailed(ParrotError):  # noqa: N818
    """The server failed, or answered something that is not Parrot's protocol."""


class WaitTimeout(ParrotError):  # noqa: N818
    """The value was not there within the caller's timeout; its work goes on."""


class StreamRestarted(ParrotError):  # noqa: N818
    """A call ran again on another engine and the new text differs from what was read."""


class ValueFailed(ParrotError):  # noqa: N818
    """A variable has no value because a call or transform failed.

    Attributes:
        origin: Name of the variable at which it first went wrong.
        path: Names of the variables from the origin to the one that was wanted, both included.
    """

    def __init__(self, code: str, message: str, origin: str, path: tuple[str, ...]):
        super().__init__(code, message)
        self.args = (code, message, origin, path)
        self.origin = origin
        self.path = path

    def __str__(self) -> str:
        """Return the cause and the way it took."""
        return f"{self.message} [{self.code}; {' -> '.join(self.path)}]"


class ValueCancelled(ValueFailed):
    """A variable has no value because it, or what it needs, was given up."""


def value_error(view: VariableView) -> ValueFailed:
    """Return the error that says why a failed or cancelled variable has no value."""
    kind = ValueCancelled if view.state == "cancelled" else ValueFailed
    if view.error is None:
        return kind(view.state, f"variable {view.name!r} is {view.state}", view.name, (view.name,))
    return kind(view.error.code, view.error.message, view.error.origin, view.error.path)
