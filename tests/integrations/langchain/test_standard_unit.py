"""LangChain's own conformance tests that need no server."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from parrot_integrations.langchain import ChatParrot


class TestChatParrotUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_url": "http://127.0.0.1:9"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        environment = {"PARROT_API_KEY": "key", "PARROT_BASE_URL": "http://parrot.test"}
        expected = {"api_key": "key", "base_url": "http://parrot.test"}
        return environment, {"model": "tiny"}, expected
