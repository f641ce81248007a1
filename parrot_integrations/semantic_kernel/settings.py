"""Where the server is and which models are meant, from the environment or a ``.env`` file."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr
from semantic_kernel.kernel_pydantic import KernelBaseSettings


class ParrotSettings(KernelBaseSettings):
    """Settings of the connectors.

    What is not given is read from the environment variables with the prefix ``PARROT_``, and what
    is not there either from a ``.env`` file. All settings are optional here; the connectors say
    what they miss.

    Attributes:
        chat_model_id: Model of ``ParrotChatCompletion`` (``PARROT_CHAT_MODEL_ID``).
        text_model_id: Model of ``ParrotTextCompletion`` (``PARROT_TEXT_MODEL_ID``).
        host: Address of the server (``PARROT_HOST``); not shown, as it may hold a password.
        base_url: The same, as the rest of the client calls it (``PARROT_BASE_URL``); ``host`` wins.
        api_key: Sent as a bearer token (``PARROT_API_KEY``).
    """

    env_prefix: ClassVar[str] = "PARROT_"

    chat_model_id: str | None = None
    text_model_id: str | None = None
    host: str | None = Field(default=None, repr=False)
    base_url: str | None = Field(default=None, repr=False)
    api_key: SecretStr | None = None
