"""LangChain's own conformance tests against a real server with vLLM and the tiny model.

The tiny model writes English-like noise. Tests that need a model which understands the question are
expected to fail, each with its reason; everything about the interface has to pass.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from parrot_integrations.langchain import ChatParrot

pytestmark = [pytest.mark.vllm, pytest.mark.e2e]


class TestChatParrotIntegration(ChatModelIntegrationTests):
    url: str

    @pytest.fixture(autouse=True)
    def _server(self, vllm_url: str) -> None:
        self.url = vllm_url

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url}

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "parrot-tiny"

    @property
    def supports_json_mode(self) -> bool:
        return True
